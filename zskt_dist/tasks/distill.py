"""Knowledge distillation with attention transfer (KD + AT) on real images, the paper's baseline."""

from zskt_dist.algorithms.supervised import Distillation
from zskt_dist.models import ImageShape
from zskt_dist.networks.attention import pair_layers, tap_pair
from zskt_dist.networks.building import new_network, with_checkpointing
from zskt_dist.tasks.base import Context, Lines, Training
from zskt_dist.tasks.stages import Stage
from zskt_dist.tasks.supervised import ImageTraining, describe_recipe, new_sgd_engine


def describe(stage: Stage, image_shape: ImageShape | None) -> Lines:
    config, kd = stage.config, stage.config.distill
    loss = f"KD + AT: T = {kd.temperature:g}, alpha = {kd.alpha:g}, beta = {kd.beta:g} ({config.loss.attention})"
    return [*describe_recipe(config), ("loss", loss)]


def start(context: Context) -> Training:
    """Raises ConfigError where layers do not exist or do not pair, or a class has too few images."""
    config, inputs, teacher = context.config, context.inputs, context.teacher
    assert teacher is not None
    network = new_network(config, "student", inputs.image_shape, inputs.num_classes).to(context.world.device)
    with_checkpointing(config, network)
    attention = pair_layers(config, teacher, network, inputs.image_shape, weight="distill")
    tapped_teacher, tapped_student = tap_pair(config, teacher, network, attention, weight="distill")
    engine = new_sgd_engine(context, tapped_student)
    settings = config.distill
    steps = Distillation(
        engine,
        tapped_teacher,
        temperature=settings.temperature,
        alpha=settings.alpha,
        beta=settings.beta,
        attention=config.loss.attention,
    )
    iterations, batch = config.supervised_iterations, config.supervised.batch_size
    training = ImageTraining(context, engine, steps, iterations=iterations, batch=batch)
    training.attention = attention
    return training
