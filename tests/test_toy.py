"""`python -m zskt_dist.toy` from its arguments to its figures."""

import json
from pathlib import Path

import pytest
from PIL import Image

from zskt_dist import toy


def test_figures_and_result_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    results = []
    for name in ("a", "b"):
        assert toy.main(["--rounds", "3", "--out", str(tmp_path / name), "--json", str(tmp_path / f"{name}.json")]) == 0
        results.append(json.loads((tmp_path / f"{name}.json").read_text()) | {"seconds": 0})
    assert results[0] == results[1]
    assert 0 < results[0]["student"]["agreement"] < 1
    assert results[0]["teacher"]["accuracy"] > 0.99
    assert (tmp_path / "a/figure1.png").read_bytes() == (tmp_path / "b/figure1.png").read_bytes()
    with Image.open(tmp_path / "a/figure1.gif") as animation:
        assert animation.n_frames == 4


@pytest.mark.parametrize("argument", ["--rounds=0", "--rounds=x", "--seed=-1"])
def test_bad_arguments_end_with_exit_code_2(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        toy.main([argument])
    assert exited.value.code == 2
    assert argument.split("=")[0].strip("-") in capsys.readouterr().err
