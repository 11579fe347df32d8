"""An export's folder read back, also one that somebody else has written."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import googlenet

from tests.export.runs import untrained_network, untrained_run
from zskt_dist.errors import UserError
from zskt_dist.export.exported_network import open_network
from zskt_dist.export.load import load_network, write_weights
from zskt_dist.runs.directory import RunDirectory

LITERAL = "tests.support.user_networks:Literal"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`student.safetensors` of a LeNet and its `config.json`."""
    return write_weights(untrained_network(tmp_path), tmp_path / "export").parent


def _change(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("os:system", {"command": "touch {mark}"}),
        ("evil:make", {}),
        ("timm.evil:make", {}),
        ("subprocess:check_call", {"args": ["touch", "{mark}"]}),
    ],
)
def test_a_malicious_config_runs_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: str, options: dict[str, Any]
) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "evil.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    filled = json.loads(json.dumps(options).replace("{mark}", str(mark)))
    _change(folder, network={"arch": arch, "options": filled})
    for allowed in (None, LITERAL):
        with pytest.raises(
            UserError, match=rf"needs the network '{arch}'; where you trust its code, pass arch='{arch}'"
        ):
            load_network(folder, arch=allowed)
    assert not mark.exists()
    assert "evil" not in sys.modules


def test_code_that_is_named_runs(tmp_path: Path) -> None:
    exported = untrained_network(tmp_path, arch=LITERAL)
    folder = write_weights(exported, tmp_path / "export").parent
    with pytest.raises(UserError, match="pass arch="):
        load_network(folder)
    network, config = load_network(folder, arch=LITERAL)
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(network(images), exported.network(images))
    assert config["network"]["arch"] == LITERAL


@pytest.mark.filterwarnings("ignore:The default weight initialization of")
def test_a_teacher_keeps_the_options_that_go_with_its_weights(tmp_path: Path) -> None:
    """torchvision makes GoogLeNet with other options for weights than without."""
    torch.manual_seed(0)
    theirs = googlenet(num_classes=10, transform_input=True, aux_logits=False, init_weights=False).eval()
    torch.save(theirs.state_dict(), tmp_path / "teacher.pt")
    overrides = ("teacher.arch=torchvision:googlenet", "teacher.options.init_weights=false")
    directory = RunDirectory(untrained_run(tmp_path, *overrides, shape=(3, 32, 32)))
    (directory.path / "command.json").write_text(json.dumps({"teacher": str(tmp_path / "teacher.pt")}))
    result = directory.finished()
    assert result
    network, config = load_network(write_weights(open_network(directory, result, "teacher"), tmp_path / "e").parent)
    assert config["network"]["options"] == {"init_weights": False, "transform_input": True, "aux_logits": False}
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(network(images), theirs(images))


def test_a_network_of_ours_needs_no_name_and_has_one(folder: Path) -> None:
    assert load_network(folder)[0](torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    assert load_network(folder, arch="lenet")[1]["num_classes"] == 10
    with pytest.raises(UserError, match="needs the network 'lenet'"):
        load_network(folder, arch="lenet-2")


@pytest.mark.parametrize("key", ["role", "weights", "network", "image_shape", "num_classes"])
def test_a_missing_key_is_named(folder: Path, key: str) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"config\.json: {key}: Field required$"):
        load_network(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": "../run/student.safetensors"}, "weights: "),
        ({"weights": "/etc/passwd"}, "weights: "),
        ({"weights": ".."}, "weights: "),
        ({"weights": "gone.safetensors"}, "weights=.*there is no such file"),
        ({"role": "generator"}, "role: "),
        ({"image_shape": [1, 8]}, r"image_shape.2: "),
        ({"network": {"arch": "lenet", "checkpoint": "x"}}, "network.checkpoint: "),
        ({"num_classes": 7}, "weights=.*10 classes"),
    ],
)
def test_what_is_wrong_is_one_line(folder: Path, changes: dict[str, Any], said: str) -> None:
    _change(folder, **changes)
    with pytest.raises(UserError, match=said) as caught:
        load_network(folder)
    assert "\n" not in str(caught.value)
