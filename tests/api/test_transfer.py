"""`zskt_dist.transfer`: the commands' own loop on the caller's networks, which leaves nothing else behind."""

import copy
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

import zskt_dist
from tests.support.commands import REPOSITORY
from tests.support.configs import tiny_config
from tests.support.transfers import SMALL, assert_equal, state_of, tiny_pair, tiny_transfer
from zskt_dist.api.settings import SETTINGS
from zskt_dist.config.keys import is_under
from zskt_dist.distributed.world import World
from zskt_dist.errors import ConfigError, UserError
from zskt_dist.files import read_json
from zskt_dist.models import ImageShape, LeNet
from zskt_dist.networks.building import new_network
from zskt_dist.networks.weights import read_weights
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.training.job import Job
from zskt_dist.training.worker import Worker


def test_the_student_is_that_of_the_command(tmp_path: Path) -> None:
    """Bit for bit, from the same teacher and the same initial student."""
    config = tiny_config(tmp_path, "evaluation.every=5")
    job = Job.plan("train", config)
    Worker(job, World(torch.device("cpu"))).run()
    directory = job.directory
    shape = ImageShape(1, 8, 8)
    teacher, student = (new_network(config, role, shape, 10) for role in ("teacher", "student"))
    teacher.load_state_dict(read_weights(job.stages[0].directory.weights("teacher"), ""))

    result = zskt_dist.transfer(
        teacher,
        student,
        input_shape=(1, 8, 8),
        iterations=10,
        batch_size=8,
        student_steps=2,
        log_every=2,
        config={"generator": {"channels": [8, 4], "z_dim": 8}, "evaluation": {"every": 5, "held_out_images": 16}},
        progress=False,
        device="cpu",
    )
    assert_equal(state_of(student), read_weights(directory.weights("student"), ""))
    own, theirs = ({row["iteration"]: row for row in rows} for rows in (result.history, _history(directory)))
    assert own.keys() == theirs.keys() == {2, 4, 5, 6, 8, 10}
    assert own[10]["kl"] == theirs[10]["kl"]
    assert result.scores["label_free_score"] == own[10]["label_free_score"] == theirs[10]["label_free_score"]
    told = read_json(directory.estimates)
    assert told["sources"].pop("uniform_noise"), "pixels, of which only the command knows the normalisation"
    assert json.loads(json.dumps(result.estimates)) == told


def _history(directory: RunDirectory) -> list[dict[str, float]]:
    from zskt_dist.tracking.local import read_history

    return read_history(directory.history)


def test_only_the_student_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    teacher, student = tiny_pair()
    teacher.train()
    teacher.conv1.eval()
    next(teacher.parameters()).requires_grad_(False)
    before = state_of(teacher), state_of(student), [p.requires_grad for p in teacher.parameters()]
    modes = [module.training for module in teacher.modules()]
    torch.manual_seed(3)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    for config in ({}, {"engine.activation_checkpointing": True, "speed.folded_teacher": False}):
        result = tiny_transfer(teacher, student, config)
        assert torch.equal(torch.rand(1), drawn), "the caller's random state goes on as if nothing had been"
        torch.manual_seed(3)
    assert_equal(state_of(teacher), before[0])
    assert [p.requires_grad for p in teacher.parameters()] == before[2]
    assert [module.training for module in teacher.modules()] == modes
    assert all(p.grad is None for network in (teacher, student) for p in network.parameters())
    assert not any(vars(m).get("forward") or m._forward_hooks for n in (teacher, student) for m in n.modules())
    assert result.student is student
    assert not any(module.training for module in student.modules())
    assert not torch.equal(student.conv1.weight, before[1]["conv1.weight"])
    assert not torch.equal(student.norm.running_mean, before[1]["norm.running_mean"])
    assert list(tmp_path.iterdir()) == []


def test_compiled_networks_come_home_without_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.nn.Module.compile", lambda *a, **k: None)
    monkeypatch.setattr("zskt_dist.speed.fast_paths.compiler", lambda: "g++")
    teacher, student = tiny_pair()
    tiny_transfer(teacher, student, {"speed.compile": True, "speed.folded_teacher": False})
    assert not any(m._forward_hooks or m._forward_pre_hooks for n in (teacher, student) for m in n.modules())


def test_in_training_mode_from_whatever_mode_it_came() -> None:
    teacher, student = tiny_pair()
    other = copy.deepcopy(student).eval()
    assert tiny_transfer(teacher, student.train()).history[-1]["kl"] == tiny_transfer(teacher, other).history[-1]["kl"]
    with torch.no_grad():
        assert tiny_transfer(teacher, other).iterations == 6


