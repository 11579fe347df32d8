"""What came out of a run, in sentences."""

from typing import Any

Result = dict[str, Any]


def headline(result: Result) -> list[str]:
    """Size and work of the student, its agreement on the yardstick, and what was measured with labels.

    Args:
        result: Of a finished run, or the mean of several seeds.
    """
    teacher, student = result["teacher"], result["student"]
    if student is None:
        return [f"The teacher {teacher['arch']} {_right(result, teacher, 'accuracy')}."] if _known(teacher) else []
    found = [_size(teacher, student)] if teacher else []
    if yardstick := result.get("yardstick"):
        share, low, high = (100 * yardstick[name] for name in ("agreement", "low", "high"))
        found.append(
            f"It answers as its teacher does on {share:.1f} % of {yardstick['images']:,.0f} images made from the "
            f"teacher alone (95 % interval {low:.1f} to {high:.1f} %)."
        )
    if student["accuracy_last"] is not None:
        who = "It" if teacher else f"{student['arch']}, which learnt without a teacher,"
        other = f"; its teacher is on {_share(teacher, 'accuracy')}" if teacher and _known(teacher) else ""
        found.append(f"{who} {_right(result, student, 'accuracy_last')}{other}.")
    return found


def _size(teacher: Result, student: Result) -> str:
    fewer = _times(teacher["params"], student["params"])
    sentence = f"The student {student['arch']} has {fewer} parameters than its teacher {teacher['arch']}"
    if teacher.get("multiply_adds") and student.get("multiply_adds"):
        sentence += f" and does {_times(teacher['multiply_adds'], student['multiply_adds'], 'less')} work for an image"
    return sentence + "."


def _times(teacher: float, student: float, fewer: str = "fewer") -> str:
    """`9.1 times fewer`, `2.0 times more`."""
    if student <= teacher:
        return f"{teacher / max(1, student):.1f} times {fewer}"
    return f"{student / max(1, teacher):.1f} times more"


def _right(result: Result, network: Result, key: str) -> str:
    return f"is right on {_share(network, key)} of the test images of {result['dataset']}"


def _share(network: Result, key: str) -> str:
    spread = network.get(f"{key}_std")
    return f"{100 * network[key]:.1f}" + (f" ± {100 * spread:.1f}" if spread is not None else "") + " %"


def _known(teacher: Result) -> bool:
    return teacher["accuracy"] is not None
