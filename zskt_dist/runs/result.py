"""`result.json`, the machine-readable answer of every command: its fields and their JSON schema.

The types are those of plain dictionaries: what a command writes is checked where it is put together, and whoever reads
a file may find one of an older version, with fewer fields (`RunDirectory.finished`).

Accuracies, agreements and other shares are fractions of 1; null stands for what could not be measured.
"""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, NotRequired, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic takes the standard library's from Python 3.12 on

from zskt_dist.runs.toy_result import ToyResult

Command = Literal["train", "pretrain", "distill", "finetune", "evaluate"]
Launcher = Literal["local", "ray"]


class TeacherResult(TypedDict):
    """The network that is learnt from; for `pretrain` the one that was trained."""

    arch: str
    """Name of the architecture."""
    params: int
    """Weights, trainable or frozen; buffers do not count."""
    multiply_adds: int
    """Of one image, in linear and convolutional layers; others, such as attention between patches, do not count."""
    answers: NotRequired[str]
    """What it was found to answer, in words; left out for networks of this package, which answer logits."""
    accuracy: float | None
    """Accuracy on the test images; null without any. With several seeds the mean."""
    accuracy_std: NotRequired[float | None]
    """Population standard deviation of the accuracy over the seeds."""


class StudentResult(TypedDict):
    """The network that was trained. With several seeds numbers are means, and the file's hash is left out."""

    arch: str
    """Name of the architecture."""
    params: int
    """Weights, trainable or frozen; buffers do not count."""
    multiply_adds: int
    """Of one image, in linear and convolutional layers; others, such as attention between patches, do not count."""
    answers: NotRequired[str]
    """What it was found to answer, in words; left out for networks of this package, which answer logits."""
    accuracy_last: float | None
    """The headline: accuracy on the test images after the last iteration; null without test images."""
    accuracy_best: float | None
    """Best accuracy on the test images along the way; never the result, because the test images chose it."""
    agreement: float | None
    """Share of test images on which student and teacher predict the same class; null without a teacher or images."""
    sha256: NotRequired[str]
    """SHA-256 of `student.safetensors`, hex."""
    accuracy_last_std: NotRequired[float | None]
    """Population standard deviation of the accuracy over the seeds."""
    accuracy_best_std: NotRequired[float | None]
    """Population standard deviation of the best accuracy over the seeds."""
    agreement_std: NotRequired[float | None]
    """Population standard deviation of the agreement over the seeds."""


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
    """Number of images that student and teacher classified."""
    agreement: float
    """Share of these images on which both predict the same class."""
    agreement_low: float
    """Lower end of Wilson's 95 % interval of the agreement."""
    agreement_high: float
    """Upper end of the same interval."""
    chance_agreement: float
    """Agreement by chance: that of two networks with the same class frequencies that do not see the image."""
    kl_5: float
    """KL(teacher || student) of single images in nats, 5 % quantile."""
    kl_50: float
    """Median of the same KL."""
    kl_95: float
    """95 % quantile of the same KL."""
    teacher_classes: float
    """Number of classes that the teacher predicts at least once on these images."""


@with_config(ConfigDict(extra="allow", use_attribute_docstrings=True))
class Estimates(TypedDict):
    """How good the student is, estimated without labels and real images; with several seeds also `NAME_std`."""

    yardstick_agreement: NotRequired[float]
    """Agreement on the teacher's yardstick; where there is one, sweeps choose by it."""
    label_free_score: NotRequired[float]
    """Mean agreement with the teacher over the generator's snapshots and noise."""
    held_out_agreement: NotRequired[float]
    """Agreement on pseudo-images of the snapshots, from noise that training has not drawn."""
    noise_agreement: NotRequired[float]
    """Agreement on normal noise."""
    held_out_kl: NotRequired[float]
    """Mean KL(teacher || student) on all these images, in nats."""
    generator_loss_drift: NotRequired[float]
    """Mean generator loss of the last fifth of the reports minus that of the fifth before; near 0 at a plateau."""
    sources: NotRequired[dict[str, SourceEstimate]]
    """Estimates by kind of images: `yardstick`, `held_out` (all snapshots together), `noise` and `uniform_noise`."""


class YardstickResult(TypedDict):
    """How alike student and teacher are on the teacher's yardstick: the best number without labels (docs/estimates.md).

    With several seeds numbers are means.
    """

    agreement: float
    """Share of the images on which both predict the same class."""
    low: float
    """Lower end of Wilson's 95 % interval of the agreement: what so few images leave open."""
    high: float
    """Upper end of the same interval."""
    images: float
    """Number of images."""
    sha256: str
    """SHA-256 of the images' pixels, hex: numbers of the same yardstick can be compared."""
    agreement_std: NotRequired[float | None]
    """Population standard deviation of the agreement over the seeds."""


