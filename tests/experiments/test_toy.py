"""`python -m zskt_dist.toy` from its arguments to its figures."""

import json
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from tests.support.results import check_result
from zskt_dist.algorithms.toy import ToyTransfer, train_teacher
from zskt_dist.commands import toy


@pytest.fixture
def brief_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher of 50 steps: of 1,000 it takes longer than all the rest."""
    monkeypatch.setattr("zskt_dist.experiments.toy.train_teacher", partial(train_teacher, steps=50))


@pytest.mark.usefixtures("brief_teacher")
def test_figures_and_result_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    results = []
    for name in ("a", "b"):
        assert toy.main(["--rounds", "3", "--out", str(tmp_path / name), "--json", str(tmp_path / f"{name}.json")]) == 0
        results.append(json.loads((tmp_path / f"{name}.json").read_text()) | {"seconds": 0})
    assert results[0] == results[1]
    assert 0 < results[0]["student"]["agreement"] < 1
    assert (tmp_path / "a/figure1.png").read_bytes() == (tmp_path / "b/figure1.png").read_bytes()
    with Image.open(tmp_path / "a/figure1.gif") as animation:
        assert animation.n_frames == 4


def test_the_teacher_of_a_run_is_nearly_always_right(tmp_path: Path) -> None:
    assert toy.main(["--rounds", "1", "--out", str(tmp_path), "--json", str(tmp_path / "toy.json")]) == 0
    assert json.loads((tmp_path / "toy.json").read_text())["teacher"]["accuracy"] > 0.99


@pytest.mark.parametrize("argument", ["--rounds=0", "--rounds=x", "--seed=-1", "--seeds=-1"])
def test_bad_arguments_end_with_exit_code_2(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        toy.main([argument])
    assert exited.value.code == 2
    assert argument.split("=")[0].strip("-") in capsys.readouterr().err


@pytest.mark.usefixtures("brief_teacher")
def test_killed_and_repeated_it_ends_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zskt_dist.experiments.toy._CHECKPOINT_ROUNDS", 2)
    arguments = ["--rounds", "6", "--out"]
    assert toy.main([*arguments, str(tmp_path / "whole")]) == 0
    step, done = ToyTransfer.step, []

    def note(transfer: ToyTransfer) -> None:
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(transfer.round)
        step(transfer)

    monkeypatch.setattr(ToyTransfer, "step", note)
    assert toy.main([*arguments, str(tmp_path / "killed")]) == 130
    done.clear()
    assert toy.main([*arguments, str(tmp_path / "killed")]) == 0
    assert done == [4, 5], "the last checkpoint is of round 4"
    whole, killed = (tmp_path / name / "figure1.gif" for name in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()
    results = [
        json.loads((tmp_path / name / "result.json").read_text()) | {"seconds": 0} for name in ("whole", "killed")
    ]
    assert results[0] == results[1]

    before = (tmp_path / "killed/result.json").stat()
    assert toy.main([*arguments, str(tmp_path / "killed")]) == 0
    assert (tmp_path / "killed/result.json").stat() == before, "a finished run answers at once"
    assert len(done) == 2
    assert toy.main(["--rounds", "1", "--out", str(tmp_path / "killed")]) == 0
    assert len(done) == 3, "other settings are another run"


@pytest.mark.usefixtures("brief_teacher")
def test_several_seeds_have_a_mean_and_a_deviation(tmp_path: Path) -> None:
    arguments = ["--rounds", "2", "--out", str(tmp_path), "--json", str(tmp_path / "both.json")]
    assert toy.main([*arguments, "--seeds", "0", "3"]) == 0
    both = json.loads((tmp_path / "both.json").read_text())
    runs = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("seed-0", "seed-3")]
    for result in (both, *runs):
        check_result(result)
    a, b = (run["student"]["agreement"] for run in runs)
    assert both["seeds"] == [0, 3]
    assert both["student"]["agreement"] == pytest.approx((a + b) / 2)
    assert both["student"]["agreement_std"] == pytest.approx(abs(a - b) / 2)
    assert json.loads((tmp_path / "seeds-0-3/result.json").read_text()) == both


@pytest.mark.parametrize("option", ["--out", "--json"])
def test_a_uri_makes_no_folder(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert toy.main(["--rounds", "1", option, "s3://bucket/x"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {option}='s3:/")
    assert "of this machine" in error
    assert not list(tmp_path.iterdir())
