"""`result.json`, the machine-readable answer of every command: its fields and their JSON schema.

The types are those of plain dictionaries: what a command writes is checked where it is put together, and whoever reads
a file may find one of an older version, with fewer fields (`RunDirectory.finished`).

Accuracies, agreements and other shares are fractions of 1; null stands for what could not be measured.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict  # pydantic takes the standard library's from Python 3.12 on


Command = Literal["train", "pretrain", "distill", "finetune", "evaluate"]
Launcher = Literal["local", "ray"]


class TeacherResult(TypedDict):
    """The network that is learnt from, or, of `pretrain`, the one that was trained."""

    arch: str
    """Name of the architecture."""
    params: int
    """Weights, trainable or frozen; buffers do not count."""
    accuracy: float | None
    """On the test images; null without any. With several seeds the mean."""
    accuracy_std: NotRequired[float | None]
    """Population standard deviation over the seeds."""


class StudentResult(TypedDict):
    """The network that was trained. With several seeds numbers are means, and the file's hash is left out."""

    arch: str
    """Name of the architecture."""
    params: int
    """Weights, trainable or frozen; buffers do not count."""
    accuracy_last: float | None
    """The headline: accuracy on the test images after the last iteration; null without test images."""
    accuracy_best: float | None
    """The best on the test images along the way; never the result, for it was chosen by them."""
    agreement: float | None
    """Share of the test images on which student and teacher predict the same class; null without either."""
    sha256: NotRequired[str]
    """Of `student.safetensors`, hex."""
    accuracy_last_std: NotRequired[float | None]
    """Population standard deviation over the seeds."""
    accuracy_best_std: NotRequired[float | None]
    """Likewise."""
    agreement_std: NotRequired[float | None]
    """Likewise."""


class LayerPair(TypedDict):
    """A layer of the teacher and one of the student whose attention maps are compared."""

    teacher: str
    """Name of the teacher's layer."""
    student: str
    """Name of the student's layer."""
    size: list[int]
    """[H, W] in pixels, at which the maps are compared."""


@with_config(ConfigDict(extra="allow", use_attribute_docstrings=True))
class SourceEstimate(TypedDict):
    """Agreement on one kind of images that are not real (docs/estimates.md); with several seeds also `NAME_std`."""

    images: float
    """How many images student and teacher were asked about."""
    agreement: float
    """Share of them for which both predict the same class."""
    agreement_low: float
    """Lower end of Wilson's 95 % interval of the agreement."""
    agreement_high: float
    """Upper end of it."""
    chance_agreement: float
    """Agreement of two networks that predict the classes as often, but know nothing of the image."""
    kl_5: float
    """KL(teacher || student) of single images in nats, 5 % quantile."""
    kl_50: float
    """Its median."""
    kl_95: float
    """Its 95 % quantile."""
    teacher_classes: float
    """How many classes the teacher predicts at all on these images."""


@with_config(ConfigDict(extra="allow", use_attribute_docstrings=True))
class Estimates(TypedDict):
    """Estimates of the student that need no labels and no real images; with several seeds also `NAME_std`."""

    label_free_score: NotRequired[float]
    """Mean agreement with the teacher over the generator's snapshots and noise; what sweeps choose by."""
    held_out_agreement: NotRequired[float]
    """Agreement on pseudo-images of the snapshots, from noise that training has not drawn."""
    noise_agreement: NotRequired[float]
    """Agreement on normal noise."""
    held_out_kl: NotRequired[float]
    """Mean KL(teacher || student) on all these images, in nats."""
    generator_loss_drift: NotRequired[float]
    """Mean generator loss of the last fifth of the reports minus that of the fifth before; near 0 at a plateau."""
    sources: NotRequired[dict[str, SourceEstimate]]
    """By kind of images: `held_out` (all snapshots together), `noise` and `uniform_noise`."""


