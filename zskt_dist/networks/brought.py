"""Teachers of the user's own code that come with their weights: `teacher.checkpoint=none`."""

import torch
from torch import nn

from zskt_dist.config import Config
from zskt_dist.config.inputs import BROUGHT
from zskt_dist.errors import ConfigError
from zskt_dist.models import is_user_code
from zskt_dist.networks.building import brought_by, unexamined_network
from zskt_dist.networks.fitting import not_finite
from zskt_dist.networks.inputs import declared_by_pseudo_data, open_inputs

_KEY = "teacher.checkpoint"


def with_digest(config: Config) -> Config:
    """`config` with `none:DIGEST` in place of `none`, so that a run depends on the weights that its teacher comes with.

    The teacher is made twice, from different seeds: weights that differ are drawn, and nobody has trained them.

    Raises:
        ConfigError: the teacher is no code of the user's, or has weights that are drawn at random or not finite; or
            nothing says what its images are.
    """
    arch = config.teacher.arch
    if config.teacher.checkpoint != BROUGHT:
        return config
    if not is_user_code(arch):
        problem = f"is for package.module:callable that loads its own weights, and {arch} is made without"
        raise ConfigError(_KEY, BROUGHT, f"{problem}; name a file of weights, or use null to train the teacher")
    declared = [declared_by_pseudo_data(config.pseudo_data)] if config.pseudo_data else []
    inputs = open_inputs(config, declared, needs_train=False)

    def made(seed: int) -> nn.Module:
        seeded = config.model_copy(update={"teacher": config.teacher.model_copy(update={"seed": seed})})
        return unexamined_network(seeded, "teacher", inputs.image_shape, inputs.num_classes)

    network, other = made(0), made(1).state_dict()
    if broken := not_finite(network.state_dict().items()):
        raise ConfigError(_KEY, BROUGHT, f"{arch} comes with weights that are not finite, first in {broken}")
    drawn = [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, other[name])]
    if drawn:
        problem = f"{arch} draws {drawn[0]} at random, and so is not trained"
        raise ConfigError(_KEY, BROUGHT, f"{problem}; load all weights in it, or name a file of weights")
    teacher = config.teacher.model_copy(update={"checkpoint": brought_by(network)})
    return config.model_copy(update={"teacher": teacher})
