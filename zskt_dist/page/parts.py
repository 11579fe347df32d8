"""What a page is made of. A section without parts is left out, so nothing on a page is empty."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Text:
    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Code:
    """Lines as they are; folded away under `summary` where there is one."""

    kind: ClassVar[str] = "code"
    text: str
    summary: str = ""


@dataclass(frozen=True)
class Table:
    """Texts in rows; the first column names them, the others are numbers."""

    kind: ClassVar[str] = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Link:
    address: str
    """Relative to the page."""
    text: str


@dataclass(frozen=True)
class Links:
    kind: ClassVar[str] = "links"
    links: Sequence[Link]


@dataclass(frozen=True)
class Picture:
    uri: str
    """The whole picture as a `data:` URI."""
    text: str
    """What it shows, for those who do not see it."""
    caption: str = ""
    pixels: bool = False
    """True if its pixels are to be seen, where it is enlarged."""


@dataclass(frozen=True)
class Pictures:
    """Pictures beside each other, as many as there is room for."""

    kind: ClassVar[str] = "pictures"
    pictures: Sequence[Picture]
    small: bool = False


@dataclass(frozen=True)
class Interval:
    """A share of 1 with its interval on a scale from 0 to 1."""

    kind: ClassVar[str] = "interval"
    value: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Matrix:
    """Counts by label (row) and predicted class (column), at most some twenty of each."""

    kind: ClassVar[str] = "matrix"
    title: str
    names: Sequence[str]
    counts: Sequence[Sequence[int]]

    def share(self, row: int, column: int) -> float:
        """Of the row's images those in this column; 0 for a row without images."""
        return self.counts[row][column] / max(1, sum(self.counts[row]))


@dataclass(frozen=True)
class Matrices:
    """Matrices beside each other where there is room."""

    kind: ClassVar[str] = "matrices"
    matrices: Sequence[Matrix]


Part = Text | Code | Table | Links | Pictures | Interval | Matrices


@dataclass(frozen=True)
class Section:
    title: str
    parts: Sequence[Part]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[Part]:
    """A table without the columns that no row fills; nothing where there are no rows."""
    lines = list(rows)
    used = [column for column in range(len(header)) if column == 0 or any(line[column] for line in lines)]
    if not lines or len(used) < 2:
        return []
    return [Table([header[each] for each in used], [[line[each] for each in used] for line in lines])]
