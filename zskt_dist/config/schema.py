"""The schema of a run. Every default of the algorithm is the authors' code (docs/fidelity.md).

Units are in the descriptions; `python -m zskt_dist.train --print-config` shows all keys with their values.
"""

from collections.abc import Iterator, Mapping
from math import ceil
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from zskt_dist.config.execution import Engine, Launch
from zskt_dist.config.fields import (
    Finite,
    Fraction,
    Identifier,
    Layers,
    NonNegative,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Section,
    Seed,
    clash,
)


class Teacher(Section):
    arch: str = "wrn-16-2"
    """Registry name of the teacher's network."""
    checkpoint: str | None = None
    """Weights: safetensors, or a state dict `torch.load(weights_only=True)` reads. null: pretrain and cache."""
    seed: Seed | None = None
    """Of the teacher's own training; null: the run's `seed`. A number lets runs of several seeds share a teacher."""


class Student(Section):
    arch: str = "wrn-10-1"
    """Registry name of the student's network."""


class Generator(Section):
    z_dim: Positive = 100
    """Dimensions of the noise z."""
    channels: tuple[Positive, Positive] = (128, 64)
    """Channels of the two hidden stages (paper: 128, 64)."""


class Data(Section):
    name: Literal["digits", "cifar10", "svhn", "mnist", "fashion_mnist", "parquet"] = "digits"
    """Real images, for training the teacher and for evaluation; the transfer never reads them."""
    root: str = "data"
    """Folder with the data set (unused by digits)."""
    download: bool = False
    """Let torchvision download what is missing."""
    mean: tuple[Finite, ...] | None = None
    """Per-channel mean of pixels in [0, 1]; null: the data set's usual one (parquet: measured on the train split)."""
    std: tuple[PositiveFloat, ...] | None = None
    """Per-channel standard deviation, as `mean`."""
    images_per_class: Positive | None = None
    """M, labelled images per class that `distill`, `finetune` and `pretrain` of a student see; null: all of them."""
    augment: Literal["auto", "none", "crop", "crop_flip"] = "auto"
    """Augmentation in supervised training; auto: crop_flip on CIFAR-10 and Fashion-MNIST, none on SVHN, else crop."""


class Transfer(Section):
    """Algorithm 1 (paper, section 3.1)."""

    generator_steps: Positive = 1
    """n_G, generator steps per iteration."""
    student_steps: Positive = 10
    """n_S, student steps per iteration."""
    pseudo_batch: Literal["post_update", "pre_update", "fresh"] = "post_update"
    """Images the student learns from: of the updated generator, of the one before, or a new z for every step."""
    generator_step_statistics: Literal["update", "keep"] = "update"
    """Whether the student's running batch-norm statistics also move in the generator step (authors: update)."""


class Loss(Section):
    divergence: Literal["forward_kl", "reverse_kl", "jensen_shannon"] = "forward_kl"
    """Belief gap; forward_kl is KL(teacher || student)."""
    temperature: PositiveFloat = 1.0
    """Softmax temperature of both networks in the belief gap."""
    reduction: Literal["mean", "batchmean"] = "mean"
    """mean: over batch and classes (authors: KL / C, goes with beta 250); batchmean: the true KL (beta 250 * C)."""
    beta: NonNegativeFloat = 250.0
    """Weight of the attention term (Eq. 1); 0 switches it off."""
    attention: Literal["squared_mean", "l2"] = "squared_mean"
    """Distance of attention maps: mean squared difference (authors' code) or 2-norm (Eq. 1)."""
    attention_layers: Layers = None
    """Positions of the block outputs compared; null: all of them."""


class GeneratorTerms(Section):
    """Extra terms of the generator's loss (Appendix 1), each with its weight gamma; 0 leaves it out."""

    teacher_entropy: Finite = 0.0
    """Of the teacher's predictions; positive: images it is sure of."""
    student_entropy: Finite = 0.0
    """Of the student's predictions; positive: images it is sure of, rightly or wrongly."""
    consistency: NonNegativeFloat = 0.0
    """KL(T(x) || T(A(x))): images whose meaning to the teacher survives the augmentation A."""
    diversity: NonNegativeFloat = 0.0
    """Mean cosine of the images of a batch in the teacher's penultimate layer: batches of unlike images."""
    augmentation: Literal["noise", "blur"] = "noise"
    """A: Gaussian noise or Gaussian blur."""
    augmentation_strength: PositiveFloat = 0.5
    """Standard deviation of A, in normalised input units (noise) or pixels (blur)."""

    @property
    def active(self) -> bool:
        """Whether any term is asked for."""
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
    """Of SGD, without Nesterov."""
    weight_decay: NonNegativeFloat = 5e-4
    """On all parameters."""
    milestones: tuple[Fraction, ...] = (0.3, 0.6, 0.8)
    """Fractions of the run after which the learning rate is multiplied by `decay`."""
    decay: PositiveFloat = 0.2
    """Factor on the learning rate at each milestone."""