class TransitionError(TypedDict):
    """Mean transition error, with all that it depends on: other settings give numbers that cannot be compared."""

    value: float | None
    """Mean of |p_A - p_B| over steps, target classes and images (Eq. 2)."""
    dataset: str
    """Whose test images the curves start from."""
    steps: int
    """K, values of each curve."""
    step_size: float
    """xi, in normalised input units."""
    images: float
    """N, test images on which student and teacher agree."""
    stepped: Literal["student", "teacher"]
    """Network A, whose decision boundaries are crossed."""
    skip: Literal["agreed", "label"]
    """Class that is no target: the agreed one, or the true label."""
    images_per_class: int | None
    """M, real training images of each class that the student has seen; null: none, or all."""
    value_std: NotRequired[float | None]
    """Population standard deviation over the seeds."""
    images_std: NotRequired[float | None]
    """Likewise."""


class MlflowRun(TypedDict):
    """Where the run is recorded."""

    tracking_uri: str
    """The store."""
    experiment_id: str
    """The experiment's number in it."""
    run_id: str
    """The run's."""


class RunResult(TypedDict):
    """`train`, `pretrain`, `distill` and `finetune`; of `evaluate` what `--json` writes.

    With several seeds the numbers of the single runs are means.
    """

    status: Literal["finished"]
    """A run that has not ended has no `result.json`."""
    command: Command
    """What was run."""
    experiment: str
    """The run's folder in `runs_dir`."""
    name: str
    """The run's folder in that of the experiment."""
    config_hash: str
    """Hash of everything in the configuration that can change the result."""
    git_commit: str | None
    """Of the code that ran; null where it is in no repository."""
    launcher: Launcher
    """What started the workers."""
    engine: str
    """`engine.kind`."""
    world_size: int
    """Workers at the end."""
    device: str
    """Of worker 0, as torch names it: `cpu`, `cuda:0`."""
    speed: NotRequired[str]
    """Fast paths that iterations took (docs/speed.md); one seed only."""
    attention: list[LayerPair] | None
    """Layers whose attention maps were compared; null where the method compares none."""
    seed: NotRequired[int]
    """Of the trained network; one seed only."""
    seeds: NotRequired[list[int]]
    """With several seeds: theirs."""
    runs: NotRequired[list[str]]
    """With several seeds: the names of their runs, folders beside this one."""
    dataset: str
    """`data.name`; of Parquet files, the name of their folder."""
    num_classes: NotRequired[int]
    """Classes of the data set; one seed only."""
    images_per_class: int | None
    """M, real training images of each class that the student has seen; null: none, or all."""
    iterations: int
    """Iterations of the training."""
    resumed_from: NotRequired[int | None]
    """Iteration of the checkpoint that the last start went on from; null: none. One seed only."""
    seconds: float
    """Training, evaluation and saving, over all starts of the run; with several seeds the sum."""
    iterations_per_second: float
    """Iterations by these seconds."""
    peak_memory_bytes: int
    """Largest memory of worker 0: on CUDA what its allocator held, else of the process; of several seeds the largest."""
    teacher: TeacherResult | None
    """Null where a network learnt without one."""
    student: StudentResult | None
    """Null where the teacher itself was trained."""
    estimates: Estimates | None
    """Null where nothing was estimated, or not for all seeds."""
    mte: TransitionError | None
    """Null until `evaluate` has measured it, for all seeds in the same way."""
    mlflow: MlflowRun | None
    """Null where MLflow is switched off or could not be reached."""
    evaluation: NotRequired[dict[str, Any] | list[dict[str, Any]]]
    """`evaluate --json` only: the content of `evaluation/evaluation.json`; with several seeds a list of them."""


class BestTrial(TypedDict):
    """The trial that a sweep chooses."""

    settings: dict[str, Any]
    """Its values of the keys that the sweep varies."""
    trial: int
    """Its number."""
    run: str
    """Name of its run."""
    score: float | None
    """What trials are ranked by without labels: agreement on pooled images, else `label_free_score`."""
    label_free_score: float | None
    """As in the `estimates` of its run."""
    accuracy: float | None
    """Of its student on the test images."""
    agreement: float | None
    """Of student and teacher on the test images."""
    mte: float | None
    """Its mean transition error, where it was evaluated."""


RankCorrelation = TypedDict(
    "RankCorrelation",
    {
        "score": Annotated[str, Field(description="Which label-free score; `|NAME|`: its absolute value.")],
        "rank correlation with accuracy": Annotated[float, Field(description="Spearman's rho with test accuracy.")],
        "n": Annotated[int, Field(description="How many settings, each the mean of its seeds.")],
    },
)


