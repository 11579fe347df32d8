"""A graph of experiments from its file to its report; what is finished is not run again."""

import importlib
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.configs import TINY
from zskt_dist.__main__ import module_of
from zskt_dist.commands import reproduce
from zskt_dist.config import Config, load_config
from zskt_dist.config.graph import Task
from zskt_dist.config.shipped import shipped
from zskt_dist.errors import Interrupted, UserError
from zskt_dist.experiments import graph
from zskt_dist.experiments.seeds import runs_of_seeds
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.tasks.stages import run_directory

FILE = """
title: Tiny
report: runs/report
set: {seeds: [0, 1]}
steps:
  - {command: train, config: tiny.yaml, evaluate: {transitions.images: 4, transitions.steps: 3}}
  - {command: distill, config: tiny.yaml, each: {data.images_per_class: [1, 3]}}
"""
SETTINGS = [*TINY, "iterations=4", "supervised.iterations=6", "teacher.seed=0", "evaluation.noise_images=20"]


def test_a_graph_runs_once_and_ends_in_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text("experiment: tiny\n")
    (tmp_path / "graph.yaml").write_text(FILE)
    started: list[str] = []

    def here(arguments: Sequence[str], done: int, total: int) -> None:
        """In this process: starting one for each command would take a minute."""
        verb, *rest = arguments
        started.append(verb)
        rest = [*rest, "--no-mlflow"] if verb == "report" else rest
        assert importlib.import_module(module_of(verb)).main(rest) == 0

    monkeypatch.setattr(graph, "_run", here)
    assert reproduce.main(["graph.yaml", *SETTINGS, "--dry-run"]) == 0
    assert not (tmp_path / "runs").exists()
    assert reproduce.main(["graph.yaml", *SETTINGS]) == 0
    assert started == ["train", "evaluate", "distill", "distill", "report"]
    report = (tmp_path / "runs/report/report.md").read_text()
    assert report.startswith("# Tiny")
    assert "KD+AT, M = 3" in report
    assert "(n=2)" in report
    assert "student |" in report, "the table of transition errors has rows"
    started.clear()
    assert reproduce.main(["graph.yaml", *SETTINGS]) == 0
    assert started == ["evaluate", "report"]


def test_the_report_gets_the_teachers_that_the_runs_learnt_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every seed; a checkpoint's folder only where a run has made it, and none that does not exist."""
    monkeypatch.chdir(tmp_path)

    def begin(config: Config, teacher: str | None) -> str:
        directory = run_directory(config, "train")
        directory.begin("train", config, teacher)
        return str(directory.path)

    for name in ("runs/teachers/t0", "runs/teachers/t1"):
        RunDirectory(tmp_path / name).finish({"status": "finished"})
    config = load_config(None, ["seeds=[0,1,2]"])
    taught = ["runs/teachers/t0/teacher.safetensors", "runs/teachers/t1/teacher.safetensors", "downloads/t.pt"]
    for (_, single), teacher in zip(runs_of_seeds(config), taught, strict=True):
        begin(single, teacher)
    asked = [str(path) for path in graph._made_by(Task("train", [], config, None))]
    assert asked == [str(run_directory(config, "train").path), "runs/teachers/t0", "runs/teachers/t1"]
    alone = load_config(None, ["teacher.checkpoint=downloads/t.pt"])
    directory = begin(alone, "downloads/t.pt")
    assert [str(path) for path in graph._made_by(Task("train", [], alone, None))] == [directory]
    scratch = load_config(None, ["supervised.network=student"])
    assert len(list(graph._made_by(Task("pretrain", [], scratch, None)))) == 1, "never trained, it has no teacher"


def test_the_help_names_a_graph_that_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        reproduce.main(["--help"])
    (named,) = re.findall(r"shipped graph:\s+(\S+)", capsys.readouterr().out)
    assert named in shipped()


def test_a_failing_command_stops_the_graph() -> None:
    with pytest.raises(UserError, match="train ended with exit code 2"):
        graph._run(["train", "loss.betta=1"], 1, 3)