class Distill(Section):
    """KD + attention transfer (few-shot code; docs/fidelity.md), the paper's baseline that sees images."""

    temperature: PositiveFloat = 4.0
    """T, of both networks' softmax."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Weight of the teacher's targets: loss = (1 - alpha) CE + 2 alpha T^2 KL / C + beta AT."""
    beta: NonNegativeFloat = 1000.0
    """Weight of the attention term over three layers; rescaled by 3 / layers for another number of them."""


class Finetune(Section):
    """The zero-shot student of the same configuration, trained on with M labelled images per class (Figure 2)."""

    student: str | None = None
    """Weights to start from; null: of the zero-shot run with these settings, which is made first where missing."""
    iterations: Positive = 1000
    """Adam steps, as many for every M."""
    batch_size: Positive = 128
    """Images per step over all workers."""
    learning_rate: PositiveFloat = 5e-4
    """Of Adam, constant."""
    batch_norm: Literal["eval", "train"] = "eval"
    """eval: statistics stay those of the zero-shot student; train: they follow the few images."""


class Transitions(Section):
    """Transition curves and mean transition error (Algorithm 2, Eq. 2), measured by `evaluate`."""

    images: NonNegative = 1000
    """N, test images on which teacher and student agree; 0: no curves."""
    steps: Positive = 100
    """K, values of each curve."""
    step_size: PositiveFloat = 1.0
    """xi, in normalised input units."""
    stepped: Literal["student", "teacher"] = "student"
    """Network A, whose decision boundaries are crossed."""
    skip: Literal["agreed", "label"] = "agreed"
    """Class that is no target: the agreed one (paper) or the true label (authors' code)."""
    rows: Positive = 128
    """Images x target classes per forward pass: what bounds the memory."""


class Evaluation(Section):
    every: NonNegative = 1000
    """Iterations between evaluations on the test images; 0: only at the end."""
    batch_size: Positive = 512
    """Test images per forward pass and worker."""
    noise_images: NonNegative = 1000
    """Images of uniform noise in `evaluate` (Appendix 2, Figure 5); 0: none."""
    held_out_images: NonNegative = 256
    """Fresh pseudo-images of each snapshot, and noise images, for the label-free scores of a student; 0: none."""
    snapshots: NonNegative = 5
    """Moments of the run, evenly spaced, at which the generator is kept for them."""


class Checkpoint(Section):
    every: NonNegative = 500
    """Iterations between checkpoints; 0: only when stopped and at the end."""
    keep: Positive = 2
    """Newest checkpoints kept."""


class Tracking(Section):
    uri: str | None = None
    """MLflow tracking URI; null: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db; 'none': no MLflow."""
    log_every: Positive = 50
    """Iterations between metric rows, each of which costs one synchronisation with the device."""
    images: NonNegative = 64
    """Pseudo-images in each grid of Figure 3; 0: no grids."""


Switch = Literal["auto", True, False]


class Speed(Section):
    """How an iteration is computed. All but `precision` leave its result the same up to rounding (docs/speed.md).

    In place of the section, `speed: auto` picks what wins on the device and `speed: plain` switches everything off.
    """

    channels_last: Switch = "auto"
    """Images and activations with their channels innermost in memory."""
    folded_teacher: Switch = "auto"
    """The teacher's batch norm folded into its convolutions, where one follows the other directly."""
    low_resolution: Switch = "auto"
    """The generator's upsampling and convolution as one operation on the small image, 2.25 times fewer products."""
    compile: Switch = "auto"
    """torch.compile; takes a minute or two at the start and, on CPU, a C++ compiler."""
    cuda_graphs: Switch = "auto"
    """An iteration recorded once and replayed on the GPU (CUDA, one worker)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the networks' arithmetic (autocast); weights, losses and optimizers stay float32. Changes the result."""


def _speed_preset(value: object) -> object:
    """`speed: auto` and `speed: plain` instead of a section."""
    if value == "plain":
        return {name: False for name, default in Speed() if default == "auto"}
    return {} if value == "auto" else value


