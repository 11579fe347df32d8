"""What `pip install` brings: the wheel, in an empty folder, with the core and nothing else installed."""

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.commands import REPOSITORY
from tests.support.configs import TINY
from tests.support.core import python, zskt

pytest.importorskip("hatchling")

SETTINGS = [setting for setting in TINY if not setting.startswith("tracking.uri")]
LOCAL = ["--config", "digits", *SETTINGS, "launch.kind=local", "launch.workers=1", "iterations=2"]
LACKING = {
    "train --config digits": "launch.kind='ray': needs Ray: pip install 'zskt-dist[ray]'; or use launch.kind=local",
    "train engine.kind=deepspeed": "engine.kind='deepspeed': needs DeepSpeed: pip install 'zskt-dist[deepspeed]'",
    "train data.name=cifar10": "data.name='cifar10': needs torchvision: pip install 'zskt-dist[zoo]'",
    "train data.name=svhn": "data.name='svhn': needs torchvision and SciPy: pip install 'zskt-dist[zoo]'",
    "train teacher.arch=timm:resnet18": "teacher.arch='timm:resnet18': needs timm: pip install 'zskt-dist[zoo]'",
    "layers torchvision:resnet18": "'torchvision:resnet18': needs torchvision: pip install 'zskt-dist[zoo]'",
    "sweep --config sweeps/beta": (
        "zskt sweep needs Matplotlib, pandas, SciPy and Ray: pip install 'zskt-dist[report,ray]'"
    ),
    "report runs": "zskt report needs Matplotlib, pandas and SciPy: pip install 'zskt-dist[report]'",
    "reproduce two_cores/graph": "zskt reproduce needs Matplotlib, pandas and SciPy: pip install 'zskt-dist[report]'",
    "toy": "zskt toy needs Matplotlib: pip install 'zskt-dist[report]'",
    "replay runs/digits/run": "zskt replay needs MLflow: pip install 'zskt-dist[mlflow]'",
    "export runs/digits/run --to mlflow": "--to mlflow needs MLflow: pip install 'zskt-dist[mlflow]'",
    "export runs/digits/run --to onnx": (
        "--to onnx needs ONNX, ONNX Runtime and ONNX Script: pip install 'zskt-dist[export]'"
    ),
}
TRANSFER = """
import torch, zskt_dist
networks = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)) for _ in range(2)]
result = zskt_dist.transfer(*networks, input_shape=(1, 8, 8), iterations=2, batch_size=4)
assert result.iterations == 2
try: result.to_pandas()
except zskt_dist.errors.UserError as error: print(error)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made from the source archive as an index gets both."""
    folder = tmp_path_factory.mktemp("built")
    (archive,) = _build("sdist", REPOSITORY, folder / "sdist")
    with tarfile.open(archive) as source:
        source.extraction_filter = getattr(tarfile, "data_filter", None)  # from Python 3.11.4 on
        source.extractall(folder)
    (wheel,) = _build("wheel", folder / archive.name.removesuffix(".tar.gz"), folder / "wheel")
    return wheel


def _build(target: str, source: Path, folder: Path) -> list[Path]:
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(folder.iterdir())


@pytest.fixture(scope="module")
def package(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel in it, as an installer unpacks it."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(built).extractall(folder)
    return folder


@pytest.fixture(scope="module")
def run(package: Path, core: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An empty folder in which a student has been trained, and what was printed."""
    folder = tmp_path_factory.mktemp("empty")
    done = zskt("train", *LOCAL, "name=run", folder=folder, package=package, core=core)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout + done.stderr


def test_what_is_in_the_wheel(built: Path) -> None:
    names = zipfile.ZipFile(built).namelist()
    assert {name.split("/")[0] for name in names} == {"zskt_dist", f"{'-'.join(built.name.split('-')[:2])}.dist-info"}
    code = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "zskt_dist").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == code
    configs = [path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "configs").rglob("*.yaml")]
    sweeps = [f"configs/sweeps/{path.name}" for path in (REPOSITORY / "tune").glob("*.yaml")]
    assert len(sweeps) == 6
    assert {name for name in names if name.endswith(".yaml")} == {f"zskt_dist/{name}" for name in {*configs, *sweeps}}
    assert zipfile.ZipFile(built).getinfo("zskt_dist/data/digits.npz").file_size < 100_000


def test_an_index_page_has_no_dead_links(package: Path) -> None:
    (metadata,) = package.glob("*.dist-info/METADATA")
    page = metadata.read_text(encoding="utf-8").partition("\n\n")[2]
    assert "# zskt_dist" in page
    assert "the tour, from a checkpoint to ONNX" in page, "the text of a link stays"
    links = re.findall(r"\]\(([^)\s]+)\)", page)
    assert "https://arxiv.org/abs/1905.09768" in links
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def test_the_import_is_light(package: Path, core: Path, tmp_path: Path) -> None:
    program = "import sys, zskt_dist; assert 'torch' not in sys.modules; print(zskt_dist.__file__)"
    done = python("-c", program, folder=tmp_path, package=package, core=core)
    assert done.stdout.strip() == str(package / "zskt_dist" / "__init__.py"), done.stderr


def test_training_with_the_core_alone(run: tuple[Path, str]) -> None:
    folder, printed = run
    result = json.loads((folder / "runs/digits/run/result.json").read_text())
    assert (result["status"], result["launcher"], result["iterations"]) == ("finished", "local", 2)
    assert printed.count("MLflow is not installed") == 1
    assert "pip install 'zskt-dist[mlflow]'" in printed
    assert "figures" not in printed
    assert "Traceback" not in printed
    figures = {path.name for path in (folder / "runs/digits/run/figures").iterdir()}
    assert figures == {"pseudo_images_00000002.png"}, "Matplotlib draws the others"


def test_what_else_works_and_what_names_its_extra(run: tuple[Path, str], package: Path, core: Path) -> None:
    """In one process, for torch takes seconds to import."""
    folder, _ = run
    working = ["pretrain " + " ".join([*LOCAL, "seed=3"]), "evaluate runs/digits/run transitions.images=2"]
    commands = [line.split() for line in [*working, *LACKING]]
    program = (
        "import importlib, sys; from zskt_dist.__main__ import module_of\n"
        f"for verb, *words in {commands!r}:\n"
        "    code = importlib.import_module(module_of(verb)).main(words)\n"
        "    print(f'exit code {code}', file=sys.stderr, flush=True)\n" + TRANSFER
    )
    done = python("-c", program, folder=folder, package=package, core=core)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith(("error", "exit code"))]
    expected = ["exit code 0"] * len(working)
    for problem in LACKING.values():
        expected += [f"error: {problem}", "exit code 2"]
    assert lines == expected
    assert done.stdout.splitlines()[-1] == "to_pandas needs pandas: pip install 'zskt-dist[report]'"
