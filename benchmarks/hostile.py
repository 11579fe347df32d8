"""Hostile inputs, each given to the code that reads it: outcome, seconds, and memory beyond an ordinary input.

`python -m benchmarks.hostile --json FILE --markdown FILE`. Each input is read in a process of its own, forked after all
imports, so that time and peak memory are of the reading alone. An outcome is `refused` (one line for the user),
`passed over` (a warning, and the file counts as missing), `read` (rightly, at no harm), or a fault.
"""

import argparse
import hashlib
import io
import json
import logging
import multiprocessing
import os
import pickle
import resource
import struct
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save

from zskt_dist.config.load import load_config
from zskt_dist.data.unlabelled import read_unlabelled
from zskt_dist.data.user_images import UserImages
from zskt_dist.errors import UserError, one_line
from zskt_dist.files import read_json
from zskt_dist.models import ImageShape, NetworkError, build_network
from zskt_dist.models.examination import examine
from zskt_dist.networks.weights import load_into, read_weights
from zskt_dist.report.runs import find_runs
from zskt_dist.runs.checkpoints import CheckpointStore
from zskt_dist.runs.directory import RunDirectory, find_finished
from zskt_dist.tracking.local import read_history

SECONDS, MEBIBYTES = 2.0, 500.0
SHAPE = ImageShape(1, 8, 8)
Write = Callable[[Path], object]
Read = Callable[[Path], object]


@dataclass(frozen=True)
class Outcome:
    """What came of an input."""

    kind: str
    input: str
    bytes: int
    outcome: str
    said: str
    seconds: float
    mebibytes: float


def text(content: str) -> Write:
    return lambda path: path.write_text(content)


def binary(content: bytes) -> Write:
    return lambda path: path.write_bytes(content)


def _config(path: Path) -> object:
    return load_config(path)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
YAML: dict[str, Write] = {
    "aliases that unfold to gigabytes": text(LAUGHS),
    "a list that contains itself": text("loss: &a [*a]"),
    "a mapping that contains itself": text("loss: &a {beta: *a}"),
    "2,000 lists in one another": text("loss: " + "[" * 2000 + "]" * 2000),
    "100,000 open brackets": text("[" * 100_000),
    "a megabyte of numbers": text("loss: [" + "1, " * 350_000 + "]"),
    "a tag that makes an object": text("loss: !!python/object/apply:os.system [id]"),
    "a tag of a module": text("loss: !!python/module:os"),
    "a key twice": text("loss: {beta: 1, beta: 2}"),
    "12,000 keys": text("\n".join(f"k{n}: 1" for n in range(12_000))),
    "a binary file": binary(os.urandom(1000)),
    "a byte order mark and nulls": binary(b"\xff\xfe\x00\x00"),
    "not UTF-8": binary(b"loss: \xff\xfe"),
    "a huge integer": text("iterations: " + "9" * 5000),
    "infinity": text("loss: {beta: .inf}"),
    "not a number": text("optimizer: {student_lr: .nan}"),
}


def _json(path: Path) -> object:
    return read_json(path)


JSON: dict[str, Write] = {
    "100,000 open brackets": text("[" * 100_000),
    "100,000 objects in one another": text('{"a":' * 100_000),
    "a list": text("[1, 2]"),
    "a number": text("3"),
    "cut off": text('{"status": "fini'),
    "empty": text(""),
    "a binary file": binary(os.urandom(1000)),
    "an integer of 5,000 digits": text('{"seed": ' + "9" * 5000 + "}"),
}


def _run(path: Path) -> Path:
    folder = path.with_name(f"{path.name}-run")
    folder.mkdir(exist_ok=True)
    return folder


def _result(content: str) -> Write:
    return lambda path: (_run(path) / "result.json").write_text(content)


def _finished(path: Path) -> object:
    directory, result = find_finished(str(_run(path)), "evaluate")
    return directory, result["student"]["accuracy_last"]


def _link(name: str, target: str) -> Write:
    def write(path: Path) -> None:
        _result(json.dumps({"status": "finished", "command": "train"}))(path)
        link = _run(path) / name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(target)

    return write


