"""Whatever is given to a command that cannot work: one line that names the key, exit code 2, and nothing begun."""

import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.support.configs import tiny_overrides
from tests.support.images import png, write_parquet
from zskt_dist.commands import train
from zskt_dist.models import LeNet
from zskt_dist.networks.weights import save_weights

MINE = "tests.support.user_networks"
Weights = dict[str, Tensor]


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (self.path,))


def _lenet(**arguments: int) -> Weights:
    return LeNet(image_size=(8, 8), **arguments).state_dict()


def _with(change: Callable[[Weights], object]) -> Weights:
    weights = _lenet()
    change(weights)
    return weights


def _below(prefix: str) -> Weights:
    return {prefix + name: tensor for name, tensor in _lenet().items()}


def _within_itself() -> dict[str, object]:
    checkpoint: dict[str, object] = {"epoch": 3}
    checkpoint["model"] = checkpoint
    return checkpoint


def _file(folder: Path, name: str, content: object) -> str:
    """`teacher.checkpoint=…` of a file with this content."""
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return f"teacher.checkpoint={path}"


def _truncated(folder: Path, name: str) -> str:
    override = _file(folder, name, _lenet())
    (folder / name).write_bytes((folder / name).read_bytes()[:700])
    return override


def _images(folder: Path, odd: bytes, row: int = 300) -> str:
    """Test images, one of which is odd."""
    good = png(np.zeros((8, 8), dtype=np.uint8))
    images = [odd if number == row else good for number in range(row + 2)]
    write_parquet(folder / "images" / "test.parquet", images, [number % 10 for number in range(len(images))])
    return (
        f"data.name=parquet data.root={folder / 'images'} data.mean=[0] data.std=[1] {_file(folder, 't.pt', _lenet())}"
    )


def _labels(folder: Path, labels: list[object]) -> str:
    write_parquet(folder / "test.parquet", [png(np.zeros((8, 8), dtype=np.uint8))] * len(labels), labels)
    return f"data.name=parquet data.root={folder} data.mean=[0] data.std=[1]"


