"""Confusion matrices, in a file and from the evaluation of a run, against counts by hand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from tests.support.images import random_dataset
from zskt_dist.distributed.world import World
from zskt_dist.errors import DamagedFileError
from zskt_dist.evaluation.confusion import FILE, confusion_of, read_confusion, write_confusion
from zskt_dist.evaluation.scorer import Evaluator

# Of four images the labels are 0, 0, 1, 2: one network answers 0, 1, 1, 0, the other is always right.
STUDENT = [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
TEACHER = [[2, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_the_file_keeps_what_is_not_0(tmp_path: Path) -> None:
    path = tmp_path / FILE
    assert read_confusion(path) is None
    write_confusion(path, confusion_of({"teacher": TEACHER, "student": STUDENT}, ["a", "b", "<c>"]))
    assert pq.read_table(path).to_pydict() == {
        "network": ["teacher"] * 3 + ["student"] * 4,
        "label": [0, 1, 2, 0, 0, 1, 2],
        "predicted": [0, 1, 2, 0, 1, 1, 0],
        "images": [2, 1, 1, 1, 1, 1, 1],
    }
    found = read_confusion(path)
    assert found is not None
    assert (found.classes, found.names) == (3, ["a", "b", "<c>"])
    assert found.matrix("teacher").tolist() == TEACHER
    assert found.matrix("student").tolist() == STUDENT


def test_without_test_images_there_are_no_rows(tmp_path: Path) -> None:
    write_confusion(tmp_path / FILE, confusion_of({"student": np.zeros((3, 3), int)}, None))
    found = read_confusion(tmp_path / FILE)
    assert found is not None
    assert (found.classes, found.names, found.cells) == (3, None, {})


@pytest.mark.parametrize("what", ["no Parquet", "no classes", "out of range", "names"])
def test_a_damaged_file_is_one_line(tmp_path: Path, what: str) -> None:
    path = tmp_path / FILE
    if what == "no Parquet":
        path.write_bytes(b"PAR1")
    else:
        columns = {"network": ["student"], "label": [7], "predicted": [0], "images": [1]}
        about = {"no classes": b"{}", "out of range": b'{"classes": 3, "names": null}'}
        content = about.get(what, b'{"classes": 8, "names": ["a"]}')
        pq.write_table(pa.table(columns).replace_schema_metadata({"confusion": content}), path)
    with pytest.raises(DamagedFileError, match=f"{FILE} is damaged"):
        read_confusion(path)


class _Answers(nn.Module):
    """Predicts the given classes, image by image."""

    def __init__(self, classes: list[int]) -> None:
        super().__init__()
        self.classes, self.seen = torch.tensor(classes), 0

    def forward(self, images: Tensor) -> Tensor:
        first, self.seen = self.seen, self.seen + len(images)
        return torch.eye(4)[self.classes[first : self.seen]]


def test_the_evaluator_counts_the_network_that_it_asked_last() -> None:
    dataset = random_dataset(4, (1, 8, 8))  # labels 0, 1, 2, 3
    evaluator = Evaluator(dataset, World(torch.device("cpu")), batch_size=3, teacher=_Answers([0, 1, 2, 2]))
    assert evaluator.of_network is None
    for classes, right in (([0, 1, 2, 3], 1.0), ([1, 1, 2, 0], 0.5)):
        assert evaluator(_Answers(classes)).accuracy == right
    last, teacher = evaluator.of_network, evaluator.of_teacher
    assert last is not None
    assert last.confusion is not None
    assert last.confusion.tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]]
    assert teacher is not None
    assert teacher.confusion is not None
    assert teacher.confusion.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]]
