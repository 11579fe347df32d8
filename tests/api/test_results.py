"""What `transfer` returns, for people and for files that the commands read."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.transfers import SHAPE, assert_equal, state_of, tiny_pair, tiny_transfer
from tests.support.user_networks import Plain
from zskt_dist.config import load_config
from zskt_dist.errors import ConfigError
from zskt_dist.models import ImageShape
from zskt_dist.networks.building import read_network
from zskt_dist.networks.weights import read_about, read_weights


def test_result_for_people_and_for_files(tmp_path: Path) -> None:
    teacher, student = tiny_pair()
    result = tiny_transfer(teacher, student)
    assert repr(result).startswith("TransferResult(student: TinyClassifier, 69 parameters, iterations: 6 in ")
    assert result._repr_html_().startswith("<table><tr><th>student</th><td>TinyClassifier, 69 parameters</td></tr>")
    frame = result.to_pandas()
    assert frame.index.tolist() == [2, 4, 6]
    assert frame["kl"].tolist() == [row["kl"] for row in result.history]
    path = result.save(tmp_path / "out", mean=[0.5])
    assert path == tmp_path / "out" / "student.safetensors"
    assert result.save(tmp_path / "mine.safetensors").name == "mine.safetensors"
    assert_equal(read_weights(path, ""), state_of(student))
    about = read_about(path)
    assert (about["image_shape"], about["num_classes"], about["mean"]) == ([1, 4, 4], 3, [0.5])
    assert about["scores"] == result.scores
    assert about["class"] == "TinyClassifier"


def test_a_run_ended_before_its_first_report_has_an_empty_frame() -> None:
    """Stopped by Ctrl-C in its first iteration, before any row."""
    frame = replace(tiny_transfer(*tiny_pair(), iterations=2), history=[]).to_pandas()
    assert (len(frame), frame.index.name, list(frame.columns)) == (0, "iteration", ["time"])


def test_files_of_other_formats_are_refused(tmp_path: Path) -> None:
    """They would be folders of that name; a folder that is there already may be called anything."""
    result = tiny_transfer(*tiny_pair(), iterations=2)
    with pytest.raises(ConfigError, match=r"student.pt': expected a file ….safetensors, or a folder"):
        result.save(tmp_path / "student.pt")
    assert not list(tmp_path.iterdir())
    (tmp_path / "v1.2").mkdir()
    assert result.save(tmp_path / "v1.2") == tmp_path / "v1.2" / "student.safetensors"


def test_commands_read_the_file_under_the_name_they_know_the_network_by(tmp_path: Path) -> None:
    arch = "tests.support.user_networks:Plain"
    config, shape = load_config(None, [f"student.arch={arch}"]), ImageShape(*SHAPE)
    torch.manual_seed(1)
    student = Plain(SHAPE)
    result = tiny_transfer(tiny_pair()[0], student, beta=0)
    for path in (result.save(tmp_path / "class"), result.save(tmp_path / "arch", arch=arch)):
        network = read_network(config, "student", shape, 3, path, "finetune.student")
        assert_equal(state_of(network), state_of(student))
    path = result.save(tmp_path / "other", arch="lenet")
    with pytest.raises(ConfigError, match="was saved with arch 'lenet'"):
        read_network(config, "student", shape, 3, path, "finetune.student")


@pytest.mark.parametrize("uri", ["s3://bucket/out", "file:///out/student.safetensors"])
def test_a_uri_makes_no_folder(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = tiny_transfer(*tiny_pair(), iterations=1)
    with pytest.raises(ConfigError, match=rf"^path='{uri}': expected a file or folder of this machine"):
        result.save(uri)
    with pytest.raises(ConfigError, match=rf"^checkpoint_dir='{uri}': expected a folder of this machine"):
        tiny_transfer(*tiny_pair(), iterations=1, checkpoint_dir=uri)
    assert not list(tmp_path.iterdir())
