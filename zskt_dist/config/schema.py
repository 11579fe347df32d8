"""The schema of a run. Every default of the algorithm is the authors' code (docs/fidelity.md).

Units are in the descriptions; `python -m zskt_dist.train --print-config` shows all keys with their values.
"""

from collections.abc import Iterator
from math import ceil
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, model_validator

from zskt_dist.config.execution import Engine, Launch, Speed, speed_preset
from zskt_dist.config.fields import LIST_OF_NUMBERS, Identifier, Local, Positive, Purpose, Section, Seed, clash
from zskt_dist.config.inputs import Data, Generator, Student, Teacher
from zskt_dist.config.inversion import Inversion
from zskt_dist.config.measuring import Checkpoint, Evaluation, Tracking, Transitions
from zskt_dist.config.training import Distill, Finetune, GeneratorTerms, Loss, Optimizer, Supervised, Transfer


def _number_as_name(value: object) -> object:
    """`name=7` is a fine name although YAML reads a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Config(Section):
    experiment: Annotated[Identifier, BeforeValidator(_number_as_name)] = "digits"
    """Groups runs: a folder under `runs_dir` and an MLflow experiment."""
    name: Annotated[Annotated[Identifier, BeforeValidator(_number_as_name)] | None, Purpose.PLACEMENT] = None
    """Run name; null: experiment and a short hash of the configuration."""
    seed: Seed = 0
    """Seed of initialisation, noise, order and augmentation."""
    seeds: Annotated[tuple[Seed, ...] | None, LIST_OF_NUMBERS] = None
    """Several runs, one for each seed, and their mean and standard deviation; null: one run with `seed`."""
    method: Literal["belief_matching", "inversion"] = "belief_matching"
    """How `train` transfers: Algorithm 1 of the paper, or inversion of the teacher (docs/inversion.md)."""
    iterations: Positive = 1000
    """N, number of pseudo-batches; with `method=inversion` or `pseudo_data`, number of student steps."""
    batch_size: Positive = 128
    """Pseudo-images per batch over all workers."""
    pseudo_data: Local | None = None
    """Folder that `synthesize` has made: `train` learns from its images and logits alone (docs/pseudo_data.md).
    null: from a generator and the teacher."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA where every worker finds a GPU of its own."""
    runs_dir: Annotated[str, Purpose.PLACEMENT] = "runs"
    """Folder of all run directories, or a URI (`s3://bucket/runs`). Several machines need storage that they share. A
    relative one lies in the current folder, in a Ray job below `~/zskt`."""
    teacher: Teacher = Teacher()
    student: Student = Student()
    generator: Generator = Generator()
    data: Data = Data()
    transfer: Transfer = Transfer()
    inversion: Inversion = Inversion()
    loss: Loss = Loss()
    generator_terms: GeneratorTerms = GeneratorTerms()
    optimizer: Optimizer = Optimizer()
    supervised: Supervised = Supervised()
    distill: Distill = Distill()
    finetune: Finetune = Finetune()
    transitions: Annotated[Transitions, Purpose.MEASUREMENT] = Transitions()
    evaluation: Evaluation = Evaluation()
    checkpoint: Annotated[Checkpoint, Purpose.PLACEMENT] = Checkpoint()
    tracking: Annotated[Tracking, Purpose.PLACEMENT] = Tracking()
    launch: Annotated[Launch, Purpose.WORKERS] = Launch()
    engine: Engine = Engine()
    speed: Annotated[Speed, BeforeValidator(speed_preset)] = Speed()

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
        if self.pseudo_data is not None and self.loss.beta:
            problem = "needs the teacher's attention maps, which pseudo_data does not hold; use loss.beta=0"
            raise clash("loss.beta", self.loss.beta, problem)
        if self.pseudo_data is not None and self.method == "inversion":
            raise clash("method", "inversion", "makes its images itself; with pseudo_data use method=belief_matching")
        self._check_inversion()
        layers = self.loss.attention_layers or ()
        if len(set(layers)) < len(layers):
            raise clash("loss.attention_layers", list(layers), "names a layer twice; loss.beta weighs them all")
        if self.data.name == "parquet" and "root" not in self.data.model_fields_set:
            raise clash(
                "data.root",
                None,
                "data.name=parquet needs a folder of train-*.parquet and test-*.parquet, or of class folders",
            )
        return self

    def _micro_batches_in_step(self) -> bool:
        """True if all workers have equally many micro-batches, for every number of workers that is allowed."""
        most = self.engine.micro_batch or self.batch_size
        counts = range(self.launch.fewest_workers, self.launch.most_workers + 1)
        shares = [(self.batch_size // count, ceil(self.batch_size / count)) for count in counts]
        return all(ceil(small / most) == ceil(large / most) for small, large in shares)

    def _check_elastic(self, workers: list[int]) -> None:
        if workers[0] > workers[1]:
            raise clash("launch.workers", workers, f"is [fewest, most]: use [{workers[1]}, {workers[0]}]")
        if self.launch.kind == "local":
            raise clash("launch.workers", workers, f"needs launch.kind=ray; local starts {workers[1]} or {workers[0]}")

    def _check_inversion(self) -> None:
        if self.method == "inversion" and self.engine.teacher == "sharded":
            problem = "has all workers ask the teacher together, and method=inversion asks on each by itself; use"
            raise clash("engine.teacher", "sharded", f"{problem} replicated or bfloat16")

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
        """Seed of the teacher's own training, once `tasks.stages.pinned` has settled what null means."""
        return self.teacher.seed if isinstance(self.teacher.seed, int) else self.seed

    @property
    def supervised_iterations(self) -> int:
        """SGD steps of a teacher: `supervised.iterations`, by default as many as `iterations` (paper, section 4.1)."""
        return self.supervised.iterations or self.iterations


def flatten(config: Config) -> Iterator[tuple[str, Any]]:
    """Yields `(dotted key, JSON value)` for every leaf; each option of a network is a leaf."""
    for name, value in config.model_dump(mode="json").items():
        if not isinstance(value, dict):
            yield name, value
            continue
        for key, leaf in value.items():
            if isinstance(leaf, dict):
                yield from ((f"{name}.{key}.{option}", each) for option, each in leaf.items())
            else:
                yield f"{name}.{key}", leaf