GOOD = '{"status": "finished", "command": "train", "student": %s, "seeds": [0], "runs": %s}'
RESULTS: dict[str, Write] = {
    "a number for the student": _result('{"status": "finished", "command": "train", "student": 3}'),
    "a list for the student": _result('{"status": "finished", "command": "train", "student": []}'),
    "text for an accuracy": _result('{"status": "finished", "command": "train", "student": {"accuracy_last": "high"}}'),
    "an unknown status": _result('{"status": "best", "command": "train"}'),
    "nested 100,000 deep": _result('{"status":' * 100_000),
    "a link to /etc/passwd": _link("figures/pseudo_images.png", "/etc/passwd"),
    "a link to the root folder": _link("figures", "/"),
    "a link to itself": _link("figures", "figures"),
}


def _neighbours(path: Path) -> object:
    directory, result = find_finished(str(_run(path)), "evaluate")
    return [directory.sibling(name) for name in result["runs"]]


NAMES: dict[str, Write] = {
    name: _result(json.dumps({"status": "finished", "command": "sweep", "runs": [name]}))
    for name in ("../../etc", "/etc/passwd", "..", "a/../../b", "")
}


def _configured(content: bytes) -> Write:
    return lambda path: (_run(path) / "config.yaml").write_bytes(content)


def _read_config(path: Path) -> object:
    return RunDirectory(_run(path)).read_config()


CONFIGS: dict[str, Write] = {
    "aliases": _configured(LAUGHS.encode()),
    "a tag that makes an object": _configured(b"loss: !!python/object/apply:os.system [id]"),
    "half a file": _configured(b"loss: {beta"),
    "a key that is not there": _configured(b"lossy: 3"),
}


def _history(path: Path) -> object:
    return read_history(path)


HISTORIES: dict[str, Write] = {
    "no Parquet": binary(b"PAR1" + os.urandom(100)),
    "empty": binary(b""),
    "text": text("iteration,loss\n1,2\n"),
}


def _reported(path: Path) -> object:
    return [run.accuracy for run in find_runs([_run(path)])]


def _zip(entries: dict[str, bytes]) -> Write:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in entries.items():
                archive.writestr(name, content)

    return write


class Harm:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo harmed >> harmed.txt",)


def _saved(content: object) -> Write:
    return lambda path: torch.save(content, path)


def _plain() -> dict[str, torch.Tensor]:
    return build_network("lenet", SHAPE, 10).state_dict()


def _changed(change: Callable[[torch.Tensor], torch.Tensor]) -> Write:
    return lambda path: torch.save({name: change(tensor) for name, tensor in _plain().items()}, path)


def _weights(path: Path) -> object:
    network = build_network("lenet", SHAPE, 10)
    load_into(network, read_weights(path, "teacher.checkpoint"), "teacher.checkpoint", path, 10)
    return examine(network.eval(), SHAPE)


