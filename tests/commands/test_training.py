import importlib
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zskt_dist import __main__ as entry
from zskt_dist.commands import pretrain, train
from zskt_dist.commands.shared import guarded
from zskt_dist.config import load_config
from zskt_dist.errors import EXIT_INTERRUPTED, ConfigError, Interrupted, UserError


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("command", ["train", "pretrain", "replay"])
def test_help_is_quick(command: str) -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = _run(f"zskt_dist.{command}", "--help")
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0
        assert f"usage: python -m zskt_dist.{command}" in done.stdout
    assert statistics.median(seconds) < 0.5


BAD_INPUT = [
    (["loss.betta=3"], "error: loss.betta=3: no such key; did you mean 'loss.beta'?"),
    (["loss.beta"], "error: 'loss.beta': expected dotted.key=value, for example loss.beta=0"),
    (["iterations=0"], "error: iterations=0: expected greater than 0"),
    (["--config", "/no/such.yaml"], "error: --config /no/such.yaml: no such file"),
    (["seed=1", "--print-config", "loss=3"], "error: loss=3: is a section"),
]


@pytest.mark.parametrize(("arguments", "line"), BAD_INPUT)
@pytest.mark.parametrize("command", [train, pretrain], ids=["train", "pretrain"])
def test_bad_input_is_one_line(
    command: object, arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(line)
    assert printed.err.count("\n") == 1
    assert printed.err.endswith("\n")


def test_bad_input_in_a_real_process() -> None:
    done = _run("zskt_dist.train", "loss.beta=much")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: loss.beta='much': expected a valid number\n"


def test_arguments_in_any_order(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("loss:\n  beta: 3\nseed: 4\n")
    printed = []
    for arguments in (
        ["--config", str(file), "seed=5", "name=x", "--print-config"],
        ["seed=5", "--print-config", "--config", str(file), "name=x"],
        ["--print-config", "seed=5", "name=x", f"--config={file}"],
    ):
        assert train.main(arguments) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] == printed[2]
    assert "beta: 3.0\n" in printed[0]
    assert "\nseed: 5\n" in printed[0]


def test_print_config_loads_back(tmp_path: Path) -> None:
    overrides = ["loss.beta=1e-3", "name=a-1", "generator.channels=[8,4]", "loss.attention_layers=[0,2]"]
    done = _run("zskt_dist.train", *overrides, "--print-config")
    assert (done.returncode, done.stderr) == (0, "")
    path = tmp_path / "printed.yaml"
    path.write_text(done.stdout)
    assert load_config(path) == load_config(None, overrides)
    assert load_config(path).loss.beta == 0.001


def test_the_ranks_of_torchrun_are_the_workers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert train.main(["launch.kind=ray", "launch.workers=2", "--print-config"]) == 0
    path = tmp_path / "printed.yaml"
    path.write_text(capsys.readouterr().out)
    launch = load_config(path).launch
    assert (launch.kind, launch.workers) == ("local", 4)


@pytest.mark.parametrize(("words", "shown"), [([], 1), (["seed=1"], 0), (["--config", "digits"], 0)])
def test_a_command_without_settings_says_what_it_does(
    words: list[str], shown: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("zskt_dist.commands.shared._execute", lambda *_: {})
    assert train.main(words) == 0
    line = "No settings are given, so this is the example on digits; `zskt configs` lists others"
    assert " ".join(capsys.readouterr().out.split()).count(line) == shown


def test_more_ranks_of_torchrun_than_images(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "129")
    assert train.main(["--print-config"]) == 2
    said = "error: batch_size=128: is fewer than one image for each of 129 launch.workers"
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (None, 0, ""),
        (UserError("no room"), 2, "error: no room\n"),
        (ConfigError("a.b", 3, "too few"), 2, "error: a.b=3: too few\n"),
        (Interrupted(7, 9), 143, "stopped at iteration 7 of 9; the same command continues from there\n"),
        (KeyboardInterrupt(), 130, "interrupted; the same command continues from the last checkpoint\n"),
    ],
)
def test_exit_codes(raised: BaseException | None, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> None:
        if raised is not None:
            raise raised

    assert guarded(run) == code
    assert capsys.readouterr().err == said
    assert EXIT_INTERRUPTED == 143


def test_who_starts_over_continues_without_that(capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> None:
        raise Interrupted(1, 3, "shard")

    assert guarded(run, fresh=True) == 143
    said = "stopped at shard 1 of 3; the same command without --fresh continues from there\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("verb", "module", "inner", "arguments"),
    [
        ("train", "shared", "_train", []),
        ("evaluate", "evaluate", "_evaluate", ["run"]),
        ("synthesize", "synthesize", "_synthesize", ["run"]),
        ("toy", "toy", "_toy", []),
    ],
)
@pytest.mark.parametrize("fresh", [False, True])
def test_every_command_that_starts_over_says_so(
    verb: str,
    module: str,
    inner: str,
    arguments: list[str],
    fresh: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopped(*_: object) -> None:
        raise Interrupted(1, 3)

    monkeypatch.setattr(importlib.import_module(f"zskt_dist.commands.{module}"), inner, stopped)
    assert (
        importlib.import_module(f"zskt_dist.commands.{verb}").main([*arguments, *(["--fresh"] if fresh else [])]) == 143
    )
    assert ("the same command without --fresh continues" in capsys.readouterr().err) == fresh


def test_defects_are_not_hidden() -> None:
    """Only errors meant for people become one line."""

    def run() -> None:
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        guarded(run)


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_verbs_are_listed(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["zskt", *arguments])
    assert entry.main() == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: zskt VERB")
    for verb, what in entry.VERBS.items():
        assert any(line.split()[0] == verb and what in line for line in printed.splitlines() if line.startswith("  "))


def test_every_command_line_is_a_verb() -> None:
    """What has a `main`, among the commands or as a room that runs, is what `zskt` reaches."""
    package = Path(entry.__file__).parent
    commands = {path.stem for path in package.glob("commands/[!_]*.py") if "\ndef main(" in path.read_text()}
    commands |= {path.parent.name for path in package.glob("*/__main__.py")}
    assert set(entry.VERBS) == commands


def test_a_verb_gets_its_arguments(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["zskt", "train", "loss.beta=-1"])
    assert entry.main() == 2
    assert capsys.readouterr().err.startswith("error: loss.beta=-1: ")


def test_unknown_verb() -> None:
    done = _run("zskt_dist", "trian")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: no verb 'trian'; did you mean 'train'?\n"


def test_a_verb_like_no_other(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["zskt", "quantize"])
    assert entry.main() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no verb 'quantize'; there are: init, train, ")
    assert error.count("\n") == 1
