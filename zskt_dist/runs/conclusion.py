"""What a finished run comes to, in sentences: how much smaller, how alike, what that means, and what to do next.

The same sentences end the command, open the model card and describe the run in MLflow.
"""

from collections.abc import Mapping
from shlex import quote
from typing import Any, NamedTuple

Record = Mapping[str, Any]


class Experience(NamedTuple):
    """How students that were measured both ways agreed with their teachers on real images.

    Attributes:
        at_least: Agreement on the yardstick from which this counts.
        students: Number of students up to the next one.
        low: Smallest agreement on real test images among them.
        high: Largest.
    """

    at_least: float
    students: int
    low: float
    high: float


EXPERIENCE = (
    Experience(0.9, 28, 0.88, 0.97),
    Experience(0.85, 51, 0.85, 0.97),
    Experience(0.8, 37, 0.77, 0.98),
    Experience(0.7, 23, 0.68, 0.97),
    Experience(0.5, 20, 0.52, 0.91),
    Experience(0.0, 18, 0.26, 0.65),
)
"""From docs/results/yardstick/yardstick.json: MNIST, Fashion-MNIST and 8x8 digits, six teachers, both methods."""
_POOR = 0.7
"""Below that, the advice is to train longer before anything else."""


def conclusion(result: Record, latencies: Mapping[str, Record] | None = None) -> list[str]:
    """Sentences about the network that was trained; empty for a teacher that was not measured.

    Args:
        result: The content of `result.json`.
        latencies: Milliseconds of a forward pass by number of images, by role, as `export.json` has them.
    """
    student, teacher = result.get("student"), result.get("teacher")
    if not student:
        right = _right(result, teacher or {}, "accuracy", f"The teacher ({(teacher or {}).get('arch')})")
        return [right] if right else []
    found = [_size(student, teacher, latencies or {})] if teacher else []
    if seed := result.get("seed_images"):
        found.append(f"It is not data-free: it also learnt from {seed['images']:,} images of inversion.seed_images.")
    if yardstick := result.get("yardstick"):
        found.append(_alike(yardstick))
        if result.get("command") == "train":  # students of real images agree on those far more than on made ones
            found.append(_meaning(yardstick))
    who = "It" if teacher else f"The student ({student['arch']}), which learnt without a teacher,"
    right = _right(result, student, "accuracy_last", who, teacher)
    found.append(right or "How often it is right was not measured: there were no test images.")
    return found


def next_steps(result: Record, run: str) -> list[tuple[str, str]]:
    """What to do now: a purpose and a command for each of two steps.

    Args:
        run: The run directory, as the user may type it.
    """
    if not result.get("student"):
        return []
    export = ("write the student as files to deploy", f"zskt export {quote(run)}")
    if (result.get("yardstick") or {}).get("agreement", 1.0) < _POOR:
        changes = f"iterations={2 * result['iterations']} name={quote(result['name'] + '-longer')}"
        return [("train longer: so far the two are not alike", f"your command with {changes}"), export]
    if result["student"].get("accuracy_last") is None:
        images = "data.name=parquet data.root=FOLDER"
        return [export, ("measure it on 100 labelled images", f"zskt evaluate {quote(run)} {images}")]
    return [export, ("measure calibration and transition curves", f"zskt evaluate {quote(run)}")]


def _size(student: Record, teacher: Record, latencies: Mapping[str, Record]) -> str:
    parts = [f"{_times(teacher['params'], student['params'])} parameters"]
    if "multiply_adds" in student and "multiply_adds" in teacher:
        parts.append(f"{_times(teacher['multiply_adds'], student['multiply_adds'])} multiply-adds per image")
    text = f"The student ({student['arch']}) has {' and '.join(parts)}, compared with its teacher ({teacher['arch']})."
    for images, ms in latencies.get("student", {}).items():
        before = latencies.get("teacher", {}).get(images)
        if before is not None:
            many = "1 image takes" if images == "1" else f"{images} images take"
            text += f" On this CPU {many} {ms:.3g} ms instead of {before:.3g}."
    return text


def _times(teacher: int, student: int) -> str:
    """`12 times fewer`, or `1.3 times as many`."""
    if teacher == student or not teacher or not student:
        return "as many" if teacher == student else f"{student:,} instead of {teacher:,}"
    ratio = teacher / student
    return f"{_two_digits(ratio)} times fewer" if ratio > 1 else f"{_two_digits(1 / ratio)} times as many"


def _two_digits(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 9.95 else f"{ratio:.1f}"


def _alike(yardstick: Record) -> str:
    share, low, high = (100 * yardstick[name] for name in ("agreement", "low", "high"))
    return (
        f"It predicts the same class as the teacher on {share:.1f} % (95 % interval {low:.1f} to {high:.1f}) of "
        f"{yardstick['images']:,.0f} images made from the teacher alone, the yardstick."
    )


def _meaning(yardstick: Record) -> str:
    above = 1.0
    for each in EXPERIENCE:
        if yardstick["agreement"] >= each.at_least:
            between = f"{100 * each.at_least:.0f} to {100 * above:.0f} %"
            return (
                f"The {each.students} students that we measured at {between} there agreed with their teachers on "
                f"{100 * each.low:.0f} to {100 * each.high:.0f} % of real images (docs/estimates.md)."
            )
        above = each.at_least
    raise AssertionError("the last row begins at 0")


def _right(result: Record, network: Record, key: str, who: str, teacher: Record | None = None) -> str | None:
    if network.get(key) is None:
        return None
    several = len(result.get("seeds", ())) > 1
    right, beside, agree = _percent(network, key, several), "", ""
    if teacher and teacher.get("accuracy") is not None:
        beside = f", the teacher on {_percent(teacher, 'accuracy', several)}"
    if network.get("agreement") is not None:
        agree = f"; the two agree on {_percent(network, 'agreement', several)}"
    return f"{who} is right on {right} of the test images of {result['dataset']}{beside}{agree}."


def _percent(network: Record, key: str, several: bool) -> str:
    """A share, with its standard deviation where there are several seeds."""
    spread = network.get(f"{key}_std") if several else None
    return f"{100 * network[key]:.2f}" + (f" ± {100 * spread:.2f}" if spread is not None else "") + " %"