class LabelledImages(TypedDict):
    """Labelled images that the run was measured on."""

    images: int
    """Number of images."""
    sha256: str
    """SHA-256 of the images' pixels and then of the labels as 64-bit integers, hex."""


class SeedImages(TypedDict):
    """Images without labels that the user gave, from which the student learnt beside those that were made."""

    images: int
    """Number of images."""
    sha256: str
    """SHA-256 of the images' pixels, hex."""


class TransitionError(TypedDict):
    """Mean transition error, with all that it depends on: other settings give numbers that cannot be compared."""

    value: float | None
    """Mean of |p_A - p_B| over steps, target classes and images (Eq. 2)."""
    dataset: str
    """Data set whose test images the curves start from."""
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
    """Population standard deviation of the value over the seeds."""
    images_std: NotRequired[float | None]
    """Population standard deviation of the number of images over the seeds."""


class MlflowRun(TypedDict):
    """Where the run is recorded."""

    tracking_uri: str
    """URI of the MLflow store."""
    experiment_id: str
    """Number of the experiment in the store."""
    run_id: str
    """Number of the run in the store."""


class RunResult(TypedDict):
    """The answer of `train`, `pretrain`, `distill` and `finetune`, and what `evaluate --json` writes.

    With several seeds the numbers of the single runs are means.
    """

    status: Literal["finished"]
    """A run that has not ended has no `result.json`."""
    command: Command
    """What was run."""
    method: NotRequired[Literal["belief_matching", "inversion"] | None]
    """How the student was made without data; null for other commands, and for a student of pseudo-data."""
    experiment: str
    """The run's folder in `runs_dir`."""
    name: str
    """The run's folder in that of the experiment."""
    config_hash: str
    """Hash of everything in the configuration that can change the result."""
    git_commit: str | None
    """Commit of the code that ran; null where it is in no repository."""
    launcher: Launcher
    """What started the workers."""
    engine: str
    """`engine.kind`."""
    world_size: int
    """Workers at the end."""
    device: str
    """Device of worker 0, as torch names it: `cpu`, `cuda:0`."""
    speed: NotRequired[str]
    """Fast paths that iterations took (docs/speed.md); one seed only."""
    attention: list[LayerPair] | None
    """Layers whose attention maps were compared; null where the method compares none."""
    seed: NotRequired[int]
    """Seed of the trained network; one seed only."""
    seeds: NotRequired[list[int]]
    """The seeds, where there are several."""
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
    """Iterations divided by `seconds`."""
    peak_memory_bytes: int
    """Largest memory of worker 0: on CUDA that of torch's allocator, else of the process; the largest of all seeds."""
    teacher: TeacherResult | None
    """The teacher; null where the network learnt without one."""
    student: StudentResult | None
    """The student; null where the teacher itself was trained."""
    test_images: NotRequired[LabelledImages | None]
    """The test images of `dataset`; null where there were none."""
    seed_images: NotRequired[SeedImages | None]
    """Images that the student was given; null where it was made without data, or learnt from a data set."""
    yardstick: NotRequired[YardstickResult | None]
    """Agreement on the teacher's yardstick; null where there is none."""
    estimates: Estimates | None
    """Label-free estimates; null where there are none, or not for all seeds."""
    mte: TransitionError | None
    """Mean transition error; null until `evaluate` has measured it, for all seeds in the same way."""
    mlflow: MlflowRun | None
    """The run's record in MLflow; null where MLflow is switched off or could not be reached."""
    evaluation: NotRequired[dict[str, Any] | list[dict[str, Any]]]
    """`evaluate --json` only: the content of `evaluation/evaluation.json`; with several seeds a list of them."""


class BestTrial(TypedDict):
    """The trial that a sweep chooses."""

    settings: dict[str, Any]
    """The trial's values of the keys that the sweep varies."""
    trial: int
    """The trial's number."""
    run: str
    """Name of the trial's run."""
    score: float | None
    """What trials are ranked by without labels: agreement on the yardstick, on pooled images, or the trial's own."""
    label_free_score: float | None
    """The same number as in the `estimates` of its run."""
    accuracy: float | None
    """Accuracy of the trial's student on the test images."""
    agreement: float | None
    """Agreement of student and teacher on the test images."""
    mte: float | None
    """The trial's mean transition error, where it was evaluated."""


