"""Networks of other families, and what becomes of a format that fails."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tests.export.runs import untrained_run
from tests.support.configs import tiny_config
from zskt_dist.config import Config
from zskt_dist.data.pool import PoolFiles
from zskt_dist.evaluation.held_out import snapshot_path
from zskt_dist.export import __main__ as export
from zskt_dist.export.exporter import pseudo_images
from zskt_dist.export.load import load_network
from zskt_dist.files import read_json, write_json
from zskt_dist.models import ImageShape, is_user_code
from zskt_dist.networks.building import new_generator
from zskt_dist.networks.weights import save_weights
from zskt_dist.streams import Purpose, normal, stream


class Moody(nn.Module):
    """Cannot be traced."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1)) if x.sum() > 0 else -self.fc(x.flatten(1))


MOODY = "tests.export.test_exporter:Moody"


def test_a_network_that_cannot_be_traced_is_one_line_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = untrained_run(tmp_path, arch=MOODY)
    assert export.main([str(run), f"student.arch={MOODY}", "--to", "safetensors", "pt2", "onnx"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]  # torch has logged before
    assert re.fullmatch(r"error: student.pt2 is not written: \w+: .*; student.onnx is not written: \w+: .*", error)
    assert list(read_json(run / "export/export.json")["files"]) == ["safetensors"]


@pytest.mark.parametrize("broken", ["onnx.quantized", "onnx.OnnxNetwork", "pt2.as_bytes", "pt2.from_bytes"])
def test_what_a_library_raises_leaves_the_other_formats(
    broken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise Exception("Incomplete symbolic shape inference\nand more lines")

    monkeypatch.setattr(f"zskt_dist.export.{broken}", fail)
    name = "int8" if broken == "onnx.quantized" else broken[: broken.index(".")]
    run = untrained_run(tmp_path)
    file = run / "export" / f"student.{'int8.onnx' if name == 'int8' else name}"
    assert export.main([str(run), "--to", "safetensors"]) == 0
    file.write_text("an older one")
    record = read_json(run / "export/export.json")
    write_json(run / "export/export.json", record | {"written": [*record["written"], file.name]})
    capsys.readouterr()
    assert export.main([str(run), "--to", "safetensors", name, "card"]) == 2
    told = f"error: {file.name} is not written: Exception: Incomplete symbolic shape inference\n"
    assert capsys.readouterr().err == told
    assert not file.exists()
    record = read_json(run / "export/export.json")
    assert list(record["files"]) == ["safetensors"]
    assert record["written"] == ["README.md", "config.json", "export.json", "student.safetensors"]
    assert (run / "export/README.md").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "shape"),
    [
        ("timm:mobilenetv3_small_050", (3, 32, 32)),
        ("torchvision:regnet_y_400mf", (3, 32, 32)),
        ("tests.support.user_networks:Literal", (1, 8, 8)),  # returns a dict
    ],
)
def test_other_families_in_every_format(
    arch: str, shape: tuple[int, int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = untrained_run(tmp_path, arch=arch, shape=shape)
    before = sorted(tmp_path.iterdir())
    words = [f"student.arch={arch}"] if is_user_code(arch) else []
    assert export.main([str(run), *words, "--to", "safetensors", "pt2", "onnx", "int8", "card"]) == 0
    assert sorted(tmp_path.iterdir()) == before  # nothing is left where the command was started
    folder = run / "export"
    images = torch.randn(3, *shape)
    network, _ = load_network(folder, arch=arch if is_user_code(arch) else None)
    expected = network(images)
    assert expected.shape == (3, 10)
    assert (torch.export.load(folder / "student.pt2").module()(images) - expected).abs().max() < 1e-4
    for name, tolerance in (("student.onnx", 1e-4), ("student.int8.onnx", 0.5)):
        (logits,) = onnxruntime.InferenceSession(folder / name).run(["logits"], {"images": images.numpy()})
        np.testing.assert_allclose(logits, expected, atol=tolerance)
    assert 0 < read_json(folder / "export.json")["files"]["int8"]["agreement"]["noise"] <= 1
    monkeypatch.chdir(folder)
    codes = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len(codes) == 4
    for code in codes:
        exec(code, names := {"images": images})
        assert names["logits"].shape == (3, 10)


@pytest.mark.parametrize(("micro_batch", "sizes"), [("null", [8, 2]), ("4", [4, 4, 2])])
def test_images_are_normalised_together_as_in_training(tmp_path: Path, micro_batch: str, sizes: list[int]) -> None:
    config = tiny_config(tmp_path, "evaluation.held_out_images=10", f"engine.micro_batch={micro_batch}")
    generator = new_generator(config, ImageShape(1, 8, 8))
    for iteration in (5, 10):
        save_weights(snapshot_path(tmp_path, iteration), generator, {})
    directory = SimpleNamespace(snapshots=tmp_path, pool=tmp_path / "pool")
    exported = _exported(config, directory)
    found = list(pseudo_images(exported))
    assert [len(images) for images in found] == 2 * sizes
    for number in range(2):
        whole = sizes[0] * len(sizes)  # also the last batch, of which the first two images are kept
        z = torch.from_numpy(normal(stream(config.seed, Purpose.HELD_OUT, number), whole, config.generator.z_dim))
        expected = torch.cat([generator(part) for part in z.split(sizes[0])])[:10]
        assert torch.allclose(torch.cat(found[number * len(sizes) :][: len(sizes)]), expected, atol=1e-6)
    assert not any(images.requires_grad for images in found)


def test_a_run_without_snapshots_has_none(tmp_path: Path) -> None:
    directory = SimpleNamespace(snapshots=tmp_path, pool=tmp_path / "pool")
    assert list(pseudo_images(_exported(tiny_config(tmp_path), directory))) == []


def test_an_inversion_has_its_pool(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    PoolFiles(tmp_path / "pool").write(0, images)
    directory = SimpleNamespace(snapshots=tmp_path, pool=tmp_path / "pool")
    (found,) = pseudo_images(_exported(tiny_config(tmp_path), directory))
    torch.testing.assert_close(found, (images / 255 - 0.25) / 0.5)


def _exported(config: Config, directory: SimpleNamespace) -> Any:
    shape = ImageShape(1, 8, 8)
    return SimpleNamespace(config=config, image_shape=shape, directory=directory, mean=(0.25,), std=(0.5,))