class SweepResult(TypedDict):
    """`tune.sweep`."""

    status: Literal["finished", "partial"]
    """`partial` while trials are left, failed ones included: the same command tries them."""
    command: Literal["sweep"]
    """What was run."""
    experiment: str
    """The sweep's folder in `runs_dir`."""
    name: str
    """The sweep's folder in that of the experiment."""
    sweep: dict[str, Any]
    """Its file, with defaults."""
    trials: int
    """How many there are."""
    finished: int
    """How many have ended well."""
    stopped: int
    """How many were stopped early by their score."""
    failed: int
    """How many have ended in an error."""
    select_by: Literal["label_free_score", "accuracy"]
    """What the best trial was chosen by."""
    compares_teachers: bool
    """Trials had different teachers, so that their scores do not compare."""
    best: BestTrial | None
    """Null while none has finished."""
    rank_correlations: list[RankCorrelation]
    """How each label-free score ranks settings, compared with test accuracy; empty for fewer than four settings."""
    runs: list[str]
    """Names of the finished trials' runs, folders beside this one."""
    mlflow: MlflowRun | None
    """Null where MLflow is switched off or could not be reached."""


class ToyTeacher(TypedDict):
    """The teacher of `toy`."""

    accuracy: float
    """On the points it was trained on. With several seeds the mean."""
    accuracy_std: NotRequired[float]
    """Population standard deviation over the seeds."""


class ToyStudent(TypedDict):
    """The student of `toy`. With several seeds numbers are means."""

    agreement: float
    """Share of the plane's cells in which it predicts the teacher's class."""
    agreement_at_start: float
    """The same before training."""
    agreement_std: NotRequired[float]
    """Population standard deviation over the seeds."""
    agreement_at_start_std: NotRequired[float]
    """Likewise."""


class ToyResult(TypedDict):
    """`toy`."""

    status: Literal["finished"]
    """A run that has not ended has no `result.json`."""
    command: Literal["toy"]
    """What was run."""
    seed: NotRequired[int]
    """One seed only."""
    seeds: NotRequired[list[int]]
    """With several seeds: theirs."""
    runs: NotRequired[list[str]]
    """With several seeds: the folders of their runs, beside this one."""
    settings: dict[str, Any]
    """Sizes and learning rates."""
    seconds: float
    """Over all starts of the run; with several seeds the sum."""
    teacher: ToyTeacher
    """The network that is learnt from."""
    student: ToyStudent
    """The network that was trained."""
    figures: NotRequired[list[str]]
    """Files of the figure; one seed only."""


class WeightsFile(TypedDict):
    """The teacher that labelled pseudo-data."""

    arch: str
    """Name of the architecture."""
    sha256: str
    """Of the weights, hex."""


class PseudoDataResult(TypedDict):
    """`synthesize`, what `--json` writes; all up to `teacher` is the metadata of each shard too."""

    status: Literal["finished"]
    """All shards are there."""
    command: Literal["synthesize"]
    """What was run."""
    folder: str
    """Of the shards."""
    format: int
    """Version of their format."""
    version: str
    """Of the package that made them."""
    image_shape: list[int]
    """[C, H, W] in pixels."""
    num_classes: int
    """Classes of the teacher."""
    mean: list[float]
    """Of each channel of the real images, which the networks' normalisation subtracts."""
    std: list[float]
    """Of each channel, by which it divides."""
    images: int
    """N, images in all shards."""
    shard_images: int
    """Images of each shard but the last."""
    seed: int
    """Of the noise that the images are drawn from."""
    batch_size: int
    """Images that a generator draws at a time."""
    generators: dict[str, str]
    """SHA-256 of each generator, hex, by its iteration."""
    teacher: WeightsFile
    """The network that labelled them."""
    shards: int
    """How many there are."""
    bytes: int
    """Size of their files together."""
    classes: list[int]
    """How often the teacher predicts each class."""
    run: str
    """The run whose generators drew them."""
    seconds: float
    """Of this command, which makes only what is missing."""


def schema() -> dict[str, Any]:
    """The JSON schema that the package ships as `result.schema.json`."""
    results: Any = RunResult | SweepResult | ToyResult | PseudoDataResult
    config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "result.json of zskt_dist",
        **TypeAdapter(results, config=config).json_schema(),
    }
