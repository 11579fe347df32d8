"""A teacher, or a student from scratch: cross entropy on real images with the paper's recipe (section 4.1)."""

from zskt_dist.algorithms.supervised import SupervisedTraining
from zskt_dist.models import ImageShape, TappedNetwork
from zskt_dist.networks.building import new_network, with_checkpointing
from zskt_dist.tasks.base import Context, Lines, Training
from zskt_dist.tasks.stages import Stage
from zskt_dist.tasks.supervised import ImageTraining, describe_recipe, new_sgd_engine


def describe(stage: Stage, image_shape: ImageShape | None) -> Lines:
    return describe_recipe(stage.config)


def start(context: Context) -> Training:
    config, inputs = context.config, context.inputs
    network = new_network(config, context.stage.task.role, inputs.image_shape, inputs.num_classes)
    with_checkpointing(config, network.to(context.world.device))
    engine = new_sgd_engine(context, TappedNetwork(network))
    iterations, batch = config.supervised_iterations, config.supervised.batch_size
    return ImageTraining(context, engine, SupervisedTraining(engine), iterations=iterations, batch=batch)
