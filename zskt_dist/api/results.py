"""The results that the functions of the Python API return."""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from zskt_dist.errors import ConfigError
from zskt_dist.extras import require
from zskt_dist.models import ImageShape, count_parameters
from zskt_dist.networks.weights import save_weights
from zskt_dist.runs.locations import is_uri

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Progress:
    """How far a transfer is; `on_progress` gets this.

    Attributes:
        iteration: Number of iterations completed so far.
        iterations: Number of iterations of the whole run.
        metrics: Metrics by name: losses in nats, gradient norms before clipping, learning rates, confidences as
            fractions, `iterations_per_second`; after an evaluation also the label-free scores.
        seconds: Seconds since the start, with those of the runs that this one continues.
    """

    iteration: int
    iterations: int
    metrics: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, repr=False)
class TransferResult:
    """The result of `transfer`.

    Attributes:
        student: The caller's student, now trained, in eval mode, on the device of the training.
        history: One row of metrics per report, with `iteration` (completed so far) and `time` (ms since 1970).
        scores: Label-free scores of the student, estimates and not accuracies. Fractions: `held_out_agreement` with the
            teacher on fresh pseudo-images, `noise_agreement` on noise, and their mean `label_free_score`; in nats:
            `held_out_kl`, KL(teacher || student).
        estimates: The full estimates, as in `estimates.json` of the commands: agreement with intervals, KL quantiles,
            confidence histograms and class coverage for each source of images; None where nothing is estimated.
        settings: All settings that decided the result, by dotted key.
        seconds: Seconds of training and scoring, with those of the runs that this one continued.
        iterations: Number of completed iterations.
        stopped_early: True if the run was ended before its last iteration.
        input_shape: (C, H, W) of the pseudo-images.
        num_classes: Number of classes of both networks.
    """

    student: nn.Module
    history: list[dict[str, float]]
    scores: dict[str, float]
    estimates: dict[str, Any] | None
    settings: dict[str, Any]
    seconds: float
    iterations: int
    stopped_early: bool
    input_shape: ImageShape
    num_classes: int

    def to_pandas(self) -> "pd.DataFrame":
        """The history with one row per report, `iteration` as index; needs pandas."""
        require("to_pandas", "pandas")
        import pandas as pd

        # A run that was ended before its first report still has these columns.
        columns = None if self.history else ["iteration", "time"]
        return pd.DataFrame(self.history, columns=columns).set_index("iteration")

    def save(self, path: str | Path, **about: object) -> Path:
        """Writes the student's weights as safetensors, with metadata that describes them; returns the path.

        Args:
            path: A file `….safetensors`, or a folder that gets a `student.safetensors`.
            about: Further metadata, JSON values. Commands take the normalisation from `mean` and `std`, and refuse the
                file if `arch` differs from their configuration. Without these they rely on their configuration.

        Raises:
            ConfigError: `path` is neither of these, for example `student.pt` or a URI.
        """
        if is_uri(str(path)):
            raise ConfigError("path", str(path), "expected a file or folder of this machine")
        path = Path(path)
        if path.suffix not in ("", ".safetensors") and not path.is_dir():
            raise ConfigError("path", str(path), "expected a file ….safetensors, or a folder")
        if path.suffix != ".safetensors":
            path = path / "student.safetensors"
        known = {
            "class": type(self.student).__name__,
            "image_shape": list(self.input_shape),
            "num_classes": self.num_classes,
            "iterations": self.iterations,
            "scores": self.scores,
            "settings": self.settings,
        }
        save_weights(path, self.student, known | about)
        return path

    def __repr__(self) -> str:
        return "TransferResult(" + ", ".join(f"{name}: {value}" for name, value in self._lines().items()) + ")"

    def _repr_html_(self) -> str:
        rows = (
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
            for name, value in self._lines().items()
        )
        return f"<table>{''.join(rows)}</table>"

    def _lines(self) -> dict[str, str]:
        ended = " (stopped early)" if self.stopped_early else ""
        return {
            "student": f"{type(self.student).__name__}, {count_parameters(self.student):,} parameters",
            "iterations": f"{self.iterations:,}{ended} in {self.seconds:.1f} s",
            **{name.replace("_", " "): f"{value:.4f}" for name, value in self.scores.items()},
        }


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        images: Number of images.
        accuracy: Fraction of the labels that were predicted; None without labels.
        agreement: Fraction of the images for which the teacher predicts the same class; None without a teacher.
        teacher_accuracy: The teacher's accuracy; None without a teacher or labels.
        kl: Mean KL(teacher || network) in nats; None without a teacher.
        confidence: Mean probability of the predicted class.
        calibration_error: Expected calibration error over 15 bins, a fraction; None without labels.
        confusion: How often class i (row) was predicted as j (column); None without labels.
    """

    images: int
    accuracy: float | None
    agreement: float | None
    teacher_accuracy: float | None
    kl: float | None
    confidence: float
    calibration_error: float | None
    confusion: list[list[int]] | None


@dataclass(frozen=True)
class TransitionError:
    """The result of `mean_transition_error`.

    Attributes:
        value: The MTE: |p_A - p_B| averaged over images, target classes and steps (Eq. 2); 0 for equal boundaries.
        images: Number of images on which both networks agree; only these are measured.
        p_a: Mean belief of A in the target class, one value per step.
        p_b: Mean belief of B in the target class, one value per step.
    """

    value: float
    images: int
    p_a: list[float]
    p_b: list[float]

    def __float__(self) -> float:
        return self.value
