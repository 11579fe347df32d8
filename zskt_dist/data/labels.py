"""Labels as they are found, numbered 0, 1, …: one numbering for all splits of a data set, and said in words.

A label is a number (an integer, a boolean, a whole float, a numeral in text) or the name of a class. Missing are
nothing, not-a-number, empty text and, as Hugging Face marks images without a label, negative numbers.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from zskt_dist.data.classes import usual_order
from zskt_dist.data.decoding import ImagesError

_MOST_CLASSES = 10**6
_NUMERAL = re.compile(r"([+-]?[0-9]{1,18})(\.0*)?")
_DIGITS = re.compile(r"[0-9]+")
_LONG = 40
_SHOWN = 10
"""Labels that are all said with their numbers; of more, the first ones and the last."""

Numbers = dict[object, int]
"""Class of every label that occurs and is not missing."""


class Labels(NamedTuple):
    """The numbering of a data set's labels."""

    numbers: Numbers
    num_classes: int
    names: list[str] | None
    """Names of classes 0, 1, …; None where nothing names them."""
    counted: bool = False
    """True if `num_classes` is only one more than the largest class that occurs."""
    said: str | None = None
    """The numbering in words; None for integers that are taken as they are."""


def number_labels(
    train: Iterable[object],
    test: Iterable[object],
    named: list[str] | None,
    num_classes: int | None,
    by: str = "as the files name them",
) -> Labels:
    """Numbers the labels that occur in two splits.

    Args:
        train: Labels of the train split, each at least once; empty where there is none.
        test: Likewise of the test split.
        named: Names of classes 0, 1, … that the files state, or the user.
        num_classes: How many classes the networks tell apart; None: that is not known.
        by: Who names them, in words.

    Raises:
        ImagesError: there are no labels, it is not clear which class one of them means, or the splits do not agree.
    """
    of_train, of_test = ({label for label in split if not is_missing(label)} for split in (train, test))
    found = of_train | of_test
    if not found:
        raise ImagesError("has no labels; if others have, such as those for validation, give a folder of theirs")
    texts = {label for label in found if isinstance(label, str)}
    if named and texts == found and texts <= set(named):
        return _in_order(named, by)
    numbers = {label: number for label in found if (number := _whole(label)) is not None}
    if len(numbers) == len(found):
        _check_ranges(*({numbers[label] for label in split} for split in (of_train, of_test)))
        return _of_numbers(numbers, named, num_classes)
    if texts != found:
        odd = next(label for label in found if label not in numbers)
        raise ImagesError(
            f"has the label {_word(odd)} beside numbers; give every image a whole number, or every one a name"
        )
    known = set(named) if named else texts & of_train
    if known and (unknown := texts - known):
        raise ImagesError(f"has the label {_word(min(unknown))}, which is none of {_words(sorted(known))}")
    return _of_names(texts, num_classes)


def _of_numbers(numbers: Numbers, named: list[str] | None, num_classes: int | None) -> Labels:
    """From 0; or from 1 where 0 does not occur and N, the largest, is the number of classes, or all of 1 to N occur."""
    texts = [label for label in numbers if isinstance(label, str)]
    _check_distinct(texts, numbers.__getitem__)
    truths = any(isinstance(label, bool) for label in numbers)
    least, most = min(numbers.values()), max(numbers.values())
    if most >= _MOST_CLASSES:
        raise ImagesError(f"has the label {most:.4g}, and {_MOST_CLASSES:,} classes are the most; number them from 0")
    classes = len(named) if named else num_classes
    how = None
    if least == 1 and not truths and (most == classes if classes else len(set(numbers.values())) == most > 1):
        numbers = {label: number - 1 for label, number in numbers.items()}
        how = "from 1, and none is 0" + ("" if classes else f"; data.num_classes={most + 1} takes them as they are")
    elif any(type(label) is not int for label in numbers):
        how = "by number" + (", not as text" if sorted(texts) != sorted(texts, key=numbers.__getitem__) else "")
    elif least and not named:
        how = "as they are, and none is 0"
    said = _said(sorted(numbers.items(), key=lambda pair: pair[1]), how) if how else None
    if named:
        return Labels(numbers, len(named), named, said=said)
    return Labels(numbers, 2 if truths else 1 + max(numbers.values()), None, counted=not truths, said=said)


