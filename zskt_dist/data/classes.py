"""Names of the classes of a data set."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from zskt_dist.config.inputs import Data
from zskt_dist.errors import UserError

if TYPE_CHECKING:
    from zskt_dist.data.user_images import UserImages

_DIGITS = "0 1 2 3 4 5 6 7 8 9"
_NAMES = {
    "digits": _DIGITS,
    "mnist": _DIGITS,
    "svhn": _DIGITS,
    "cifar10": "airplane automobile bird cat deer dog frog horse ship truck",
    "fashion_mnist": "T-shirt/top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle-boot",
}


class UsualOrder(NamedTuple):
    names: list[str]
    """Class names in the order of the labels."""
    of: str
    """The data set that has this order."""


def class_names(data: Data, num_classes: int) -> list[str] | None:
    """Class names in the order of the labels; None where there are none, or their number is wrong."""
    if data.name == "parquet":
        own = _user_images(data, num_classes)
        names = own and own.class_names
    else:
        names = list(data.class_names or _NAMES.get(data.name, "").split())
    return names if names and len(names) == num_classes else None


def names_to_order(data: Data, num_classes: int) -> list[str] | None:
    """The class names where the labels are names, so that `data.class_names` puts them in order; else None."""
    own = _user_images(data, num_classes) if data.name == "parquet" else None
    return class_names(data, num_classes) if own and own.labels_are_names else None


def _user_images(data: Data, num_classes: int) -> "UserImages | None":
    from zskt_dist.data.user_images import UserImages  # late: it needs pyarrow

    try:
        return UserImages(data.root, num_classes, data.class_names)
    except UserError:  # the folder of the test images may be gone
        return None


def usual_order(names: Iterable[str]) -> UsualOrder | None:
    """The names, as they are written, in the order of a data set that has just these classes; None: there is none."""
    written = {_letters(name): name for name in names}
    for of, known in _NAMES.items():
        order = [_letters(name) for name in known.split()]
        if set(order) == set(written):
            return UsualOrder([written[name] for name in order], of)
    return None


def _letters(name: str) -> str:
    """Only letters and digits: `T - shirt / top` is `T-shirt/top`."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())
