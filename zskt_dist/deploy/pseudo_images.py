"""The run's own images: what its generator makes of the noise on which students are judged."""

import torch
from torch import Tensor

from zskt_dist.deploy.subject import Subject
from zskt_dist.runtime.networks import new_generator
from zskt_dist.runtime.weights import parse_weights
from zskt_dist.streams import Purpose, normal, stream


@torch.no_grad()
def pseudo_images(subject: Subject) -> Tensor | None:
    """`evaluation.held_out_images` of every snapshot, normalised [N, C, H, W]; None where the run kept none."""
    config, images = subject.config, []
    for number, path in enumerate(sorted(subject.directory.snapshots.glob("generator_*.safetensors"))):
        generator = new_generator(config, subject.image_shape)  # in training mode: batch statistics as in training
        generator.load_state_dict(parse_weights(path.read_bytes()))
        rng = stream(config.seed, Purpose.HELD_OUT, number)
        z = torch.from_numpy(normal(rng, config.evaluation.held_out_images, config.generator.z_dim))
        images += [generator(part) for part in z.split(config.batch_size)]
    return torch.cat(images) if images else None