def _of_names(names: set[str], num_classes: int | None) -> Labels:
    """In the usual order of a known data set, else in alphabetical order, where that is the only natural one."""
    _check_distinct(names, lambda name: name.strip().casefold())
    if usual := usual_order(names):
        return _in_order(usual.names, f"as in {usual.of}")
    order = sorted(names)
    if num_classes and num_classes != len(order):
        remedy = (
            f"give the names of all {num_classes} in their order, data.class_names=[…], or make an empty folder for "
        )
        remedy += "each class that is missing"
        if num_classes < len(order):
            remedy = f"name the classes by their numbers, 0 to {num_classes - 1}, and take out the images of others"
        raise ImagesError(
            f"has {len(order)} class names ({_words(order)}), and the networks tell {num_classes} classes apart: which "
            f"name means which is not known; {remedy}"
        )
    by_number = sorted(order, key=_numbers_in)
    if len({_DIGITS.sub("#", name) for name in order}) == 1 and by_number != order:
        odd = next(pair for pair in zip(order, by_number, strict=True) if pair[0] != pair[1])
        raise ImagesError(
            f"has class names in no clear order: {odd[0]} comes before {odd[1]} as text, and after it by number; name "
            f"the classes by their numbers alone, 0 to {len(order) - 1}"
        )
    return _in_order(order, "in alphabetical order, as `datasets` and torchvision's ImageFolder have them")


def _in_order(names: list[str], how: str) -> Labels:
    numbers: Numbers = {name: number for number, name in enumerate(names)}
    return Labels(numbers, len(names), names, said=_said(list(numbers.items()), how))


def is_missing(label: object) -> bool:
    """True for what stands where an image has no label."""
    number = _whole(label)
    return label in (None, "") or label != label or (number is not None and number < 0)


def _whole(label: object) -> int | None:
    """The whole number that a label is or spells; None for anything else."""
    if isinstance(label, str):
        spelled = _NUMERAL.fullmatch(label.strip())
        return int(spelled[1]) if spelled else None
    if isinstance(label, float):
        return int(label) if label.is_integer() else None
    return int(label) if isinstance(label, int) else None


def _numbers_in(text: str) -> list[int]:
    return [int(digits) for digits in _DIGITS.findall(text)]


def _check_distinct(texts: Iterable[str], meaning: Callable[[str], object]) -> None:
    """Raises ImagesError where two texts mean the same."""
    seen: dict[object, str] = {}
    for text in sorted(texts):
        other = seen.setdefault(meaning(text), text)
        if other != text:
            raise ImagesError(
                f"has the labels {_word(other)!r} and {_word(text)!r}, which may be the same class; write them alike"
            )


def _check_ranges(train: set[int], test: set[int]) -> None:
    """Raises ImagesError where one split seems to count from 0 and the other from 1."""
    if not train or not test:
        return
    first = min(train), min(test)
    if sorted(first) == [0, 1] and max(train) - max(test) == first[0] - first[1]:
        of_train, of_test = (f"{min(split)} to {max(split)}" for split in (train, test))
        raise ImagesError(f"has train labels {of_train} and test labels {of_test}; count both from 0")


def _said(pairs: Sequence[tuple[object, int]], how: str) -> str:
    return f"{_short([f'{_word(label)} is {number}' for label, number in pairs])} ({how})"


def _word(label: object) -> str:
    """A label on one line; it may be a caption."""
    word = " ".join(str(label).split())
    return word if len(word) <= _LONG else f"{word[:_LONG]}…"


def _words(labels: Sequence[str]) -> str:
    return _short([_word(label) for label in labels])


def _short(items: Sequence[str]) -> str:
    return ", ".join(items if len(items) <= _SHOWN else [*items[:3], "…", items[-1]])
