"""What is measured and kept: the sections `transitions`, `evaluation`, `checkpoint` and `tracking`."""

from typing import Annotated, Literal

from pydantic import AfterValidator

from zskt_dist.addresses import hide
from zskt_dist.config.fields import NonNegative, NonNegativeFloat, Positive, PositiveFloat, Purpose, Section


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
    """Class that is not a target: the agreed one (paper) or the true label (authors' code)."""
    rows: Positive = 128
    """Images x target classes computed at a time; fewer need less memory."""


class Evaluation(Section):
    every: NonNegative = 1000
    """Iterations between evaluations on the test images; 0: only at the end."""
    batch_size: Positive = 512
    """Test images per forward pass and worker."""
    noise_images: Annotated[NonNegative, Purpose.MEASUREMENT] = 1000
    """Images of uniform noise in `evaluate` (Appendix 2, Figure 5); 0: none."""
    held_out_images: Annotated[NonNegative, Purpose.MEASUREMENT] = 256
    """Pseudo-images of each snapshot, and noise images, for label-free scores and estimates of a student; 0: none."""
    yardstick: Annotated[bool, Purpose.MEASUREMENT] = True
    """Compare students with their teacher on the teacher's yardstick, a fixed set of images made from it alone."""
    snapshots: Annotated[NonNegative, Purpose.MEASUREMENT] = 5
    """Number of evenly spaced moments at which the generator is kept, for the pseudo-images of `held_out_images`."""


class Checkpoint(Section):
    every: NonNegative = 500
    """Iterations between checkpoints; 0: only when stopped and at the end."""
    keep: Positive = 2
    """Newest checkpoints kept."""


class Tracking(Section):
    uri: Annotated[str, AfterValidator(hide)] | None = None
    """MLflow tracking URI; null: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db; 'none': no MLflow. A relative path lies
    where a relative `runs_dir` does."""
    patience: NonNegativeFloat = 20.0
    """Most seconds that a run waits for a MLflow server in all; what is not sent by then, `zskt replay` sends."""
    log_every: Positive = 50
    """Iterations between metric rows, each of which costs one synchronisation with the device."""
    images: NonNegative = 64
    """Pseudo-images in each grid of Figure 3; 0: no grids."""
