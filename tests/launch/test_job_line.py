"""The Ray job that `--dry-run` shows writes nothing into the folder that Ray deletes."""

import shlex
from pathlib import Path

import pytest

from zskt_dist.config import load_config
from zskt_dist.launch.job_line import job_submit_line


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _words(*arguments: str) -> list[str]:
    """What stands after the verb."""
    overrides = [each for each in arguments if "=" in each and not each.startswith("--")]
    line = shlex.split(job_submit_line("train", load_config(None, overrides), arguments))
    assert line[:9] == ["ray", "job", "submit", "--working-dir", ".", "--", "python", "-m", "zskt_dist.train"]
    return line[9:]


def test_paths_are_absolute(tmp_path: Path) -> None:
    assert _words("data.name=digits", "launch.kind=local", "loss.attention_layers=[1, 2]") == [
        *("data.name=digits", "loss.attention_layers=[1, 2]", "launch.kind=ray"),
        *(f"runs_dir={tmp_path}/runs", f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"),
    ]
    given = ["data.name=parquet", "data.root=images", "teacher.checkpoint=t.pt", "tracking.uri=none"]
    assert set(_words(*given, "pseudo_data=shards", "loss.beta=0")) == {
        *("data.name=parquet", "tracking.uri=none", "loss.beta=0", "launch.kind=ray"),
        *(f"teacher.checkpoint={tmp_path}/t.pt", f"data.root={tmp_path}/images"),
        *(f"runs_dir={tmp_path}/runs", f"pseudo_data={tmp_path}/shards"),
    }


def test_what_all_nodes_see_stays() -> None:
    words = ["data.name=digits", "runs_dir=s3://bucket/runs", "tracking.uri=http://mlflow:5000"]
    assert _words(*words, "teacher.checkpoint=/shared/t.pt") == [
        *words,
        "teacher.checkpoint=/shared/t.pt",
        "launch.kind=ray",
    ]


@pytest.mark.parametrize("words", [["--json", "a.json"], ["--json=a.json"]])
def test_the_file_of_json_too(words: list[str], tmp_path: Path) -> None:
    shown = _words("data.name=digits", "tracking.uri=none", *words)
    assert "=".join(shown[2:4] if len(words) == 2 else shown[2:3]) == f"--json={tmp_path}/a.json"


def test_no_password_is_shown() -> None:
    assert "tracking.uri=http://***@host" in _words("data.name=digits", "tracking.uri=http://me:secret@host")


def test_the_server_of_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert "tracking.uri=http://mlflow:5000" in _words("data.name=digits"), "a job has another environment"