def _bomb() -> bytes:
    """A PNG file of 200 bytes that says it is of 40,000 x 40,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(100))
    chunks = (
        struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in (header, pixels)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _saved_as(folder: Path, arch: str, **options: int) -> str:
    about = {"arch": arch, "options": options, "image_shape": [1, 8, 8], "num_classes": 10}
    save_weights(folder / "student.safetensors", LeNet(image_size=(8, 8)), about)
    return f"teacher.checkpoint={folder / 'student.safetensors'}"


# What is wrong -> overrides, made in a folder, and the one line: the key and words of the message.
WRONG: dict[str, tuple[Callable[[Path], str], str, str]] = {
    "missing file": (lambda _: "teacher.checkpoint=no/such.pt", "teacher.checkpoint", "no such file"),
    "folder": (
        lambda f: f"teacher.checkpoint={f}",
        "teacher.checkpoint",
        "is a folder; name the file with the weights",
    ),
    "unknown scheme": (lambda _: "teacher.checkpoint=ftp://host/t.pt", "teacher.checkpoint", "s3://bucket"),
    "unknown arch": (lambda _: "student.arch=lenett", "student.arch", "did you mean 'lenet'"),
    "impossible arch": (lambda _: "teacher.arch=wrn-17-1", "teacher.arch", "depth must be 6 n + 4"),
    "unknown timm": (lambda _: "student.arch=timm:resnet19", "student.arch", "did you mean 'resnet18'"),
    "unknown torchvision": (lambda _: "student.arch=torchvision:vgg12", "student.arch", "did you mean 'vgg1"),
    "no such module": (lambda _: "student.arch=no_such_module:f", "student.arch", "no module 'no_such_module'"),
    "no such callable": (lambda _: f"student.arch={MINE}:Carefull", "student.arch", "did you mean 'Careful'"),
    "no network": (lambda _: f"student.arch={MINE}:text", "student.arch", "a torch.nn.Module is needed"),
    "failing code": (
        lambda _: f"student.arch={MINE}:broken",
        "student.arch",
        "KeyError: 'depth' (user_networks.py, line",
    ),
    "unknown option": (lambda _: "student.options.widht=2", "student.options", "did you mean 'width'"),
    "option of timm": (
        lambda _: "student.arch=timm:resnet10t student.options.depth=2",
        "student.options",
        "unexpected keyword argument 'depth'",
    ),
    "missing option": (lambda _: f"student.arch={MINE}:needs_depth", "student.options", "missing a required argument"),
    "options no mapping": (lambda _: "student.options=width", "student.options", "expected a mapping"),
    "options of the data": (
        lambda _: "student.arch=torchvision:vgg11 student.options.num_classes=3",
        "student.options",
        "classes and channels are the data's",
    ),
    "image too small": (lambda _: "student.arch=torchvision:vgg11", "student.arch", "cannot take images of 1x8x8"),
    "network of other classes": (
        lambda _: f"teacher.arch={MINE}:two_classes",
        "teacher.arch",
        "returns logits of 2 classes, and the data has 10",
    ),
    "attention layers that are not there": (
        lambda _: f"student.arch={MINE}:Misdeclared",
        "student.arch",
        "declares attention_layers 'conv3': no such layer",
    ),
    "feature maps": (lambda _: f"student.arch={MINE}:feature_maps", "student.arch", "where logits are expected"),
    "weights of other classes": (
        lambda f: _file(f, "t.pt", _lenet(num_classes=100)),
        "teacher.checkpoint",
        "it was trained for 100 classes, and here there are 10; where the images lack some, say data.num_classes=100",
    ),
    "weights of other channels": (
        lambda f: _file(f, "t.pt", _lenet(in_channels=3)),
        "teacher.checkpoint",
        "it was trained on images of 3 channels, and here they have 1",
    ),
    "weights of another arch": (
        lambda f: _file(f, "t.pt", {"features.0.weight": torch.zeros(3)}),
        "teacher.checkpoint",
        "missing: conv1.weight, conv1.bias, conv2.weight and 7 more; unexpected: features.0.weight",
    ),
    "weights of another width": (
        lambda f: _file(f, "t.safetensors", _lenet(width=2)),
        "teacher.checkpoint",
        "wrong shape: conv1.weight is (12, 1, 5, 5) instead of (6, 1, 5, 5)",
    ),
    "saved by us as another arch": (
        lambda f: _saved_as(f, "wrn-16-1"),
        "teacher.checkpoint",
        "was saved with arch 'wrn-16-1', and teacher.arch is 'lenet'",
    ),
    "saved by us with other options": (
        lambda f: _saved_as(f, "lenet", width=2),
        "teacher.checkpoint",
        "was saved with options {'width': 2}, and teacher.options is {}",
    ),
    "truncated safetensors": (
        lambda f: _truncated(f, "t.safetensors"),
        "teacher.checkpoint",
        "is cut off; copy it again",
    ),
    "truncated torch file": (lambda f: _truncated(f, "t.pt"), "teacher.checkpoint", "is cut off; copy it again"),
    "text": (lambda f: _file(f, "t.pt", b"epoch,loss\n1,2\n"), "teacher.checkpoint", "not a PyTorch file"),
    "picture": (lambda f: _file(f, "t.pt", b"\x89PNG\r\n\x1a\n" * 9), "teacher.checkpoint", "not a PyTorch file"),
    "empty torch file": (lambda f: _file(f, "t.pt", b""), "teacher.checkpoint", "is empty; copy it again"),
    "empty safetensors": (lambda f: _file(f, "t.safetensors", b""), "teacher.checkpoint", "is empty; copy it again"),
    "NaN": (
        lambda f: _file(f, "t.pt", _with(lambda w: w["fc1.bias"].fill_(float("nan")))),
        "teacher.checkpoint",
        "not finite, first in fc1.bias",
    ),
    "infinity": (
        lambda f: _file(f, "t.safetensors", _with(lambda w: w["fc2.bias"][3:4].fill_(float("-inf")))),
        "teacher.checkpoint",
        "not finite, first in fc2.bias",
    ),
    "malicious pickle": (
        lambda f: _file(f, "t.pt", {"state_dict": _lenet(), "hook": Malicious(f / "executed")}),
        "teacher.checkpoint",
        ".mkdir besides tensors, and a pickle of more than tensors could run code when loaded, so it is refused",
    ),
    "path": (
        lambda f: _file(f, "t.pt", {"state_dict": _lenet(), "saved_to": f}),
        "teacher.checkpoint",
        "holds pathlib.PosixPath besides tensors",
    ),
    "pickled module": (lambda f: _file(f, "t.pt", LeNet()), "teacher.checkpoint", "torch.save(model.state_dict()"),
    "checkpoint without weights": (
        lambda f: _file(f, "t.pt", {"epoch": 3, "optimizer": {"lr": 0.1}, "mine": _lenet()}),
        "teacher.checkpoint",
        "found only: epoch, optimizer, mine; weights may lie under state_dict",
    ),
    "weights that are there twice": (
        lambda f: _file(f, "t.pt", _below("model.") | _below("ema.")),
        "teacher.checkpoint",
        "more than once, below model. and below ema.; to choose, say teacher.prefix=model.",
    ),
    "weights with more beside them": (
        lambda f: _file(f, "t.safetensors", _below("net.") | {"mean": torch.zeros(1)}),
        "teacher.checkpoint",
        "beside it lies what may be a part of the network as well: mean; if it is not, say teacher.prefix=net.",
    ),
    "a prefix that no name has": (
        lambda f: f"{_file(f, 't.pt', _below('model.'))} teacher.prefix=net.",
        "teacher.prefix",
        "begins with it; they begin with model.",
    ),
    "a prefix of no file": (lambda _: "teacher.prefix=net.", "teacher.prefix", "teacher.checkpoint=FILE"),
    "no weights for an untrained network": (
        lambda _: "teacher.checkpoint=none",
        "teacher.checkpoint",
        "is for package.module:callable that loads its own weights, and lenet is made without",
    ),
    "code that brings no weights": (
        lambda _: f"teacher.checkpoint=none teacher.arch={MINE}:Plain",
        "teacher.checkpoint",
        "draws fc.weight at random, and so is not trained",
    ),
    "names of several lines": (
        lambda f: _file(f, "t.pt", {"a\nerror: b": torch.zeros(1)}),
        "teacher.checkpoint",
        r"unexpected: 'a\nerror: b'",
    ),
    "checkpoint within itself": (
        lambda f: _file(f, "t.pt", _within_itself()),
        "teacher.checkpoint",
        "found only: epoch, model",
    ),
    "list": (lambda f: _file(f, "t.pt", [1, 2]), "teacher.checkpoint", "found only: list"),
    "no data": (lambda f: f"data.name=cifar10 data.root={f}", "data.root", "cifar-10-batches-py"),
    "no parquet": (lambda f: f"data.name=parquet data.root={f}", "data.root", "parquet"),
    "truncated image": (
        lambda f: _images(f, png(np.arange(64, dtype=np.uint8).reshape(8, 8))[:45]),
        "data.root",
        "image 300 of test cannot be decoded: OSError: image file is truncated",
    ),
    "decompression bomb": (
        lambda f: _images(f, _bomb()),
        "data.root",
        "image 300 of test cannot be decoded: DecompressionBombError: Image size (1600000000 pixels)",
    ),
    "transparent image": (
        lambda f: _images(f, png(np.zeros((8, 8, 4), dtype=np.uint8))),
        "data.root",
        "image 300 of test cannot be decoded: it has transparent pixels",
    ),
    "labels that are fractions": (
        lambda f: _labels(f, [0.0, 0.5]),
        "data.root",
        "has the label 0.5 beside numbers; give every image a whole number",
    ),
    "names in no clear order": (
        lambda f: _labels(f, [f"class_{number}" for number in range(12)]),
        "data.root",
        "class_10 comes before class_2 as text, and after it by number",
    ),
    "other channels": (lambda _: "data.mean=[1,1,1] data.std=[1,1,1]", "data.mean", "images of 1 channel; give"),
    "folder of the digits": (lambda f: f"data.root={f}", "data.root", "say data.name=parquet, too"),
    "mean of bytes": (
        lambda _: "data.mean=[76.5] data.std=[89.25]",
        "data.mean",
        "of pixels in [0, 1], not of bytes; divided by 255: data.mean=[0.3] data.std=[0.35]",
    ),
    "no number": (lambda _: "loss.beta=.nan", "loss.beta", "expected"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_one_line_that_names_the_key(wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare, key, words = WRONG[wrong]
    overrides = prepare(tmp_path).split(" ")
    assert train.main(tiny_overrides(tmp_path, *overrides)) == 2
    printed = capsys.readouterr()
    assert re.fullmatch(rf"error: {re.escape(key)}=[^\n]*\n", printed.err), printed.err
    assert words in printed.err
    assert printed.out == ""
    assert not (tmp_path / "executed").exists(), "the pickle was run"
    assert not (tmp_path / "runs").exists(), "something was begun"