@pytest.mark.parametrize("code", [-signal.SIGTERM, -signal.SIGINT, 130, 143])
def test_a_command_that_was_stopped_stops_the_graph_gently(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that comes while the command still imports ends it without a word of its own."""
    program = f"import os, signal; os.kill(os.getpid(), {-code})" if code < 0 else f"raise SystemExit({code})"
    if code == -signal.SIGINT:
        program = f"import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); {program}"
    popen = subprocess.Popen
    monkeypatch.setattr(
        graph.subprocess, "Popen", lambda command, **settings: popen([sys.executable, "-c", program], **settings)
    )
    with pytest.raises(Interrupted):
        graph._run(["train"], 1, 3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_for_the_graph_alone_reaches_the_command_once(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = tmp_path / "heard"
    program = f"""
import os, pathlib, signal, sys, time
def hear(number, frame):
    with open({str(heard)!r}, "a") as file: file.write(f"{{number}} {{os.getpid() == os.getsid(0)}}")
    time.sleep(0.5)
    sys.exit(143)
signal.signal({int(number)}, hear)
os.kill(os.getppid(), {int(number)})
time.sleep(60)
"""
    popen = subprocess.Popen
    monkeypatch.setattr(
        graph.subprocess, "Popen", lambda command, **settings: popen([sys.executable, "-c", program], **settings)
    )
    with pytest.raises(Interrupted):
        graph._run(["train"], 1, 3)
    assert heard.read_text() == f"{int(number)} True"


def test_a_report_in_a_store_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "_run", lambda *_: pytest.fail("has begun"))
    (tmp_path / "tiny.yaml").write_text(f"runs_dir: {tmp_path / 'runs'}\n")
    (tmp_path / "graph.yaml").write_text(FILE.replace("runs/report", "s3://bucket/report"))
    assert reproduce.main([str(tmp_path / "graph.yaml")]) == 2
    assert capsys.readouterr().err == "error: report='s3://bucket/report': expected a folder of this machine\n"


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_name_for_different_steps_is_refused(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "_run", lambda *_: pytest.fail("has begun"))
    (tmp_path / "tiny.yaml").write_text(f"runs_dir: {tmp_path / 'runs'}\nexperiment: tiny\n")
    (tmp_path / "graph.yaml").write_text(FILE)
    assert reproduce.main([str(tmp_path / "graph.yaml"), "name=x", *more]) == 2
    run = tmp_path / "runs/tiny/x"
    said = f"error: name='x': different steps would be one run, {run}; name none, or each in its `set`\n"
    assert capsys.readouterr().err == said


def test_a_name_that_stands_for_another_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be taken for finished."""
    monkeypatch.setattr(graph, "_run", lambda *_: pytest.fail("has begun"))
    (tmp_path / "tiny.yaml").write_text(f"runs_dir: {tmp_path / 'runs'}\n")
    (tmp_path / "graph.yaml").write_text(FILE.replace("tiny.yaml, eval", "tiny.yaml, set: {name: x}, eval"))
    config = load_config(tmp_path / "tiny.yaml", ["name=x", "seeds=[0,1]", "iterations=3"])
    directory = run_directory(config, "train")
    directory.begin("train", config, None)
    directory.finish({"status": "finished"})
    assert reproduce.main([str(tmp_path / "graph.yaml")]) == 2
    assert f"{directory.location} holds a run with other settings (iterations)" in capsys.readouterr().err


def test_a_name_for_the_same_step_again_is_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where an override takes the place of what the steps differ in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").touch()
    (tmp_path / "graph.yaml").write_text(FILE.replace("  - {command: train", "  # - {command: train"))
    assert reproduce.main(["graph.yaml", "name=x", "data.images_per_class=2", "--dry-run"]) == 0


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main([str(tmp_path / "none.yaml")]) == 2
    assert "no such file" in capsys.readouterr().err
