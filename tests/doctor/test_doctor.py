"""What `doctor` says when things are missing, broken, unreachable or hang."""

import json
import socket
import sys
import time
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pyarrow import fs

from tests.support.commands import REPOSITORY
from tests.support.object_store import ObjectStore
from zskt_dist import extras
from zskt_dist.doctor import __main__ as doctor
from zskt_dist.doctor import machine, services
from zskt_dist.doctor.check import Check, Outcome
from zskt_dist.doctor.checks import CHECKS
from zskt_dist.doctor.findings import Finding, examine, healthy
from zskt_dist.runs.locations import connect

QUICK = [check for check in CHECKS if check.name in ("python", "cpu", "memory", "disk", "runs_dir")]


@pytest.fixture(autouse=True)
def _no_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ray and DeepSpeed are not really imported, and nobody's cluster is found."""
    monkeypatch.setattr(services, "_import", lambda package: None)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "no_cluster"))


def _finding(name: str, *overrides: str) -> Finding:
    *_, finding = examine(None, overrides, [check for check in CHECKS if check.name == name])
    return finding


def _without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    found = extras.version

    def version(name: str) -> str:
        if name in missing:
            raise PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(extras, "version", version)


def test_a_sound_machine(tmp_path: Path) -> None:
    findings = list(examine(None, [f"runs_dir={tmp_path / 'runs'}"], QUICK))
    assert [finding.name for finding in findings] == ["configuration", *(check.name for check in QUICK)]
    assert {finding.status for finding in findings} <= {"ok", "warning"}
    assert healthy(findings)
    assert not (tmp_path / "runs").exists(), "checking leaves no trace"


def test_a_check_that_raises_or_hangs_leaves_the_others_alone() -> None:
    def broken(_: object) -> Outcome:
        raise OSError("disk on fire\nat once")

    def hanging(_: object) -> Outcome:
        time.sleep(30)
        return Outcome("ok", "late")

    mine = [Check("a", broken, "call for help", True), Check("b", hanging, "wait", seconds=0.1)]
    mine.append(Check("c", lambda _: Outcome("ok", "fine"), ""))
    _, a, b, c = examine(None, (), mine)
    assert (a.status, a.text, a.advice) == ("problem", "OSError: disk on fire", "call for help")
    assert (b.status, b.text, b.advice) == ("problem", "has not answered within 0.1 s", "wait")
    assert (c.status, c.text) == ("ok", "fine")
    assert not healthy([a, b, c])
    assert healthy([b, c]), "b is not essential"


def test_a_wrong_configuration_is_a_problem_and_the_defaults_are_looked_at(tmp_path: Path) -> None:
    first, *others = examine(str(tmp_path / "none.yaml"), (), QUICK)
    assert (first.status, first.essential) == ("problem", True)
    assert "no such file" in first.text
    assert len(others) == len(QUICK)


def test_a_runs_dir_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finding = _finding("runs_dir", f"runs_dir={tmp_path / 'file' / 'runs'}")
    assert (finding.status, finding.essential) == ("problem", True)
    assert "cannot be written: Not a directory" in finding.text
    assert finding.advice


def test_a_store_that_does_not_exist(tmp_path: Path) -> None:
    assert _finding("runs_dir", f"runs_dir=file://{tmp_path}/shared/runs").status == "ok"
    assert not list(tmp_path.iterdir()), "checking leaves no trace"
    (tmp_path / "shared" / "runs").mkdir(parents=True)
    assert _finding("runs_dir", f"runs_dir=file://{tmp_path}/shared/runs").status == "ok"
    assert not list((tmp_path / "shared" / "runs").iterdir())
    finding = _finding("runs_dir", "runs_dir=gopher://nobody/runs")
    assert (finding.status, finding.essential) == ("problem", True)
    assert "gopher" in finding.text


def test_an_object_store_is_left_as_it_was(object_store: ObjectStore) -> None:
    assert _finding("runs_dir", f"runs_dir={object_store.uri('team/runs')}").status == "ok"
    filesystem, bucket = connect(object_store.uri(""))
    assert not filesystem.get_file_info(fs.FileSelector(bucket, recursive=True))


def test_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    _without(monkeypatch, "torch", "ray", "mlflow", "deepspeed")
    packages = _finding("packages")
    assert (packages.status, packages.text, packages.advice) == (
        "problem",
        "not installed: torch",
        "uv pip install torch",
    )
    assert not healthy([packages])
    assert packages.details["ray"] is None
    for name, asking in (("ray", "launch.kind=ray"), ("deepspeed", "engine.kind=deepspeed")):
        assert _finding(name).status == "ok"
        assert healthy([_finding(name)])
        assert _finding(name, asking).status == "problem"
        assert not healthy([_finding(name, asking)])
    assert _finding("mlflow").status == "warning"


def test_packages_that_are_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "requires", lambda _: ["torch>=2.11", "PyYAML>=6", "timm>=1.0; extra == 'x'"])
    versions = {"torch": "2.11.0+cu128", "pyyaml": "6.0.2", "timm": "1.0.0rc1"}
    monkeypatch.setattr(extras, "version", lambda name: versions.get(name.lower(), "9"))
    assert _finding("packages").status == "warning", "timm 1.0.0rc1 comes before 1.0"
    versions["timm"] = "1.0"
    assert _finding("packages").status == "ok"
    versions["torch"] = "2.9.1"
    packages = _finding("packages")
    assert (packages.status, packages.text, packages.advice) == (
        "problem",
        "torch 2.9.1 (needed: >=2.11)",
        "uv pip install 'torch>=2.11'",
    )
    assert not healthy([packages])


