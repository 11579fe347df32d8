"""A split as a folder of class folders: `test/cat/1.png`; the name of a folder is the label of the images in it."""

import os
from collections.abc import Iterator
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
        self._classes = {each.name: sorted(_images(each)) for each in subfolders(folder)}
        stray = next((each for each in sorted(folder.iterdir()) if each.is_file() and _is_image(each)), None)
        if stray:
            raise ImagesError(f"{stray.relative_to(root)} lies in no class folder, so its label is not known")
        self._files = [file for files in self._classes.values() for file in files]
        within = f" in {folder.relative_to(root)}" if folder != root else ""
        self.place = f"{len(self._classes)} class folders{within}"

    def images(self) -> Iterator[Path]:
        return iter(self._files)

    def labels(self) -> list[object]:
        return [name for name, files in self._classes.items() for _ in files]

    def values(self) -> set[object]:
        """Names of all classes; one without images counts."""
        return set(self._classes)

    def where(self, row: int) -> str:
        return str(self._files[row].relative_to(self._root))


def has_images(folder: Path) -> bool:
    """True if the folder or one in it has images."""
    return any(True for _ in _images(folder))


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, in the order of their names, without hidden ones."""
    return sorted(each for each in folder.iterdir() if each.is_dir() and not _is_hidden(each))


def _images(folder: Path) -> Iterator[Path]:
    """Images at any depth, in no order; links are followed, by which people pick and rename classes."""
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not _is_hidden(Path(name))]
        yield from (file for name in names if _is_image(file := Path(place, name)))


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not _is_hidden(file)


def _is_hidden(path: Path) -> bool:
    """True for what systems and editors leave: `.DS_Store`, `.ipynb_checkpoints`, `__MACOSX`."""
    return path.name.startswith((".", "__"))
