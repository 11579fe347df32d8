"""Settings that are written as options of the command line, and the line that says how to write them."""

import argparse
import subprocess
import sys

import pytest

from zskt_dist import arguments
from zskt_dist.commands import evaluate, train

RIGHT = {
    "--iterations 100": "iterations=100",
    "--iterations=100": "iterations=100",
    "--batch-size 64": "batch_size=64",
    "--batch_size 64 --seed=1": "batch_size=64 seed=1",
    "--loss.beta 0": "loss.beta=0",
    "--student-steps 5": "transfer.student_steps=5",
    "--lr 0.01": "optimizer.student_lr=0.01 or supervised.learning_rate=0.01",
    "--beta 0": "loss.beta=0 or distill.beta=0",
    "--seed -1": "seed=-1",
    "--teacher wrn-40-2": "teacher.arch=wrn-40-2",
    "--download": "data.download=VALUE",
    "--download --fresh": "data.download=VALUE",
}


@pytest.mark.parametrize("written", RIGHT)
@pytest.mark.parametrize("main", [train.main, lambda argv: evaluate.main(["RUN", *argv])], ids=["train", "evaluate"])
def test_a_setting_as_an_option(main: object, written: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(written.split())  # type: ignore[operator]
    assert ended.value.code == 2
    shown = written.removesuffix(" --fresh")
    assert capsys.readouterr().err == f"error: {shown}: settings are written key=value: {RIGHT[written]}\n"


def test_a_value_that_the_shell_would_take_apart_is_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--student.arch", "my nets:Net"])
    assert capsys.readouterr().err.endswith("key=value: student.arch='my nets:Net'\n")


@pytest.mark.parametrize("words", [["iterations", "100"], ["seed=1", "loss.beta", "0"]])
def test_a_setting_without_its_equals_sign(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(words) == 2
    key, value = words[-2:]
    assert capsys.readouterr().err == f"error: {key} {value}: settings are written key=value: {key}={value}\n"


def test_the_file_may_stand_behind_an_equals_sign(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--config=digits", "--print-config", "seed=7"]) == 0
    assert "seed: 7\n" in capsys.readouterr().out


def test_other_options_are_left_to_the_parser(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        train.main(["--nonsense", "3"])
    assert ended.value.code == 2
    assert "unrecognized arguments: --nonsense" in capsys.readouterr().err


def test_an_option_of_the_verb_is_no_setting() -> None:
    """`synthesize --workers 2`, though `launch.workers` is a setting."""
    for words in (["--workers", "2"], ["--workers=2", "--verbose"]):
        parser = argparse.ArgumentParser()
        parser.add_argument("--workers", type=int)
        assert arguments.parse(parser, words).workers == 2


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; from zskt_dist.commands import train\n"
        "try: train.main(['--help'])\n"
        "except SystemExit: print([name for name in ('torch', 'pydantic', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
