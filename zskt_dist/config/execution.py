"""Where a run is computed, and by what: the sections `launch`, `engine` and `speed`."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, model_validator

from zskt_dist.config.fields import NonNegative, Positive, PositiveFloat, Purpose, Section, as_numbers, clash


def _number_or_range(value: object) -> object:
    """Checks the union of types here: one message, where pydantic would have one for each type."""
    found = as_numbers(value)
    numbers = found if isinstance(found, tuple) else ()
    if not all(type(number) is int and number > 0 for number in numbers) or len(numbers) not in (1, 2):
        raise clash("launch.workers", value, "expected a number of workers, or [fewest, most] of them under Ray")
    return numbers if len(numbers) == 2 else numbers[0]


Workers = Annotated[int | tuple[int, int], BeforeValidator(_number_or_range)]


class Launch(Section):
    kind: Literal["local", "ray"] = "local"
    """local: this process, several of this machine, or the ranks torchrun started; ray: workers of Ray Train, the
    default in a Ray job."""
    workers: Workers = 1
    """Data-parallel workers; [fewest, most] under ray: as many as the cluster has room for at each moment."""
    cpus_per_worker: Annotated[Positive | None, Purpose.SPEED] = None
    """CPU threads of a worker; null: 1 under ray, else the machine's cores shared evenly."""
    max_failures: Annotated[NonNegative | None, Purpose.PLACEMENT] = None
    """Ray: how often a failed group of workers is started again from the last checkpoint; null: 3, or 100 with
    [fewest, most] workers, where losing nodes is ordinary."""
    resize_seconds: Annotated[PositiveFloat, Purpose.PLACEMENT] = 60.0
    """Ray, with [fewest, most] workers: seconds between two checks for free room in the cluster."""

    @property
    def fewest_workers(self) -> int:
        """The run waits until the cluster has room for so many workers."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def allowed_failures(self) -> int:
        """`max_failures`, or the default that null stands for."""
        if self.max_failures is not None:
            return self.max_failures
        return 3 if self.fewest_workers == self.most_workers else 100

    @property
    def most_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers[1]


class Engine(Section):
    kind: Annotated[Literal["ddp", "deepspeed"], Purpose.WORKERS] = "ddp"
    """What trains a network. ddp: DistributedDataParallel (the plain module with one worker), every worker holds all;
    deepspeed: ZeRO, each holds a part (docs/deepspeed.md)."""
    batch_norm: Literal["local", "sync"] = "local"
    """local: each worker normalises its slice; sync: statistics of the global batch (CUDA only)."""
    micro_batch: Positive | None = None
    """Most pseudo-images of a worker in one forward pass. Gradients add up; batch norm normalises each micro-batch by
    itself. null: the worker's whole share of the batch."""
    activation_checkpointing: Annotated[bool, Purpose.SPEED] = False
    """Recompute the activations inside a network's blocks in the backward pass instead of keeping them: less memory,
    about a third more time, the same result (docs/memory.md)."""
    zero_stage: Annotated[Literal[0, 1, 2, 3], Purpose.WORKERS] = 1
    """deepspeed shares out over the workers: 0 nothing, 1 the optimizer's state, 2 gradients too, 3 parameters too."""
    offload_optimizer: Annotated[bool, Purpose.WORKERS] = False
    """deepspeed, stages 1 to 3: the optimizer's state lies in the machine's memory, and the update is done there."""
    offload_parameters: Annotated[bool, Purpose.WORKERS] = False
    """deepspeed, stage 3: parameters lie in the machine's memory while they are not used."""
    teacher: Literal["replicated", "bfloat16", "sharded"] = "replicated"
    """Where the frozen teacher lies. replicated: on every worker; bfloat16: there too, in half the memory (changes the
    result); sharded: shared out over the workers (deepspeed), gathered layer by layer."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "ddp":
            for key, is_plain, value in (
                ("zero_stage", self.zero_stage == 1, self.zero_stage),
                ("offload_optimizer", not self.offload_optimizer, True),
                ("offload_parameters", not self.offload_parameters, True),
                ("teacher", self.teacher != "sharded", "sharded"),
            ):
                if not is_plain:
                    raise clash(f"engine.{key}", value, "needs engine.kind=deepspeed")
        if self.offload_optimizer and self.zero_stage == 0:
            raise clash("engine.offload_optimizer", True, "needs engine.zero_stage=1, 2 or 3; 0 shares out nothing")
        if self.offload_parameters and self.zero_stage < 3:
            raise clash("engine.offload_parameters", True, "needs engine.zero_stage=3, which shares out parameters")
        return self

    @property
    def counts_passes(self) -> bool:
        """True if every worker must make equally many passes, because the workers exchange data in each of them."""
        return (self.kind == "deepspeed" and self.zero_stage >= 2) or self.teacher == "sharded"


Switch = Annotated[Literal["auto", True, False], Purpose.SPEED]


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
    """Precision of the networks' arithmetic (autocast) in the transfer; weights, losses and optimizers stay float32.
    Changes the result."""


def speed_preset(value: object) -> object:
    """`speed: auto` and `speed: plain` instead of a section."""
    if value == "plain":
        return {name: False for name, default in Speed() if default == "auto"}
    if isinstance(value, str | int | float) and value != "auto":
        raise clash("speed", value, f"expected auto, plain, or one of its keys: {', '.join(Speed.model_fields)}")
    return {} if value == "auto" else value