def _header(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


WEIGHTS: dict[str, Write] = {
    "a pickle that runs a command": binary(pickle.dumps(Harm())),
    "the same, saved by torch": _saved({"state_dict": Harm()}),
    "the same, with protocol 4": binary(pickle.dumps(Harm(), protocol=4)),
    "an archive with a pickle of it": _zip({"archive/data.pkl": pickle.dumps(Harm()), "archive/version": b"3"}),
    "an archive that unpacks to a gigabyte": _zip({"archive/data.pkl": bytes(2**20), "archive/data/0": bytes(2**30)}),
    "an archive in an archive": _zip({"a.zip": bytes(2**20)}),
    "an archive with a path that leaves it": _zip({"../../evil": b"x"}),
    "truncated": lambda path: (_saved(_plain())(path), path.write_bytes(path.read_bytes()[:5000])),
    "empty": binary(b""),
    "random bytes": binary(os.urandom(5000)),
    "a safetensors header of 2^60 bytes": binary(struct.pack("<Q", 2**60) + b"{"),
    "a safetensors header nested 10,000 deep": binary(_header(b'{"a":' * 10_000)),
    "offsets beyond the file": binary(_header(b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}') + b"1234"),
    "a shape of 2^40": binary(
        _header(b'{"w":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,8]}}') + bytes(8)
    ),
    "a billion empty tensors' names": binary(save({f"w{n}": torch.zeros(0) for n in range(20_000)})),
    "not a number": _changed(lambda tensor: tensor * float("nan")),
    "times 1e20": _changed(lambda tensor: tensor * 1e20),
    "all zero": _changed(lambda tensor: tensor * 0),
    "complex": _changed(lambda tensor: tensor.to(torch.complex64)),
    "8-bit integers": _changed(lambda tensor: (tensor * 100).to(torch.int8)),
    "sparse": _changed(lambda tensor: tensor.to_sparse()),
    "on the meta device": _changed(lambda tensor: tensor.to("meta")),
    "strides of 0 that stand for a gigabyte": _saved({"w": torch.zeros(1).expand(2**28)}),
    "a dictionary 500 deep": lambda path: torch.save(_deep(500), path),
}


def _deep(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {"w": torch.zeros(1)}
    for _ in range(depth):
        found = {"state_dict": found}
    return found


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, *chunks: bytes) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + _chunk(b"IEND", b"")


def _black(size: int) -> bytes:
    found = io.BytesIO()
    Image.fromarray(np.zeros((size, size), np.uint8)).save(found, "PNG")
    return found.getvalue()


def _parquet(images: list[bytes], labels: list[Any] | None = None) -> Write:
    def write(path: Path) -> None:
        table = pa.table({"image": pa.array(images, pa.binary()), "label": labels or [0, 1] * (len(images) // 2)})
        pq.write_table(table, _run(path) / "test.parquet")

    return write


def _one_value(path: Path) -> None:
    image = pa.DictionaryArray.from_arrays([0] * 256, pa.array([bytes(2**24)]))
    table = pa.table({"image": image, "label": [0] * 256})
    pq.write_table(table, _run(path) / "test.parquet", compression="zstd", store_schema=False)


def _images(path: Path) -> object:
    return UserImages(_run(path)).read("test").images.shape


IMAGES: dict[str, Write] = {
    "a million equal images": _parquet([_black(8)] * 1_000_000),
    "3,000 of 512x512 in some kilobytes": _parquet([_black(512)] * 3000),
    "one value of 16 MiB in all rows": _one_value,
    "a PNG of 40,000x40,000": _parquet([_png(40_000, 40_000, _chunk(b"IDAT", zlib.compress(bytes(100))))] * 2),
    "a PNG of 9,000x9,000": _parquet([_black(9000)] * 2),
    "a PNG with a text of 100 MB": _parquet([_png(8, 8, _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8))))] * 2),
    "a PNG that is cut off": _parquet([_black(8)[:60]] * 2),
    "a PNG without pixels": _parquet([_png(8, 8)] * 2),
    "random bytes": _parquet([os.urandom(500)] * 2),
    "an SVG": _parquet([b"<svg xmlns='http://www.w3.org/2000/svg'/>"] * 2),
    "an EPS file, which runs a program": _parquet([b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"] * 2),
    "labels beyond 64 bits": _parquet([_black(8)] * 2, [2.0**70, 0.0]),
    "labels that are lists": _parquet([_black(8)] * 2, [[1], [2]]),
    "no Parquet": lambda path: (_run(path) / "test.parquet").write_bytes(b"PAR1" + os.urandom(500) + b"PAR1"),
    "a footer of 2^31 bytes": lambda path: (_run(path) / "test.parquet").write_bytes(b"PAR1\xff\xff\xff\x7fPAR1"),
}


def _unlabelled(path: Path) -> object:
    return read_unlabelled("inversion.seed_images", str(_run(path)), SHAPE).shape


def _checkpoint(content: bytes, digest: str | None = None) -> Write:
    """With the name that belongs to the content, which anybody can compute."""
    name = f"{5:08d}-{digest or hashlib.sha256(content).hexdigest()}.pt"
    return lambda path: (_run(path) / name).write_bytes(content)


def _resumed(path: Path) -> object:
    return CheckpointStore(_run(path)).latest()


CHECKPOINTS: dict[str, Write] = {
    "a name that does not fit": _checkpoint(b"anything", "0" * 64),
    "no checkpoint under a name that fits": _checkpoint(b"anything"),
    "a pickle that runs a command": _checkpoint(pickle.dumps(Harm())),
}
KINDS: list[tuple[str, Read, dict[str, Write]]] = [
    ("configuration", _config, YAML),
    ("JSON of a run", _json, JSON),
    ("result of a run", _finished, RESULTS),
    ("result in a report", _reported, RESULTS),
    ("names in a result", _neighbours, NAMES),
    ("configuration of a run", _read_config, CONFIGS),
    ("history of a run", _history, HISTORIES),
    ("weights", _weights, WEIGHTS),
    ("test images", _images, IMAGES),
    ("images without labels", _unlabelled, {name: IMAGES[name] for name in list(IMAGES)[:6]}),
    ("checkpoint", _resumed, CHECKPOINTS),
]


def _read(read: Read, path: Path, sender: Connection) -> None:
    """In a process of its own; what is sent is the outcome, what was said, seconds and MiB."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("zskt_dist").addHandler(handler)
    warnings.simplefilter("ignore")
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    try:
        found = read(path)
        outcome, text = ("passed over" if said else "read"), (said[0] if said else str(found))
    except (UserError, NetworkError) as error:  # of which commands make one
        outcome, text = "refused", str(error)
    except BaseException as error:
        outcome, text = "FAULT", one_line(error)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sender.send((outcome, " ".join(text.replace(str(path.parent), "…").split())[:160], seconds, (peak - before) / 1024))


def measure(folder: Path) -> Iterator[Outcome]:
    context = multiprocessing.get_context("fork")
    for kind, read, inputs in KINDS:
        for name, write in inputs.items():
            path = folder / f"{len(list(folder.iterdir())):03d}.yaml"
            path.touch()
            maker = context.Process(target=write, args=(path,))  # its memory is not the reader's
            maker.start()
            maker.join()
            size = sum(file.lstat().st_size for file in (path, *_run(path).rglob("*")) if not file.is_dir())
            receiver, sender = context.Pipe(duplex=False)
            reader = context.Process(target=_read, args=(read, path, sender))
            reader.start()
            found = receiver.recv() if receiver.poll(60) else ("FAULT", "no end in a minute", 60.0, 0.0)
            reader.kill()
            reader.join()
            yield Outcome(kind, name, size, found[0], found[1], round(found[2], 2), round(found[3], 1))


def table(outcomes: list[Outcome]) -> str:
    lines = ["| what | input | bytes | outcome | s | MiB | said |", "|---|---|---|---|---|---|---|"]
    for one in outcomes:
        said = one.said.replace("|", "\\|").replace("<", "&lt;")
        lines.append(
            f"| {one.kind} | {one.input} | {one.bytes:,} | {one.outcome} | {one.seconds} | {one.mebibytes:g} | {said} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        (Path(folder) / "inputs").mkdir()
        outcomes = list(measure(Path(folder) / "inputs"))
        harmed = Path(folder, "harmed.txt").exists()
    bad = [each for each in outcomes if each.outcome == "FAULT" or each.seconds > SECONDS or each.mebibytes > MEBIBYTES]
    print(table(outcomes))
    print(
        f"{len(outcomes)} inputs, {len(bad)} faults or beyond {SECONDS:g} s and {MEBIBYTES:g} MiB, code run: {harmed}"
    )
    for each in bad:
        print(each)
    if options.json:
        answer = {"inputs": [asdict(each) for each in outcomes], "code_run": harmed}
        options.json.write_text(json.dumps(answer, indent=2) + "\n")
    if options.markdown:
        options.markdown.write_text(table(outcomes))


if __name__ == "__main__":
    main()