def test_settings_history_and_scores() -> None:
    result = tiny_transfer(*tiny_pair(), {"optimizer.clip_norm": 1.0, "speed.folded_teacher": False}, beta=3, seed=7)
    assert [row["iteration"] for row in result.history] == [2, 4, 6]
    assert {"kl", "attention", "generator_loss", "student_learning_rate"} <= result.history[0].keys()
    assert all(type(value) in (float, int) for row in result.history for value in row.values())
    assert result.scores.keys() == {"label_free_score", "held_out_agreement", "noise_agreement", "held_out_kl"}
    assert 0 <= result.scores["label_free_score"] <= 1
    assert (result.iterations, result.stopped_early, result.num_classes) == (6, False, 3)
    assert result.seconds > 0
    expected = {"loss.beta": 3.0, "seed": 7, "optimizer.clip_norm": 1.0, "transfer.student_steps": 2}
    assert expected.items() <= result.settings.items()
    assert all(is_under(key, SETTINGS) for key in result.settings)
    assert not is_under("teacher.arch", SETTINGS)


def test_a_plain_speed_is_plain() -> None:
    settings = tiny_transfer(*tiny_pair(), speed="plain").settings
    assert settings["speed.channels_last"] is settings["speed.folded_teacher"] is False


def test_nothing_is_judged_where_nothing_is_asked() -> None:
    result = tiny_transfer(*tiny_pair(), {"evaluation.held_out_images": 0})
    assert (result.scores, result.estimates) == ({}, None)


def test_progress_is_told_every_log_every_iterations() -> None:
    told: list[zskt_dist.Progress] = []
    result = tiny_transfer(*tiny_pair(), on_progress=told.append)
    assert [each.iteration for each in told] == [2, 4, 6]
    assert [each.metrics["kl"] for each in told] == [row["kl"] for row in result.history]
    assert told[-1].iterations == 6
    assert 0 < told[0].seconds < told[-1].seconds <= result.seconds
    assert "iteration" not in told[0].metrics


def _stop(_: zskt_dist.Progress) -> object:
    raise StopIteration


def _interrupt(_: zskt_dist.Progress) -> object:
    raise KeyboardInterrupt


@pytest.mark.parametrize("on_progress", [lambda _: False, _stop, _interrupt], ids=["False", "stop", "interrupt"])
def test_ended_early_it_returns_what_is_there(on_progress: Any) -> None:
    teacher, student = tiny_pair()
    whole = copy.deepcopy(student)
    result = tiny_transfer(teacher, student, on_progress=on_progress)
    assert (result.iterations, result.stopped_early) == (2, True)
    assert [row["iteration"] for row in result.history] == [2]
    assert result.scores.keys() >= {"label_free_score", "held_out_kl"}
    assert list(result.estimates["sources"]) == ["generator_00000001", "generator_00000002", "noise"]
    assert not student.training
    assert "stopped early" in repr(result)
    assert tiny_transfer(teacher, whole, on_progress=lambda _: None).history[0]["kl"] == result.history[0]["kl"]


def test_an_error_of_the_callback_is_the_callers() -> None:
    def broken(_: zskt_dist.Progress) -> None:
        raise ZeroDivisionError

    teacher, student = tiny_pair()
    with pytest.raises(ZeroDivisionError):
        tiny_transfer(teacher, student, on_progress=broken)
    assert not student.training


def test_ctrl_c_ends_after_the_iteration_under_way() -> None:
    def press(_: zskt_dist.Progress) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    result = tiny_transfer(*tiny_pair(), on_progress=press)
    assert result.stopped_early
    assert result.iterations in (2, 3)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_in_another_thread() -> None:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(tiny_transfer(*tiny_pair())))
    thread.start()
    thread.join()
    assert results[0].iterations == 6


def test_the_same_call_goes_on_from_its_checkpoints(tmp_path: Path) -> None:
    teacher, student = tiny_pair()
    again, undisturbed = copy.deepcopy(student), copy.deepcopy(student)
    keep = {"checkpoint_dir": tmp_path / "kept"}
    first = tiny_transfer(teacher, student, on_progress=lambda told: told.iteration < 4, **keep)
    assert first.iterations == 4
    second = tiny_transfer(teacher, again, **keep)
    expected = tiny_transfer(teacher, undisturbed)
    assert [row["iteration"] for row in second.history] == [2, 4, 6]
    assert_equal(state_of(again), state_of(undisturbed))
    assert second.scores == expected.scores
    third = tiny_transfer(teacher, tiny_pair()[1], **keep)
    assert third.history == second.history, "a finished one answers at once"
    assert third.estimates == second.estimates
    assert_equal(state_of(third.student), state_of(again))
    assert tiny_transfer(teacher, tiny_pair()[1], seed=5, **keep).history[0]["kl"] != second.history[0]["kl"]
    other = tiny_pair()[0]
    with torch.no_grad():
        other.fc.bias += 1
    assert tiny_transfer(other, tiny_pair()[1], **keep).history[0]["kl"] != second.history[0]["kl"]
    assert len(list((tmp_path / "kept").iterdir())) == 3


def _of_any_size(channels: int) -> nn.Module:
    layers = nn.Conv2d(1, channels, 3), nn.Conv2d(channels, 3, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers)


