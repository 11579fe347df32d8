"""`engine.kind=deepspeed` from the command line, and what a configuration may ask of it."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.support import commands
from tests.support.configs import tiny_config, tiny_overrides
from zskt_dist.engine.building import check_installed, in_bfloat16
from zskt_dist.errors import ConfigError
from zskt_dist.models import WideResNet
from zskt_dist.networks.weights import read_weights
from zskt_dist.runs.checkpoints import CheckpointStore

needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
WORKERS = ("device=cpu", "launch.kind=local", "launch.workers=2", "evaluation.held_out_images=8", "name=run")


def _train(folder: Path, *overrides: str) -> tuple[dict[str, Any], str]:
    code, output = commands.run("train", *tiny_overrides(folder, *WORKERS, *overrides), folder=folder)
    assert code == 0, output
    return commands.read_result(folder, "runs/digits/run/result.json"), output


@needs_deepspeed
@pytest.mark.slow
def test_a_run_changes_its_engine_and_ends_as_with_ddp(tmp_path: Path) -> None:
    """Stopped after the checkpoint of ZeRO-3, it goes on with DDP; the teacher is sharded until then."""
    sharded = ("engine.kind=deepspeed", "engine.zero_stage=3", "engine.teacher=sharded")
    first, output = _train(tmp_path, *sharded)
    assert (first["engine"], first["world_size"], first["teacher"]["params"]) == ("deepspeed", 2, 21_386)
    assert "DeepSpeed" not in output
    assert "deepspeed.runtime" not in output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"], "it leaves nothing in the working directory"

    run = tmp_path / "runs" / "digits" / "run"
    exported = read_weights(run / "student.safetensors", "student")
    saved = CheckpointStore(run / "checkpoints").latest()
    assert saved is not None
    kept = saved.state["engines"]["student"]["network"]
    assert all(torch.equal(kept[f"network.{name}"], value) for name, value in exported.items())

    (run / "result.json").unlink()
    sorted((run / "checkpoints").glob("*.pt"))[-1].unlink()  # goes on from iteration 9
    second, _ = _train(tmp_path, "engine.kind=ddp")
    assert (second["engine"], second["resumed_from"]) == ("ddp", 9)
    for name, value in read_weights(run / "student.safetensors", "student").items():
        torch.testing.assert_close(value, exported[name], rtol=0, atol=1e-5)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zskt_dist.extras.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"engine\.kind='deepspeed': needs DeepSpeed: .*zskt-dist\[deepspeed\]"):
        check_installed(tiny_config(tmp_path, "engine.kind=deepspeed"))
    check_installed(tiny_config(tmp_path))


def test_a_teacher_in_bfloat16_says_nearly_the_same_in_half_the_memory() -> None:
    """Images and logits are float32, and the gradient of the images passes."""
    torch.manual_seed(0)
    teacher = WideResNet(10, 1, in_channels=1, num_classes=5).eval().requires_grad_(False)
    x = torch.randn(4, 1, 8, 8, requires_grad=True)
    expected = teacher(x)
    size = _bytes(teacher)
    logits = in_bfloat16(teacher)(x)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=0, atol=0.05)
    assert not torch.equal(logits, expected)
    logits.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32
    assert _bytes(teacher) < 0.52 * size
    assert {value.dtype for name, value in teacher.named_buffers() if "running" in name} == {torch.float32}


def _bytes(network: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
