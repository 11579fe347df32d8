"""How networks learn: the sections of the algorithms and their optimizers."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from zskt_dist.config.fields import (
    LIST_OF_NUMBERS,
    Finite,
    Fraction,
    ImportPath,
    LayerNames,
    Layers,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Section,
    clash,
)


class Transfer(Section):
    """Algorithm 1 (paper, section 3.1)."""

    generator_steps: Positive = 1
    """n_G, generator steps per iteration."""
    student_steps: Positive = 10
    """n_S, student steps per iteration."""
    pseudo_batch: Literal["post_update", "pre_update", "fresh"] = "post_update"
    """Images the student learns from: of the updated generator, of the one before, or a new z for every step."""
    generator_step_statistics: Literal["update", "keep"] = "update"
    """update: the student's running batch-norm statistics also move in the generator step (authors); keep: not."""


class Taps(Section):
    """Layers whose attention maps are compared, the first of one network with the first of the other, and so on."""

    teacher: LayerNames = None
    """Names of the teacher's layers, as `python -m zskt_dist.layers` lists them; null: auto."""
    student: LayerNames = None
    """Names of the student's layers, as many as the teacher's."""

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.teacher is None) != (self.student is None):
            key, other = ("student", "teacher") if self.student is None else ("teacher", "student")
            raise clash(f"loss.taps.{key}", None, f"needs the layers that those of loss.taps.{other} are compared with")
        mine, theirs = len(self.teacher or ()), len(self.student or ())
        if mine != theirs:
            problem = f"are {theirs} layers, and loss.taps.teacher are {mine}: they are compared one by one"
            raise clash("loss.taps.student", list(self.student or ()), problem)
        return self


def _taps_preset(value: object) -> object:
    """`taps: auto` and `taps: none` instead of a section."""
    presets: dict[object, object] = {"auto": {}, "none": {"teacher": (), "student": ()}}
    return presets.get(value, value) if isinstance(value, str) else value


class Loss(Section):
    divergence: Literal["forward_kl", "reverse_kl", "jensen_shannon"] | ImportPath = "forward_kl"
    """Belief gap; forward_kl is KL(teacher || student). `package.module:callable` is yours: of the logits [n, classes]
    of student and teacher, with a value for each image (docs/divergences.md)."""
    temperature: PositiveFloat = 1.0
    """Softmax temperature of both networks in the belief gap."""
    reduction: Literal["mean", "batchmean"] = "mean"
    """mean: over batch and classes (authors: KL / C, goes with beta 250); batchmean: the true KL (beta 250 * C). A
    divergence of yours is averaged over images alone."""
    beta: NonNegativeFloat = 250.0
    """Weight of the attention term (Eq. 1); 0 switches it off."""
    attention: Literal["squared_mean", "l2"] = "squared_mean"
    """Distance of attention maps: mean squared difference (authors' code) or 2-norm (Eq. 1)."""
    attention_layers: Layers = None
    """Positions of the block outputs compared, of networks that declare them; null: `taps` decides."""
    taps: Annotated[Taps, BeforeValidator(_taps_preset)] = Taps()
    """Layers compared. auto, in place of the section: block outputs that both networks declare, else the last maps of
    equal size, and none, with a warning, where there are none (docs/attention.md); none: no attention term."""
    resize_maps: bool = False
    """Also compare attention maps of unequal size, the larger one averaged down to the smaller."""

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if self.attention_layers is not None and self.taps.teacher is not None:
            raise clash(
                "loss.attention_layers", list(self.attention_layers), "and loss.taps both choose layers; use one"
            )
        return self


class GeneratorTerms(Section):
    """Extra terms of the generator's loss (Appendix 1), each with its weight gamma; 0 leaves it out."""

    teacher_entropy: Finite = 0.0
    """Weight of the entropy of the teacher's predictions; positive: images it is sure of."""
    student_entropy: Finite = 0.0
    """Weight of the entropy of the student's predictions; positive: images it is sure of, rightly or wrongly."""
    consistency: NonNegativeFloat = 0.0
    """Weight of KL(T(x) || T(A(x))): images whose meaning to the teacher survives the augmentation A."""
    diversity: NonNegativeFloat = 0.0
    """Weight of the mean cosine of a batch's images in the teacher's penultimate layer: batches of unlike images."""
    augmentation: Literal["noise", "blur"] = "noise"
    """A: Gaussian noise or Gaussian blur."""
    augmentation_strength: PositiveFloat = 0.5
    """Standard deviation of A, in normalised input units (noise) or pixels (blur)."""

    @property
    def active(self) -> bool:
        """True if any term has a weight."""
        return any((self.teacher_entropy, self.student_entropy, self.consistency, self.diversity))


class Optimizer(Section):
    """Adam with cosine decay to zero, one decay per iteration."""

    generator_lr: PositiveFloat = 1e-3
    """Initial learning rate of the generator."""
    student_lr: PositiveFloat = 2e-3
    """Initial learning rate of the student."""
    clip_norm: NonNegativeFloat = 5.0
    """Largest total gradient norm of each network; 0: no clipping."""


class Supervised(Section):
    """SGD recipe of the paper's baselines (section 4.1): `pretrain` and `distill`."""

    network: Literal["teacher", "student"] = "teacher"
    """Which network `pretrain` trains from scratch."""
    iterations: Positive | None = None
    """SGD steps; null: the run's `iterations` (the paper trains students as long as teachers)."""
    batch_size: Positive = 128
    """Images per step over all workers."""
    learning_rate: PositiveFloat = 0.1
    """Initial learning rate."""
    momentum: NonNegativeFloat = 0.9
    """Momentum of SGD, without Nesterov."""
    weight_decay: NonNegativeFloat = 5e-4
    """Weight decay on all parameters."""
    milestones: Annotated[tuple[Fraction, ...], LIST_OF_NUMBERS] = (0.3, 0.6, 0.8)
    """Fractions of the run after which the learning rate is multiplied by `decay`."""
    decay: PositiveFloat = 0.2
    """Factor on the learning rate at each milestone."""


class Distill(Section):
    """KD + attention transfer (few-shot code; docs/fidelity.md), the paper's baseline that sees images."""

    temperature: PositiveFloat = 4.0
    """T, softmax temperature of both networks."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Weight of the teacher's targets: loss = (1 - alpha) CE + 2 alpha T^2 KL / C + beta AT."""
    beta: NonNegativeFloat = 1000.0
    """Weight of the attention term over three layers; rescaled by 3 / layers for another number of them."""


class Finetune(Section):
    """The zero-shot student of the same configuration, trained on with M labelled images per class (Figure 2)."""

    student: str | None = None
    """Weights to start from; null: those of the zero-shot run with these settings, trained first if missing."""
    iterations: Positive = 1000
    """Adam steps, the same number for every M."""
    batch_size: Positive = 128
    """Images per step over all workers."""
    learning_rate: PositiveFloat = 5e-4
    """Constant learning rate of Adam."""
    batch_norm: Literal["eval", "train"] = "eval"
    """eval: statistics stay those of the zero-shot student; train: they follow the few images."""
