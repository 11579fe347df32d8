"""Which classes teacher and student take for which: whole matrices of few classes, the commonest errors of many."""

from collections.abc import Sequence

from zskt_dist.evaluation.confusion import Confusion
from zskt_dist.page.parts import Matrices, Matrix, Part, Text, table

_WHOLE = 20
"""Most classes of a matrix that fits a screen."""
_ERRORS, _FEW_ERRORS = 12, 6
"""Most that are listed, and most of those beside a whole matrix."""
_LONGEST = 24
"""Most letters of a class's name."""


def confusion_parts(confusion: Confusion) -> list[Part]:
    """Matrices where there are few classes; the student's commonest errors, beside how often its teacher makes them."""
    networks = [name for name in ("teacher", "student") if name in confusion.cells]
    names = [_short(name) for name in confusion.names or map(str, range(confusion.classes))]
    found: list[Part] = []
    most = _ERRORS
    if confusion.classes <= _WHOLE:
        whole = [Matrix(name, names, confusion.matrix(name).tolist()) for name in networks]
        most = _FEW_ERRORS
        found = [Matrices(whole), Text("Rows are labels, columns predictions; numbers are test images.")]
    return found + table(("commonest errors", *networks), _errors(confusion, networks, names)[:most])


def _errors(confusion: Confusion, networks: Sequence[str], names: Sequence[str]) -> list[tuple[str, ...]]:
    """Of the student, or of the network that there is; by number, then by class."""
    errors = {}
    for network in networks:
        cells = confusion.cells[network]
        wrong = cells[cells[:, 0] != cells[:, 1]]
        errors[network] = {(int(label), int(predicted)): int(images) for label, predicted, images in wrong}
    mine = errors[networks[-1]]
    commonest = sorted(mine, key=lambda cell: (-mine[cell], cell))
    return [
        (
            f"{names[label]} taken for {names[predicted]}",
            *(str(errors[each].get((label, predicted), 0)) for each in errors),
        )
        for label, predicted in commonest
    ]


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
