"""Supervised tasks against a plain loop with torch's unfused SGD."""

from pathlib import Path

import torch
from torch import nn

from tests.support.configs import tiny_config
from tests.support.images import random_dataset
from tests.support.jobs import context_of
from zskt_dist.distributed.world import World
from zskt_dist.models import ImageShape
from zskt_dist.networks.building import new_network, seed_layers
from zskt_dist.tasks import pretrain
from zskt_dist.tasks.supervised import ImageTraining

SHAPE, CLASSES, ITERATIONS = ImageShape(1, 8, 8), 5, 8


def test_a_layer_that_is_skipped_at_first_joins_later(tmp_path: Path) -> None:
    """Its momentum begins with its first gradient."""
    settings = ("teacher.arch=tests.support.user_networks:Skipping", "supervised.batch_size=6")
    config = tiny_config(tmp_path, *settings, f"supervised.iterations={ITERATIONS}", "supervised.milestones=[]")
    world, dataset = World(torch.device("cpu")), random_dataset(30, SHAPE, augmentation="crop_flip")
    task = pretrain.start(context_of("pretrain", config, dataset, world))
    assert isinstance(task, ImageTraining)
    network = new_network(config, "teacher", SHAPE, dataset.num_classes).train()
    recipe = config.supervised
    sgd = torch.optim.SGD(
        network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    used = []
    for iteration in range(ITERATIONS):
        task.step(iteration)
        x, label = task.batches(iteration)
        seed_layers(config.teacher_seed, world, iteration)
        sgd.zero_grad()
        nn.functional.cross_entropy(network(x), label).backward()
        used.append(network.inner.weight.grad is not None)
        sgd.step()
    assert not used[0], "else this test would show little"
    assert any(used)
    with task.trained() as trained:
        for name, value in trained.state_dict().items():
            torch.testing.assert_close(value, network.state_dict()[name], rtol=1e-5, atol=1e-6, msg=name)
