"""A split as a folder of class folders: `test/cat/1.png`; the name of a folder is the label of the images in it."""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from zskt_dist.data.decoding import SUFFIXES, ImagesError


class ClassFolders:
    """The images of a folder's class folders, by class and name, at any depth; implements `layouts.Rows`.

    Args:
        folder: One that has class folders.
        name: Name of the split.
        root: Folder of the data set.

    Raises:
        ImagesError: images lie beside the class folders.
    """

    class_names: list[str] | None = None

    def __init__(self, folder: Path, name: str, root: Path) -> None:
        self.name, self._root = name, root
        self._folders = subfolders(folder)
        stray = next((each for each in sorted(folder.iterdir()) if each.is_file() and is_image(each)), None)
        if stray:
            problem = f"{stray.relative_to(root)} lies in no class folder, so its label is not known"
            raise ImagesError(f"{problem}; to measure on other images, give a folder of theirs, or rename this one")
        within = f" in {folder.relative_to(root)}" if folder != root else ""
        self.place = f"{len(self._folders)} class folder{'s' * (len(self._folders) != 1)}{within}"

    @cached_property
    def _classes(self) -> dict[str, list[Path]]:
        """The images of each class; only looked for where they are wanted, as there may be millions."""
        return {each.name: sorted(_images(each)) for each in self._folders}

    @cached_property
    def _files(self) -> list[Path]:
        return [file for files in self._classes.values() for file in files]

    def images(self) -> Iterator[Path]:
        return iter(self._files)

    def labels(self) -> list[object]:
        return [name for name, files in self._classes.items() for _ in files]

    def values(self) -> set[object]:
        """Names of all classes; one without images counts."""
        return {each.name for each in self._folders}

    def size(self) -> None:
        """Each image is a file of its own."""

    def where(self, row: int) -> str:
        return str(self._files[row].relative_to(self._root))


def has_images(folder: Path) -> bool:
    """True if the folder or one in it has images."""
    return any(True for _ in _images(folder))


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, in the order of their names, without hidden ones."""
    return sorted(each for each in folder.iterdir() if each.is_dir() and not _is_hidden(each))


def _images(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Images at any depth, in no order, none of no folder; links are followed, by which people pick and rename classes.

    Raises:
        ImagesError: a link leads to a folder that it lies in, so there would be no end.
    """
    here = os.path.realpath(folder)
    if here in above:
        raise ImagesError(f"{folder} is a link to a folder that it lies in; remove it")
    for entry in os.scandir(folder) if folder.is_dir() else ():
        path = Path(entry.path)
        if entry.is_dir() and not _is_hidden(path):
            yield from _images(path, above | {here})
        elif entry.is_file() and is_image(path):
            yield path


def is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not _is_hidden(file)


def _is_hidden(path: Path) -> bool:
    """True for what systems and editors leave: `.DS_Store`, `.ipynb_checkpoints`, `__MACOSX`."""
    return path.name.startswith((".", "__"))
