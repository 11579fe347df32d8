"""Which classes teacher and student take for which: whole matrices of few classes, the commonest errors of many."""

from collections.abc import Iterator, Sequence

import numpy as np

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
    if not networks:  # there were no test images
        return []
    names = [_short(name) for name in confusion.names or map(str, range(confusion.classes))]
    found: list[Part] = []
    most = _ERRORS
    if confusion.classes <= _WHOLE:
        whole = [Matrix(name, names, confusion.matrix(name).tolist()) for name in networks]
        most = _FEW_ERRORS
        found = [Matrices(whole), Text("Rows are labels, columns predictions; numbers are test images.")]
    return found + table(("commonest errors", *networks), _errors(confusion, networks, names, most))


def _errors(
    confusion: Confusion, networks: Sequence[str], names: Sequence[str], most: int
) -> Iterator[tuple[str, ...]]:
    """The commonest of the student, or of the network that there is; by number, then by class."""
    cells = confusion.cells[networks[-1]]
    wrong = cells[cells[:, 0] != cells[:, 1]]
    label, predicted, images = wrong.T
    for cell in wrong[np.lexsort((predicted, label, -images))][:most, :2]:
        counts = (_images(confusion.cells[network], cell) for network in networks)
        yield f"{names[cell[0]]} taken for {names[cell[1]]}", *counts


def _images(cells: np.ndarray, cell: np.ndarray) -> str:
    """Images in a cell, [label, predicted]."""
    return str(int(cells[(cells[:, :2] == cell).all(axis=1), 2].sum()))


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
