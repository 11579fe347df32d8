"""Where a folder of the user's has its images: which files or class folders are the train and test splits."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from zskt_dist.data.class_folders import ClassFolders, has_images, is_image, subfolders
from zskt_dist.data.decoding import Encoded, ImagesError
from zskt_dist.data.images import SplitName
from zskt_dist.data.parquet import ParquetShards

NAMES: dict[SplitName, tuple[str, ...]] = {
    "test": ("test", "validation", "valid", "val", "dev"),
    "train": ("train", "training"),
}
"""What a split is called; the first that is there is taken."""
_SUBFOLDERS = ("data", "default")
"""Where a clone of a data set on the Hub has its shards, and where the Hub's own conversion has them."""
_SHOWN = 6


class Rows(Protocol):
    """Encoded images of a split and their labels, in one order.

    Attributes:
        name: What the split is called.
        place: Where it lies, in words.
        class_names: Names of classes 0, 1, … that it states; None: it states none.
    """

    name: str
    place: str
    class_names: list[str] | None

    def images(self) -> Iterator[Encoded]: ...

    def labels(self) -> list[object]:
        """The labels as they are found; None where one is missing."""

    def values(self) -> set[object]:
        """All labels that there are, each once."""

    def where(self, row: int) -> str:
        """Which image that is, in words."""

    def size(self) -> int | None:
        """Bytes of the files that hold the images; None where they lie elsewhere, each by itself."""


Splits = dict[SplitName, Rows]


def find_splits(root: Path) -> Splits:
    """The test split of a folder and, where there is one, the train split beside it.

    Shards go before class folders, and the folder itself before `data`, `default` and any other folder in it. Without
    a test split, validation images stand for it; else the folder's own class folders do.

    Raises:
        ImagesError: there is no test split, several folders have one, or its files cannot be read.
    """
    for base in (root, *(root / name for name in _SUBFOLDERS)):
        if found := _splits(base, root):
            return found
    if own := _own_class_folders(root):
        return {"test": own}
    others = [folder for folder in subfolders(root) if any(_shards(folder, name) for name in NAMES["test"])]
    if len(others) == 1:
        return _splits(others[0], root)
    if others:
        raise ImagesError(f"has several data sets, {_listed(others)}; give the folder of one of them")
    if any(is_image(file) for file in root.iterdir()):
        raise ImagesError(
            "has images and no class folders; their labels are not known: sort them into one folder for each class, or "
            "give the folder above it, if this is one of these"
        )
    raise ImagesError(
        "has no test images: no test-*.parquet, test.parquet or test/CLASS/IMAGE.png, here or in data/, and no "
        f"validation images (docs/images.md); there is {_listed(root.iterdir()) or 'nothing'}"
    )


def _splits(base: Path, root: Path) -> Splits:
    """The splits that lie in a folder; nothing where the test split does not."""
    if (test := _split(base, "test", root)) is None:
        return {}
    train = _split(base, "train", root)
    return {"test": test, "train": train} if train else {"test": test}


def _split(base: Path, split: SplitName, root: Path) -> Rows | None:
    for name in NAMES[split]:
        if files := _shards(base, name):
            return ParquetShards(files, name, root)
        if has_images(base / name):
            return ClassFolders(base / name, name, root)
    return None


def _shards(base: Path, name: str) -> list[Path]:
    patterns = (f"{name}-*.parquet", f"{name}.parquet", f"{name}/*.parquet")
    return next((found for pattern in patterns if (found := sorted(base.glob(pattern)))), [])


def _own_class_folders(root: Path) -> ClassFolders | None:
    """The folder itself as the test split; None where it has no class folders, or has a train split."""
    classes = [folder.name for folder in subfolders(root) if has_images(folder)]
    if not classes or set(classes) & set(NAMES["train"]):
        return None
    if len(classes) == 1:
        raise ImagesError(f"has one class folder, {classes[0]}; give the folder that holds the class folders, or test/")
    return ClassFolders(root, "test", root)


def _listed(paths: Iterable[Path]) -> str:
    names = sorted(path.name for path in paths)
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
