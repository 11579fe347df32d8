"""`zskt init`: with options alone, with answers at a terminal, and with whatever may be wrong about both."""

import io
import os
import pty
import re
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.support.commands import REPOSITORY, read_result
from zskt_dist.commands import train
from zskt_dist.config import Config, load_config
from zskt_dist.init.__main__ import main
from zskt_dist.models import ImageShape, build_network
from zskt_dist.networks.weights import save_weights

ODD, USERS = "tests.support.odd_networks", "tests.support.user_networks"
NORMALISED = ["--mean", "0.5", "--std", "0.25"]
STATED = ["--image-shape", "1,8,8", *NORMALISED]
TINY = [
    *("iterations=6", "batch_size=8", "inversion.rounds=2", "inversion.warm_up=1", "inversion.images=4"),
    *("inversion.steps=2", "evaluation.yardstick=false", "evaluation.every=3", "tracking.uri=none"),
]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    if "dry_run" not in request.fixturenames:
        monkeypatch.setattr(train, "main", lambda words: 0)


@pytest.fixture
def dry_run() -> None:
    """Has the file's dry run made, which takes longer than all that leads to it."""


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has somebody at the terminal give answers, one for each question."""

    def answer(*lines: str) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        monkeypatch.setattr("sys.stdin", Terminal("".join(f"{line}\n" for line in lines)))

    return answer


def _save(network: nn.Module, name: str = "t.pt") -> str:
    torch.save(network.state_dict(), name)
    return name


def _small(classes: int = 10) -> str:
    """A teacher of 8x8 digits."""
    return _save(build_network("wrn-16-1", ImageShape(1, 8, 8), classes))


def _images(shape: tuple[int, ...], classes: int = 10) -> None:
    """A folder `images` with one test image of each class."""
    for label in range(classes):
        folder = Path("images/test") / str(label)
        folder.mkdir(parents=True)
        pixels = np.random.default_rng(label).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "a.png")


def _written(name: str = "zskt.yaml") -> Config:
    return load_config(name)


@pytest.mark.usefixtures("dry_run")
def test_all_by_options_and_the_file_trains(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wrn-16-1", _small(), *STATED]) == 0
    printed = capsys.readouterr().out
    assert "classes      10, found in t.pt\n" in printed
    assert "wrote zskt.yaml\n" in printed
    assert "ready: configuration, files and resources are in order" in printed
    assert printed.endswith("next: zskt train --config zskt.yaml\n")
    config = _written()
    assert (config.method, config.teacher.arch, config.teacher.checkpoint) == ("inversion", "wrn-16-1", "t.pt")
    assert config.data.name == "none"
    assert (config.data.image_shape, config.data.num_classes) == ((1, 8, 8), 10)
    assert (config.data.mean, config.data.std) == ((0.5,), (0.25,))
    assert config.student.arch == "lenet", "a tenth to a quarter of 174,778 parameters: it has 21,386"
    text = Path("zskt.yaml").read_text()
    assert "  arch: lenet  # 21,386 parameters, 12 % of the teacher's\n" in text
    keys = [line for line in text.splitlines() if not line.startswith("#") and not line.endswith(":")]
    assert [line for line in keys if "#" not in line] == ["  std: [0.25]"], "each key has a comment"
    assert train.main(["--config", "zskt.yaml", *TINY]) == 0
    result = read_result(Path(), "runs/wrn-16-1/*/result.json")
    assert result["student"]["arch"] == "lenet"
    assert result["iterations"] == 6


def test_what_is_missing_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wrn-16-1", _small(), "--mean", "0.5"]) == 2
    assert capsys.readouterr().err == (
        "error: --image-shape and --std must be stated, for example --image-shape 1,28,28 --std 0.25, "
        "or run this at a terminal to be asked\n"
    )
    assert not Path("zskt.yaml").exists()


def test_usual_values_are_taken_with_yes_only(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    weights = _save(build_network("timm:resnet18", ImageShape(3, 224, 224), 10))
    given = ["timm:resnet18", weights, "--image-shape", "3,32,32", "--student", "wrn-10-1"]
    assert main(given) == 2
    usual = "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
    assert f"--mean and --std must be stated, for example {usual}" in (printed := capsys.readouterr().err)
    assert printed.endswith(f"; --yes takes what is usual: {usual}\n")
    assert main([*given, "--yes"]) == 0
    assert _written().data.mean == (0.485, 0.456, 0.406)
    source = "usual for timm:resnet18, which has 1,000 classes where yours has 10"
    assert f"  std: [0.229, 0.224, 0.225]  # {source}\n" in Path("zskt.yaml").read_text()


def test_a_file_of_ours_says_everything(capsys: pytest.CaptureFixture[str]) -> None:
    network = build_network("wrn-16-1", ImageShape(1, 8, 8), 10)
    about = {
        "arch": "wrn-16-1",
        "options": {},
        "image_shape": [1, 8, 8],
        "num_classes": 10,
        "mean": [0.3],
        "std": [0.4],
    }
    save_weights(Path("t.safetensors"), network, about)
    assert main(["wrn-16-1", "t.safetensors"]) == 0
    assert (_written().data.image_shape, _written().data.mean) == ((1, 8, 8), (0.3,))
    assert "mean         0.3, found in t.safetensors\n" in capsys.readouterr().out
    for words, message in (
        (NORMALISED, "was trained with data.mean=[0.3] data.std=[0.4]; use the latter"),
        (["--image-shape", "1,9,9"], "teacher.checkpoint=t.safetensors means [1,8,8]"),
        (["--classes", "9"], "it was trained for 10 classes, and here there are 9"),
    ):
        assert main(["wrn-16-1", "t.safetensors", "--output", "b.yaml", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert not Path("b.yaml").exists()


def test_answers_at_a_terminal(answering: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    answering("", "big", "3,8,8", "8", "255", "0.5", "0", "0.25", "resnet19", "wrn-10-1")
    assert main(["wrn-16-1", _small()]) == 0
    printed = capsys.readouterr().out
    reasons = [
        "'big' is no shape; write channels,height,width, for example 3,32,32",
        "it was trained on images of 1 channels, and here they have 3",
        "'255' is of pixels from 0 to 255; for pixels in [0, 1] it is 1",
        "'0': a standard deviation is larger than 0",
        "resnet19: unknown architecture",
    ]
    flat = " ".join(printed.split())
    places = [flat.index(reason) for reason in reasons]
    assert places == sorted(places)
    assert "│ *       │ lenet    │" in printed
    config = _written()
    assert (config.data.image_shape, config.data.mean, config.data.std) == ((1, 8, 8), (0.5,), (0.25,))
    assert config.student.arch == "wrn-10-1"
    assert config.data.name == "none"


def test_enter_alone_takes_what_is_offered(answering: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchvision")
    weights = _save(build_network("torchvision:resnet18", ImageShape(3, 64, 64), 10))
    answering("", "3,64,64", "", "", "")
    assert main(["torchvision:resnet18", weights]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "Enter alone: 3,224,224, usual for torchvision:resnet18, which has 1,000 classes where yours has 10." in printed
    )
    config = _written()
    assert config.data.image_shape == (3, 64, 64)
    assert config.data.mean == (0.485, 0.456, 0.406)
    assert config.student.arch.startswith("torchvision:")
    assert config.generator == Config().generator, "large images need more than 32 and 16 channels"


def test_another_mean_has_another_deviation(answering: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchvision")
    weights = _save(build_network("torchvision:resnet18", ImageShape(3, 64, 64), 10))
    answering("", "64", "0.5", "", "0.5")
    assert main(["torchvision:resnet18", weights, "--student", "wrn-10-1"]) == 0
    assert "an answer is needed" in capsys.readouterr().out
    assert _written().data.std == (0.5, 0.5, 0.5)


def test_test_images_say_what_images_are(answering: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    _images((8, 8))
    answering("nowhere", "images", "0.5", "0.25", "")
    assert main(["wrn-16-1", _small()]) == 0
    printed = capsys.readouterr().out
    assert "  nowhere: no such folder\n" in printed
    assert "image shape  1,8,8, found in images\n" in printed
    config = _written()
    assert (config.data.name, config.data.root, config.data.image_shape) == ("parquet", "images", (1, 8, 8))


def test_test_images_that_do_not_fit(answering: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    _images((8, 8, 3), classes=3)
    answering("images", "", "8", "0.5", "0.25", "")
    assert main(["wrn-16-1", _small()]) == 0
    flat = " ".join(capsys.readouterr().out.split())
    assert "it was trained on images of 1 channels, and here they have 3" in flat
    assert _written().data.name == "none"
    assert main(["wrn-16-1", "t.pt", *NORMALISED, "--test-images", "images", "--output", "b.yaml"]) == 2
    assert "it was trained on images of 1 channels" in capsys.readouterr().err


def test_a_file_that_is_there_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    Path("zskt.yaml").write_text("mine")
    assert main(["wrn-16-1", _small(), *STATED]) == 2
    assert capsys.readouterr().err == (
        "error: --output='zskt.yaml': exists already, and is kept; "
        "name another file with --output, or have it replaced with --force\n"
    )
    assert Path("zskt.yaml").read_text() == "mine"
    assert main(["wrn-16-1", "t.pt", *STATED, "--output", "new/other.yaml"]) == 0
    assert Path("zskt.yaml").read_text() == "mine"
    assert _written("new/other.yaml").teacher.arch == "wrn-16-1"
    assert main(["wrn-16-1", "t.pt", *STATED, "--force"]) == 0
    assert _written().teacher.arch == "wrn-16-1"


def test_a_file_that_appears_meanwhile_is_kept(
    answering: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = _small()
    ask = input

    def late(prompt: str) -> str:
        Path("zskt.yaml").write_text("of somebody else")
        return ask(prompt)

    answering("", "", "")
    monkeypatch.setattr("builtins.input", late)
    assert main(["wrn-16-1", weights, *STATED]) == 2
    assert "exists already" in capsys.readouterr().err
    assert Path("zskt.yaml").read_text() == "of somebody else"


def test_code_of_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    network = build_network("lenet-2", ImageShape(1, 8, 8), 2)
    save_weights(Path("w.safetensors"), network, {})
    Path("wide_teacher.py").write_text(
        "from zskt_dist.models import LeNet\n"
        "def make(wide=True):\n"
        "    return LeNet(width=2, num_classes=2, image_size=(8, 8))\n"
    )
    given = ["wide_teacher:make", "w.safetensors", "teacher.options.wide=true", "seed=3", *STATED]
    assert main([*given, "--student", "lenet"]) == 0
    printed = capsys.readouterr().out
    assert "classes      2, found in the teacher's answers\n" in printed
    config = _written()
    assert config.teacher.options == {"wide": True}
    assert config.seed == 3
    assert config.method == "belief_matching", "it has no batch norm"
    assert config.loss.beta == 0
    assert config.experiment == "make"


def test_code_that_brings_its_weights(answering: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    save_weights(Path("w.safetensors"), build_network("lenet", ImageShape(1, 8, 8), 7), {})
    given = [f"{USERS}:Brought", "teacher.options.path=w.safetensors", *STATED, "--student", "lenet"]
    assert main(given) == 2
    assert capsys.readouterr().err.startswith("error: --classes must be stated, for example --classes 10, or")
    answering("", "8", "7")
    assert main(given) == 0
    captured = capsys.readouterr()
    assert "size mismatch" in captured.out
    assert _written().teacher.checkpoint == "none"
    assert _written().data.num_classes == 7


def test_a_student_that_is_no_smaller_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert main(["wrn-16-1", _small(), *STATED, "--student", "wrn-16-1"]) == 0
    assert caplog.messages == ["wrn-16-1 has no fewer parameters than the teacher"]
    assert _written().student.arch == "wrn-16-1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["wrn-16-1"], "wrn-16-1 is made without weights; name the file that has them: zskt init wrn-16-1 FILE"),
        (["wrn-16-1", "no.pt", *STATED], "teacher.checkpoint='no.pt': there is no such file"),
        (["wrn-16-1", "t.pt", "u.pt", *STATED], "'u.pt': t.pt is the file of weights already"),
        (["wrn-16-2", "t.pt", *STATED], "does not fit the architecture"),
        (["resnet19", "t.pt", *STATED], "teacher.arch='resnet19': unknown architecture"),
        (["nowhere:Net", "t.pt", *STATED], "there is no module 'nowhere'"),
        ([f"{ODD}:NoGradient", "odd.pt", *STATED], "no gradient reaches the images"),
        ([f"{ODD}:TwoAnswers", "odd.pt", *STATED], "name them: teacher.output=1"),
        ([f"{ODD}:EndsInSigmoid", "odd.pt", *STATED], "a probability of its own for each class"),
        ([f"{ODD}:OneLogit", "one.pt", *STATED], "returns one number for an image"),
        ([f"{ODD}:Usual", *STATED, "--classes", "10"], "draws conv.weight at random, and so is not trained"),
        (
            [f"{ODD}:Usual", "odd.pt", *STATED],
            "is smaller than all students that are tried here; name one with --student",
        ),
        (["wrn-16-1", "t.pt", *STATED, "--student", "lenett"], "student.arch='lenett': unknown architecture"),
        (["wrn-16-1", "t.pt", *STATED, "loss.betta=1"], "loss.betta=1: no such key; did you mean 'loss.beta'?"),
        (["wrn-16-1", "t.pt", *STATED, "data=1"], "data=1: is a section"),
        (["wrn-16-1", "t.pt", "--image-shape", "8"], "--image-shape: '8' is no shape"),
        (["wrn-16-1", "t.pt", "--classes", "one"], "--classes: 'one' is no number of classes"),
        (["wrn-16-1", "t.pt", "--mean", "grey"], "--mean: 'grey' is no list of numbers"),
        (["wrn-16-1", "t.pt", "--image-shape", "1,8,8", "--mean", "0.1,0.2", "--std", "1"], "--mean: '0.1,0.2' has 2"),
        (["wrn-16-1", "t.pt", *STATED, "--output", "t.pt/z.yaml"], "--output='t.pt/z.yaml': cannot be written"),
        (["wrn-16-1", "t.pt", *STATED, "--output", "."], "--output='.': is a folder"),
        (["wrn-16-1", "t.pt", *STATED, "--test-images", "gone"], "data.root='gone': no such folder"),
    ],
)
def test_what_does_not_work_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from tests.support.odd_networks import OneLogit, Usual

    _small()
    _save(Usual(), "odd.pt")
    _save(OneLogit(), "one.pt")
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("**/*.yaml"))


def test_an_output_to_name_is_passed_on() -> None:
    from tests.support.odd_networks import TwoAnswers

    given = [f"{ODD}:TwoAnswers", _save(TwoAnswers()), "teacher.output=1", *STATED, "--student", "wrn-10-1"]
    assert main(given) == 0
    assert _written().teacher.output == "1"


def test_a_file_of_weights_may_look_like_a_setting() -> None:
    _small()
    Path("t.pt").rename("epoch=3-step=10.ckpt")
    Path("seed=3").touch()
    assert main(["wrn-16-1", "epoch=3-step=10.ckpt", *STATED]) == 0
    assert _written().teacher.checkpoint == "epoch=3-step=10.ckpt"


@pytest.mark.usefixtures("dry_run")
def test_a_dry_run_that_fails_leaves_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wrn-16-1", _small(), *STATED, "inversion.seed_images=gone"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: inversion.seed_images=")
    last = captured.out.splitlines()[-1]
    assert (
        last == "zskt.yaml is written all the same; change it, and look again: zskt train --config zskt.yaml --dry-run"
    )
    assert _written().inversion.seed_images == "gone"


def _at_a_terminal(*answers: bytes) -> tuple[int, str]:
    """Exit code and output of a process on a terminal of its own, which is given an answer after each prompt."""
    command = [sys.executable, "-m", "zskt_dist.init", "wrn-16-1", "t.pt"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "TERM": "dumb", "COLUMNS": "100"}
    process, terminal = pty.fork()
    if process == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored in what a shell has put into the background
        os.execve(command[0], command, environment)
    output, ahead = b"", list(answers)
    while select.select([terminal], [], [], 120)[0]:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the process has ended
            break
        output += part
        if ahead and re.search(rb"[\w\]]: $", output):
            os.write(terminal, ahead.pop(0))
            output += b"\n"
    else:
        os.kill(process, signal.SIGKILL)  # it waits for an answer that the test has not got
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), output.decode().replace("\r\n", "\n")


@pytest.mark.slow
def test_a_real_terminal() -> None:
    _small()
    code, output = _at_a_terminal(b"\n", b"8\n", b"0.5\n", b"0.25\n", b"\n")
    assert code == 0, output
    assert _written().data.image_shape == (1, 8, 8)
    Path("zskt.yaml").unlink()
    code, output = _at_a_terminal(b"\n", b"\x03")
    assert (code, output.splitlines()[-1]) == (130, "interrupted; zskt.yaml is not written")
    assert "Traceback" not in output
    assert not Path("zskt.yaml").exists()


def test_an_input_that_ends_is_one_line(answering: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    answering("")
    assert main(["wrn-16-1", _small()]) == 2
    error = "error: the input has ended before this was answered; answer it with --image-shape\n"
    assert capsys.readouterr().err == error
    assert not Path("zskt.yaml").exists()
