"""A trained student, trained on with a few real images of each class (Figure 2)."""

from functools import partial

import torch

from zskt_dist.algorithms.supervised import SupervisedTraining
from zskt_dist.models import ImageShape, TappedNetwork
from zskt_dist.networks.building import with_checkpointing
from zskt_dist.runs.locations import split
from zskt_dist.speed import uses_cuda_graphs
from zskt_dist.tasks.base import Context, Lines, Training
from zskt_dist.tasks.stages import Stage
from zskt_dist.tasks.supervised import ImageTraining, engine_for, learning_rate


def describe(stage: Stage, image_shape: ImageShape | None) -> Lines:
    few = stage.config.finetune
    steps = f"Adam {few.learning_rate:g}, {few.iterations:,} steps of {few.batch_size}"
    source = few.student or f"the zero-shot run {split(stage.inputs['student'])[0]}"
    return [
        ("start", f"the student of {source}"),
        ("optimizer", f"{steps}, batch norm in {few.batch_norm} mode"),
    ]


def start(context: Context) -> Training:
    """Cross entropy with Adam, batch norm in eval mode by default."""
    config, world, settings = context.config, context.world, context.config.finetune
    student = context.network("student").train(settings.batch_norm == "train").requires_grad_(True)
    with_checkpointing(config, student)
    rate, recorded = learning_rate(context, settings.learning_rate), uses_cuda_graphs(config, world.device, world.size)
    adam = partial(torch.optim.Adam, lr=rate, fused=True, capturable=recorded)
    engine = engine_for(context, TappedNetwork(student), adam, lambda iteration: 1.0, settings.batch_size)
    steps = SupervisedTraining(engine)
    return ImageTraining(context, engine, steps, iterations=settings.iterations, batch=settings.batch_size)