def test_images_of_another_size_begin_anew(tmp_path: Path) -> None:
    """Even where neither network knows of it, and the generator works at one size for both."""
    torch.manual_seed(1)
    pair = _of_any_size(3), _of_any_size(2)
    first, second, again = (
        tiny_transfer(*copy.deepcopy(pair), input_shape=shape, beta=0, checkpoint_dir=tmp_path)
        for shape in ((1, 8, 8), (1, 7, 7), (1, 7, 7))
    )
    assert second.history[0]["kl"] != first.history[0]["kl"]
    assert again.history == second.history
    assert len(list(tmp_path.iterdir())) == 2


def _with_linear(classes: int = 3, **changes: Any) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, classes))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"iterations": 0}, "iterations=0: expected greater than 0"),
    ({"beta": -1.0}, "loss.beta=-1.0: expected"),
    ({"pseudo_batch": "best"}, "transfer.pseudo_batch='best': expected"),
    ({"speed": "fast"}, "speed='fast': "),
    ({"config": {"loss.betta": 3}}, "loss.betta=3: no such key; did you mean 'loss.beta'?"),
    ({"config": {"loss.beta": 3}, "beta": 3}, "loss.beta=3: is also given as beta=3; leave one of them out"),
    ({"config": {"loss": {"beta": 3}}, "beta": 0}, "loss.beta=3: is also given as beta=0; leave one of them out"),
    ({"config": ["iterations=3"]}, "iterations=3: is also given as iterations=6; leave one of them out"),
    ({"config": ["loss.beta"]}, "'loss.beta': expected dotted.key=value"),
    ({"config": 3}, 'config is of type int; give settings by key, {"loss.beta": 0}, or as texts, ["loss.beta=0"]'),
    ({"config": {"data.image_shape": (1, 4)}, "input_shape": None}, "input_shape=(1, 4): expected (channels, height"),
    ({"config": {"data.name": "digits"}}, "data.name='digits': has no meaning in transfer"),
    ({"config": {"student.arch": "lenet"}}, "student.arch='lenet': has no meaning in transfer"),
    ({"config": {"engine.kind": "deepspeed"}}, "engine.kind='deepspeed': has no meaning in transfer"),
    ({"config": {"loss": 3}}, "loss=3: is a section"),
    ({"config": {"speed": "auto"}, "speed": "plain"}, "speed='auto': is also given as speed='plain'; leave one"),
    ({"input_shape": (32, 32)}, "input_shape=(32, 32): expected (channels, height, width)"),
    ({"input_shape": (3, 4, 4)}, "teacher cannot take images [2, 3, 4, 4] of torch.float32: "),
    ({"student": _with_linear(5)}, "teacher has 3 classes and student 5; give the student 3 outputs"),
    ({"student": nn.Flatten()}, "student has no parameter that takes a gradient"),
    ({"student": nn.Conv2d(1, 3, 1)}, "student returns a tensor [2, 3, 4, 4] where logits are expected"),
    ({"student": _with_linear().requires_grad_(False)}, "student has no parameter that takes a gradient"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_wrong_input_is_one_clear_line(changes: dict[str, Any], message: str) -> None:
    teacher, student = tiny_pair()
    with pytest.raises(UserError) as caught:
        zskt_dist.transfer(**{"teacher": teacher, "student": student} | SMALL | changes)
    assert str(caught.value).startswith(message)
    assert str(caught.value).count("\n") == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="device='cuda': this machine has 0 usable GPUs"):
        tiny_transfer(*tiny_pair(), device="cuda")


def test_the_bar_is_shown_on_terminals_only(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_transfer(*tiny_pair(), progress=True)
    printed = capfd.readouterr()
    assert printed.out.strip() == printed.err.strip() == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    tiny_transfer(*tiny_pair(), progress=True)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "6/6" in printed.err


def test_in_a_process_group_of_one(tmp_path: Path) -> None:
    expected = tiny_transfer(*tiny_pair())
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        result = tiny_transfer(*tiny_pair())
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()
    assert_equal(state_of(result.student), state_of(expected.student))


CORE = """
import torch, zskt_dist
assert not {"pydantic", "yaml", "numpy"} & set(vars(zskt_dist))
teacher, student = (torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)) for _ in range(2))
result = zskt_dist.transfer(teacher, student, input_shape=(1, 4, 4), iterations=2, batch_size=4, beta=0, device="cpu",
    config={"generator.channels": (4, 4)}, checkpoint_dir="kept")
result.save("student.safetensors")
print(result.iterations, zskt_dist.evaluate(student, torch.rand(3, 1, 4, 4), teacher=teacher).images)
"""


@pytest.mark.slow
def test_with_the_core_alone(tmp_path: Path) -> None:
    """torch, numpy, pydantic, PyYAML and safetensors; nothing else can be imported."""
    script = REPOSITORY / "tests" / "support" / "no_extras.py"
    done = subprocess.run(
        [sys.executable, str(script), CORE],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 3\n"
    assert (tmp_path / "student.safetensors").exists()


def test_lenet_with_attention() -> None:
    shape = (1, 12, 12)
    teacher, student = (LeNet(image_size=shape[1:], width=width) for width in (2, 1))
    result = tiny_transfer(teacher, student, input_shape=shape, iterations=2)
    assert result.history[-1]["attention"] > 0
