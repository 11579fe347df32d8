"""`python -m zskt_dist.layers`, as users call it."""

from pathlib import Path

import pytest

from zskt_dist.commands.layers import main

MINE = "tests.support.user_networks"


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def _rows(output: str) -> list[list[str]]:
    """Cells of the tables' rows."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if line.startswith("│")]


def test_layers_of_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wrn-10-1", "--image-shape", "1,8,12", "--classes", "7"]) == 0
    output = capsys.readouterr().out
    assert _rows(output) == [
        ["*", "group1", "Sequential", "16x8x12"],
        ["*", "group2", "Sequential", "32x4x6"],
        ["*", "group3", "Sequential", "64x2x3"],
    ]
    assert main(["wrn-10-1", "--image-shape", "1,8,12", "--classes", "7", "--all"]) == 0
    rows = _rows(capsys.readouterr().out)
    assert rows[0] == ["", "conv1", "Conv2d", "16x8x12"]
    assert rows[-1] == ["", "fc", "Linear", "7"]


def test_layers_of_both_networks_of_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("teacher: {arch: wrn-10-1}\nstudent: {arch: wrn-10-1}\n")
    assert main(["--config", str(tmp_path / "c.yaml"), "student.arch=lenet"]) == 0
    output = capsys.readouterr().out
    assert "teacher wrn-10-1" in output
    assert "student lenet" in output
    first = next(line for line in output.splitlines() if "group1" in line)
    assert first.count("│") == 10  # side by side
    cells = [cell.strip() for cell in first.split("│")]
    assert [cell for cell in cells if cell] == ["1", "group1", "Sequential", "16x8x8", "1", "conv1", "Conv2d", "6x8x8"]
    assert "compares group1 with conv1 8x8, group2 with conv2 4x4" in output
    assert "only some attention maps" in output


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["wrm-10-1"], "unknown architecture"),
        (["wrn-10-1", "student.arch=lenet"], "one architecture"),
        (["lenet", "--config", "c.yaml"], "one architecture"),
        (["--config", "missing.yaml"], "no such file"),
        (["student.arch=wrm"], "student.arch"),
        (["torchvision:squeezenet1_1", "--image-shape", "1,8,8"], "cannot take images of 1x8x8"),
        ([f"{MINE}:two_classes", "--image-shape", "1,8,8"], "returns logits of 2 classes, and the data has 10; change"),
        (["student.arch=torchvision:squeezenet1_1"], "student.arch='torchvision:squeezenet1_1': cannot take images"),
        ([f"student.arch={MINE}:Misdeclared"], "declares attention_layers 'conv3'"),
    ],
)
def test_mistakes(arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert part in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("shape", ["3,32", "3,32,0", "3x32x32", "a"])
def test_an_image_shape_that_is_none(shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["lenet", "--image-shape", shape])
    assert ended.value.code == 2
    assert "C,H,W" in capsys.readouterr().err


def test_images_of_a_network_of_imagenet(capsys: pytest.CaptureFixture[str]) -> None:
    """Their size is that which timm says, and not the 3x32x32 of others."""
    assert main(["timm:test_resnet"]) == 0
    assert "images of 3x160x160" in capsys.readouterr().out