def test_what_is_needed_is_what_the_project_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    monkeypatch.setattr(machine, "requires", lambda _: project["dependencies"])
    assert _finding("packages").status == "ok"
    assert machine._unfit({"torch": "2.10", "pyarrow": "19.0.1", "numpy": None}) == {
        "torch": ">=2.11",
        "pyarrow": ">=20",
    }
    assert set(map(canonicalize_name, machine.NEEDED)) == {Requirement(line).name for line in project["dependencies"]}


def test_a_torch_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    finding = _finding("torch")
    assert (finding.status, finding.essential) == ("problem", True)
    assert "pytorch.org" in (finding.advice or "")


def test_a_ray_cluster_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    for address in (f"127.0.0.1:{closed_port}", f"ray://127.0.0.1:{closed_port}"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        finding = _finding("ray")
        assert finding.status == "problem"
        assert address in finding.text
        assert "unset RAY_ADDRESS" in (finding.advice or "")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        assert _finding("ray").status == "ok"


def test_what_ray_start_has_left(monkeypatch: pytest.MonkeyPatch, closed_port: int, tmp_path: Path) -> None:
    """A run passes it over, so that it is no problem."""
    noted = tmp_path / "no_cluster" / "ray" / "ray_current_cluster"
    noted.parent.mkdir(parents=True)
    noted.write_text(f"127.0.0.1:{closed_port}\n")
    finding = _finding("ray", "launch.kind=ray")
    assert finding.status == "warning"
    assert f"the cluster of `ray start`, 127.0.0.1:{closed_port}, does not answer" in finding.text


def test_a_ray_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(services.sys, "executable", "/no/such/python")
    finding = _finding("ray")
    assert finding.status == "problem"
    assert finding.advice == "reinstall ray, or use launch.kind=local"
    assert healthy([finding])
    assert not healthy([_finding("ray", "launch.kind=ray")]), "it is asked for"


def test_mlflow(tmp_path: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "switched off" in _finding("mlflow", "tracking.uri=none").text
    missing = tmp_path / "mlflow.db"
    assert "will be made" in _finding("mlflow", f"tracking.uri=sqlite:///{missing}").text
    assert not missing.exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:hunter2@127.0.0.1:{closed_port}?token=hunter3")
    finding = _finding("mlflow")
    assert finding.status == "problem"
    assert f"http://***@127.0.0.1:{closed_port}?token=*** does not answer" in finding.text
    assert healthy([finding]), "runs go on without it"


def test_nothing_is_made_where_mlflow_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zskt_dist.tracking.mlflow.store.connect", None)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    empty = tmp_path / "mlflow.db"
    empty.touch()
    for uri in (f"file://{tmp_path}/a%20store", f"{tmp_path}/a store", f"sqlite:///{empty}"):
        finding = _finding("mlflow", f"tracking.uri={uri}")
        assert (finding.status, "will be made by the first run" in finding.text) == ("ok", True), finding
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    assert empty.stat().st_size == 0
    assert "can be written" in _finding("mlflow", f"tracking.uri=file://{tmp_path}").text
    assert _finding("mlflow", f"tracking.uri=file://{empty}/store").status == "problem"


def test_a_store_that_mlflow_cannot_use(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no data base" * 100)
    finding = _finding("mlflow", f"tracking.uri=sqlite:///{tmp_path}/mlflow.db")
    assert finding.status == "problem"
    assert "cannot be used" in finding.text


def test_a_container_that_grants_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_granted_cores", lambda: 0.5)
    finding = _finding("cpu")
    assert finding.status == "warning"
    assert (finding.advice or "").startswith("launch.cpus_per_worker=1")


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zskt_dist.speed.fast_paths.compiler", lambda: None)
    assert _finding("compiler").status == "warning"
    assert "a C++ compiler" in _finding("deepspeed").text


def test_little_memory_and_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (machine, services):
        monkeypatch.setattr(module, "LITTLE", 2**60)
    assert [_finding(name).status for name in ("memory", "disk")] == ["warning", "warning"]


def test_a_gpu_that_is_asked_for() -> None:
    import torch

    if torch.cuda.is_available():
        assert _finding("gpu").details["devices"]
    else:
        assert _finding("gpu", "device=cuda").status == "problem"
        assert not healthy([_finding("gpu", "device=cuda")])
        assert healthy([_finding("gpu", "device=cuda", "launch.kind=ray")]), "other machines may have some"
        assert healthy([_finding("gpu")])


def test_fewer_gpus_than_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, answer in (("is_available", True), ("device_count", 1), ("get_device_name", "H100")):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda *_, answer=answer: answer)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (2**30, 2**31))
    assert _finding("gpu", "device=cuda").status == "ok"
    assert _finding("gpu", "device=auto", "launch.workers=4").status == "ok", "they go to the CPU"
    finding = _finding("gpu", "device=cuda", "launch.workers=4")
    assert (finding.status, finding.advice) == ("problem", "device=cpu does without")
    assert "this machine has 1 usable GPUs, none for worker 1" in finding.text
    assert not healthy([finding])


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zskt_dist.doctor.findings.CHECKS", QUICK)
    answer = tmp_path / "answer.json"
    assert doctor.main([f"runs_dir={tmp_path}", "--json", str(answer)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.splitlines()[0].split() == ["ok", "configuration", "the", "defaults"]
    content = json.loads(answer.read_text())
    assert content["works"] is True
    assert [each["name"] for each in content["findings"]] == ["configuration", *(check.name for check in QUICK)]

    (tmp_path / "file").write_text("")
    assert doctor.main([f"runs_dir={tmp_path}/file/runs", "--json", str(answer)]) == 2
    printed = capsys.readouterr()
    assert printed.err == "error: something that a run needs does not work; see the problems above\n"
    assert "\n                        -> make it a folder of yours" in printed.out
    assert json.loads(answer.read_text())["works"] is False