RankCorrelation = TypedDict(
    "RankCorrelation",
    {
        "score": Annotated[str, Field(description="Which label-free score; `|NAME|`: its absolute value.")],
        "rank correlation with accuracy": Annotated[float, Field(description="Spearman's rho with test accuracy.")],
        "n": Annotated[int, Field(description="Number of settings, each the mean of its seeds.")],
    },
)


class SweepResult(TypedDict):
    """The answer of `tune.sweep`."""

    status: Literal["finished", "partial"]
    """`partial` while trials are left, failed ones included: the same command tries them."""
    command: Literal["sweep"]
    """What was run."""
    experiment: str
    """The sweep's folder in `runs_dir`."""
    name: str
    """The sweep's folder in that of the experiment."""
    sweep: dict[str, Any]
    """The sweep's file, with defaults."""
    trials: int
    """Number of all trials."""
    finished: int
    """Number of trials that have ended well."""
    stopped: int
    """Number of trials that were stopped early by their score."""
    failed: int
    """Number of trials that have ended in an error."""
    select_by: Literal["label_free_score", "accuracy"]
    """What the best trial was chosen by."""
    compares_teachers: bool
    """The trials had different teachers, so their scores cannot be compared."""
    best: BestTrial | None
    """The best trial; null while none has finished."""
    rank_correlations: list[RankCorrelation]
    """How each label-free score ranks settings, compared with test accuracy; empty for fewer than four settings."""
    runs: list[str]
    """Names of the finished trials' runs, folders beside this one."""
    mlflow: MlflowRun | None
    """The sweep's record in MLflow; null where MLflow is switched off or could not be reached."""


class WeightsFile(TypedDict):
    """The teacher that labelled pseudo-data."""

    arch: str
    """Name of the architecture."""
    sha256: str
    """SHA-256 of the weights, hex."""


class PseudoDataResult(TypedDict):
    """What `synthesize --json` writes; all fields up to `teacher` are the metadata of each shard too."""

    status: Literal["finished"]
    """All shards are there."""
    command: Literal["synthesize"]
    """What was run."""
    folder: str
    """Folder of the shards."""
    format: int
    """Version of the shards' format."""
    version: str
    """Version of the package that made the shards."""
    image_shape: list[int]
    """[C, H, W] in pixels."""
    num_classes: int
    """Classes of the teacher."""
    mean: list[float]
    """Mean of each channel of the real images, which the networks' normalisation subtracts."""
    std: list[float]
    """Standard deviation of each channel, by which the normalisation divides."""
    images: int
    """N, images in all shards."""
    shard_images: int
    """Images of each shard but the last."""
    seed: int
    """Seed of the noise that the images are drawn from."""
    batch_size: int
    """Images that a generator draws at a time."""
    generators: dict[str, str]
    """SHA-256 of each generator, hex, by its iteration; of an inversion that of each round of its pool."""
    method: NotRequired[Literal["belief_matching", "inversion"]]
    """How the run made its student without data, and these images with it; absent: Algorithm 1."""
    seed_images: NotRequired[SeedImages | None]
    """Images that the run was given; they are not among these. Null or absent: none."""
    teacher: WeightsFile
    """The network that labelled the images."""
    shards: int
    """Number of shards."""
    bytes: int
    """Size of all shards together, in bytes."""
    classes: list[int]
    """How often the teacher predicts each class."""
    run: str
    """The run whose generators drew the images."""
    seconds: float
    """Seconds of this command, which makes only what is missing."""


def misfit(result: Mapping[str, Any]) -> str | None:
    """What in a run's result is of another type than this version writes, in words; None where nothing is.

    Fields may be missing, as in a result of an older version.
    """
    if result.get("command") not in get_args(Command):
        return None  # of a sweep, or of pseudo-data, which others read
    try:
        _adapter().validate_python(dict(result))
    except ValidationError as error:
        # Fields may be missing, and null is what could not be measured.
        wrong = [each for each in error.errors() if each["type"] != "missing" and each["input"] is not None]
        return ".".join(map(str, wrong[0]["loc"])) + ": " + wrong[0]["msg"] if wrong else None
    return None


@cache
def _adapter() -> TypeAdapter[RunResult]:
    return TypeAdapter(RunResult)


def schema() -> dict[str, Any]:
    """The JSON schema that the package ships as `result.schema.json`."""
    results: Any = RunResult | SweepResult | ToyResult | PseudoDataResult
    config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "result.json of zskt_dist",
        **TypeAdapter(results, config=config).json_schema(),
    }
