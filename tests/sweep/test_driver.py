"""What a sweep's driver does around Ray Tune, without it: in a store the state is there while trials run."""

import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.support.stores import new_store
from tests.sweep.test_space import ASHA, ONE, _write
from zskt_dist.errors import ConfigError
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.sweep import __main__ as sweep
from zskt_dist.sweep import driver
from zskt_dist.sweep.driver import run_sweep, sweep_directory
from zskt_dist.sweep.space import load_sweep
from zskt_dist.sweep.states import write_states
from zskt_dist.tasks.stages import run_directory


class Lost(Exception):
    """The machine of the driver is gone."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is used as a store, with a cache of this machine beside it."""
    monkeypatch.setenv("ZSKT_CACHE", str(tmp_path / "here"))
    return tmp_path / "shared"


def _arrives(path: Path, text: str) -> bool:
    deadline = time.monotonic() + 20
    while not path.exists() or text not in path.read_text():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_store_has_the_state_of_a_sweep_whose_machine_is_lost(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"runs_dir=file://{store}", f"tracking.uri={new_store(tmp_path)}"]
    one, trials = load_sweep(_write(tmp_path, ONE + "  seed: {grid: [0, 1]}\n"), words)
    there = store / "digits/sweep-one"

    def run(_: Any, __: Any, directory: RunDirectory, *___: Any) -> None:
        assert _arrives(there / "mlflow.json", "run_id")
        trials[0].state = "finished"
        write_states(directory, trials)
        assert _arrives(there / "trials.json", "finished")
        raise Lost

    monkeypatch.setattr(driver, "_run", run)
    with pytest.raises(Lost):
        run_sweep(one, trials, fresh=False, console=Console(quiet=True))
    assert sweep_directory(one, trials).path.is_relative_to(tmp_path / "here")


def test_asha_is_refused_where_it_cannot_see(tmp_path: Path, store: Path) -> None:
    words = ["sweep.grace=2", "evaluation.every=2"]
    asha, _ = load_sweep(_write(tmp_path, ONE + ASHA), words)
    far, near = RunDirectory(f"file://{store}/digits/sweep-one"), RunDirectory(tmp_path / "digits/sweep-one")
    with pytest.raises(ConfigError, match=r"cannot follow trials on 2 machines"):
        driver._check_sight(asha, far, 2)
    driver._check_sight(asha, far, 1)
    driver._check_sight(asha, near, 2)
    driver._check_sight(asha.model_copy(update={"scheduler": "all"}), far, 2)


def test_a_dry_run_knows_what_is_finished_in_the_store(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, word = _write(tmp_path, ONE + "  seed: {grid: [0]}\n"), f"runs_dir=file://{store}"
    _, (trial,) = load_sweep(path, [word])
    directory = run_directory(trial.config, "train")
    directory.begin("train", trial.config, None)
    directory.finish({"status": "finished"})
    directory.mirror.push()
    monkeypatch.setenv("ZSKT_CACHE", str(tmp_path / "elsewhere"))
    assert sweep.main(["--config", str(path), "--dry-run", word]) == 0
    assert "finished" in capsys.readouterr().out


def test_a_dry_run_fails_where_trials_would_be_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path, ONE + "  seed: {grid: [0, 1]}\n")
    assert sweep.main(["--config", str(path), "--dry-run", "teacher.checkpoint=/gone.pt"]) == 2
    printed = capsys.readouterr()
    assert "ready" not in printed.out
    assert printed.err == "error: teacher.checkpoint='/gone.pt': no such file; null trains a teacher first\n"