def _number_as_name(value: object) -> object:
    """`name=7` is a fine name although YAML reads a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Config(Section):
    experiment: Annotated[Identifier, BeforeValidator(_number_as_name)] = "digits"
    """Groups runs: a folder under `runs_dir` and an MLflow experiment."""
    name: Annotated[Identifier, BeforeValidator(_number_as_name)] | None = None
    """Run name; null: experiment and a short hash of the configuration."""
    seed: Seed = 0
    """Of initialisation, noise, order and augmentation."""
    seeds: tuple[Seed, ...] | None = None
    """Several runs, one for each seed, and their mean and standard deviation; null: one run with `seed`."""
    iterations: Positive = 1000
    """N, pseudo-batches."""
    batch_size: Positive = 128
    """Pseudo-images per batch over all workers."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA where every worker finds a GPU of its own."""
    runs_dir: str = "runs"
    """Folder of all run directories, with several machines on storage they share; or a URI: `s3://bucket/runs`."""
    teacher: Teacher = Teacher()
    student: Student = Student()
    generator: Generator = Generator()
    data: Data = Data()
    transfer: Transfer = Transfer()
    loss: Loss = Loss()
    generator_terms: GeneratorTerms = GeneratorTerms()
    optimizer: Optimizer = Optimizer()
    supervised: Supervised = Supervised()
    distill: Distill = Distill()
    finetune: Finetune = Finetune()
    transitions: Transitions = Transitions()
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()
    tracking: Tracking = Tracking()
    launch: Launch = Launch()
    engine: Engine = Engine()
    speed: Annotated[Speed, BeforeValidator(_speed_preset)] = Speed()

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        for key, size in self.batch_sizes.items():
            if size < self.launch.most_workers:
                raise clash(key, size, f"is fewer than one image for each of {self.launch.most_workers} launch.workers")
        if not isinstance(self.launch.workers, int):
            self._check_elastic(list(self.launch.workers))
        if self.seeds is not None and (not self.seeds or len(set(self.seeds)) < len(self.seeds)):
            raise clash("seeds", list(self.seeds), "needs one or more different seeds, for example [0,1,2]")
        if self.engine.batch_norm == "sync" and self.device == "cpu":
            raise clash("engine.batch_norm", "sync", "needs CUDA; with device=cpu use engine.batch_norm=local")
        if self.engine.batch_norm == "sync" and not self._micro_batches_in_step():
            problem = "makes more micro-batches on some workers than on others, and batch_norm=sync has them all wait"
            raise clash("engine.micro_batch", self.engine.micro_batch, problem)
        self._check_deepspeed()
        if len(self.data.mean or ()) != len(self.data.std or ()):
            raise clash("data.std", self.data.std, f"needs one number per channel, as data.mean={self.data.mean} has")
        layers = self.loss.attention_layers or ()
        if len(set(layers)) < len(layers):
            raise clash("loss.attention_layers", list(layers), "names a layer twice; loss.beta weighs them all")
        if self.data.name == "parquet" and "root" not in self.data.model_fields_set:
            raise clash(
                "data.root",
                None,
                "data.name=parquet needs a folder of train-*.parquet and test-*.parquet",
            )
        return self

    def _micro_batches_in_step(self) -> bool:
        """Whether all workers, as many as there may be, go through equally many micro-batches."""
        most = self.engine.micro_batch or self.batch_size
        counts = range(self.launch.fewest_workers, self.launch.most_workers + 1)
        shares = [(self.batch_size // count, ceil(self.batch_size / count)) for count in counts]
        return all(ceil(small / most) == ceil(large / most) for small, large in shares)

    def _check_elastic(self, workers: list[int]) -> None:
        if workers[0] > workers[1]:
            raise clash("launch.workers", workers, f"is [fewest, most]: use [{workers[1]}, {workers[0]}]")
        if self.launch.kind == "local":
            raise clash("launch.workers", workers, f"needs launch.kind=ray; local starts {workers[1]} or {workers[0]}")

    def _check_deepspeed(self) -> None:
        if self.engine.kind == "deepspeed" and self.speed.cuda_graphs is True:
            raise clash("speed.cuda_graphs", True, "cannot record engine.kind=deepspeed; use auto, or engine.kind=ddp")
        size = self.engine.micro_batch
        for workers in range(self.launch.fewest_workers, self.launch.most_workers + 1):
            fewest, rest = divmod(self.batch_size, workers)
            if self.engine.counts_passes and size and rest and fewest % size == 0:
                problem = (
                    f"cuts the {fewest} and {fewest + 1} images of {workers} workers into unequally many parts, and "
                    "ZeRO-2, ZeRO-3 and a sharded teacher need equally many; use a batch_size that they share evenly"
                )
                raise clash("engine.micro_batch", size, problem)

    @property
    def batch_sizes(self) -> dict[str, int]:
        """All global batch sizes by key: each is shared by the workers as evenly as it goes."""
        keys = {"supervised.batch_size": self.supervised.batch_size, "finetune.batch_size": self.finetune.batch_size}
        return {"batch_size": self.batch_size, **keys}

    @property
    def teacher_seed(self) -> int:
        """Of the teacher's own training."""
        return self.seed if self.teacher.seed is None else self.teacher.seed

    @property
    def supervised_iterations(self) -> int:
        """SGD steps of a teacher: `supervised.iterations`, by default as many as `iterations` (paper, section 4.1)."""
        return self.supervised.iterations or self.iterations


def flatten(config: Config) -> Iterator[tuple[str, Any]]:
    """Yields `(dotted key, JSON value)` for every leaf."""

    def walk(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in tree.items():
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    return walk(config.model_dump(mode="json"), "")
