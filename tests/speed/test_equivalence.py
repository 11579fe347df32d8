"""Every fast path trains as the plain one does: the same parameters, statistics and metrics after some iterations."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.subject import Doubles
from tests.support.configs import tiny_config
from zskt_dist.distributed.world import World
from zskt_dist.models import ImageShape
from zskt_dist.networks.building import new_network
from zskt_dist.speed import PLAIN, FastPaths
from zskt_dist.speed.fast_paths import compiler
from zskt_dist.tasks.transfer import TransferTraining

ITERATIONS, SHAPE = 3, ImageShape(3, 12, 9)
PATHS = {
    "channels last": replace(PLAIN, channels_last=True),
    "folded teacher": replace(PLAIN, folded_teacher=True),
    "low resolution": replace(PLAIN, low_resolution=True),
    "all": FastPaths(True, True, True, False, False, None),
}
COMPILED = FastPaths(True, True, True, True, False, None)

State = dict[str, Tensor]


def _trained(folder: Path, fast_paths: FastPaths, *overrides: str) -> State:
    """Networks with batch norm, in float64: rounding is far below any tolerance that would hide a mistake."""
    networks = ["teacher.arch=wrn-10-2", "student.arch=wrn-10-1"]
    config = tiny_config(folder, *networks, "transfer.generator_steps=2", *overrides)
    torch.set_default_dtype(torch.float64)
    try:
        teacher = new_network(config, "teacher", SHAPE, 5)
        with torch.no_grad():
            teacher(torch.randn(32, *SHAPE, generator=torch.Generator().manual_seed(0)))
        teacher.eval().requires_grad_(False)
        student = new_network(config, "student", SHAPE, 5)
        task = TransferTraining(config, teacher, student, SHAPE, World(torch.device("cpu")), fast_paths=fast_paths)
        metrics = [task.transfer.step(Doubles(task.noise(i))) for i in range(ITERATIONS)]
    finally:
        torch.set_default_dtype(torch.float32)
    state = {f"{name}.{key}": value for name, e in task.engines.items() for key, value in e.raw.state_dict().items()}
    return state | {f"{i} {name}": value for i, values in enumerate(metrics) for name, value in values.items()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, State]:
    folder = tmp_path_factory.mktemp("plain")
    return {mode: _trained(folder, PLAIN, f"transfer.pseudo_batch={mode}") for mode in ("post_update", "pre_update")}


@pytest.mark.parametrize("mode", ["post_update", "pre_update"])
@pytest.mark.parametrize("path", PATHS)
def test_training_is_the_same(tmp_path: Path, plain: dict[str, State], path: str, mode: str) -> None:
    _assert_equal(_trained(tmp_path, PATHS[path], f"transfer.pseudo_batch={mode}"), plain[mode])


def _assert_equal(state: State, expected: State) -> None:
    assert state.keys() == expected.keys()
    for name, value in state.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("mode", ["post_update", "pre_update"])
def test_compiled_training_is_the_same(
    tmp_path: Path, plain: dict[str, State], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs as torch.compile takes them from our networks, and their gradients; its code generator is torch's own."""
    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *a, **k: compile_(*a, **k, backend="aot_eager"))
    _assert_equal(_trained(tmp_path, COMPILED, f"transfer.pseudo_batch={mode}"), plain[mode])


@pytest.mark.slow
@pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
def test_generated_code_trains_the_same(tmp_path: Path) -> None:
    """With the code generator, on networks small enough for it to be quick."""
    small = ("teacher.arch=lenet", "student.arch=lenet", "transfer.generator_steps=1")
    _assert_equal(_trained(tmp_path, COMPILED, *small), _trained(tmp_path, PLAIN, *small))


def test_something_was_learnt(plain: dict[str, State]) -> None:
    """Else all paths would be equal whatever they do."""
    after = plain["post_update"]
    assert after["0 kl"] != after["2 kl"]
    assert after["student.network.bn.running_mean"].abs().max() > 1e-3


def test_bfloat16_is_near(tmp_path: Path) -> None:
    """Eight bits of mantissa: the first iteration's losses are within some percent, weights and losses float32."""
    config = tiny_config(tmp_path, "teacher.arch=wrn-10-2", "student.arch=wrn-10-1", "transfer.student_steps=1")
    teacher = new_network(config, "teacher", SHAPE, 5).eval().requires_grad_(False)
    metrics = []
    for fast_paths in (PLAIN, replace(PLAIN, autocast=torch.bfloat16)):
        student = new_network(config, "student", SHAPE, 5)
        task = TransferTraining(config, teacher, student, SHAPE, World(torch.device("cpu")), fast_paths=fast_paths)
        metrics.append(task.step(0))
        assert all(p.dtype == torch.float32 for e in task.engines.values() for p in e.raw.parameters())
    for name in ("generator_loss", "kl", "teacher_confidence"):
        assert metrics[1][name].dtype == torch.float32
        assert metrics[1][name].item() == pytest.approx(metrics[0][name].item(), rel=0.1)
        assert metrics[1][name] != metrics[0][name]
