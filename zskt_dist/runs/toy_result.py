"""The part of `runs.result` that belongs to `toy`."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic takes the standard library's from Python 3.12 on


class ToyTeacher(TypedDict):
    """The teacher of `toy`."""

    accuracy: float
    """Accuracy on the points it was trained on; with several seeds the mean."""
    accuracy_std: NotRequired[float]
    """Population standard deviation of the accuracy over the seeds."""


class ToyStudent(TypedDict):
    """The student of `toy`. With several seeds numbers are means."""

    agreement: float
    """Share of the plane's cells in which the student predicts the teacher's class."""
    agreement_at_start: float
    """The same share before training."""
    agreement_std: NotRequired[float]
    """Population standard deviation of the agreement over the seeds."""
    agreement_at_start_std: NotRequired[float]
    """Population standard deviation of the agreement before training."""


class ToyResult(TypedDict):
    """The answer of `toy`."""

    status: Literal["finished"]
    """A run that has not ended has no `result.json`."""
    command: Literal["toy"]
    """What was run."""
    seed: NotRequired[int]
    """The run's seed; one seed only."""
    seeds: NotRequired[list[int]]
    """The seeds, where there are several."""
    runs: NotRequired[list[str]]
    """With several seeds: the folders of their runs, beside this one."""
    settings: dict[str, Any]
    """Sizes and learning rates."""
    seconds: float
    """Seconds over all starts of the run; with several seeds the sum."""
    teacher: ToyTeacher
    """The network that is learnt from."""
    student: ToyStudent
    """The network that was trained."""
    figures: NotRequired[list[str]]
    """Files of the figure; one seed only."""
