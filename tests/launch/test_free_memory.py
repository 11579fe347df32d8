"""Whether a run fits, and what is said where it does not."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.configs import tiny_config
from zskt_dist.config import Config, load_config
from zskt_dist.launch import free_memory as module
from zskt_dist.launch.preflight import print_plan
from zskt_dist.models import ImageShape
from zskt_dist.tasks.memory import Memory

MIB, GIB = 2**20, 2**30


def _formula(config: Config, *_: object) -> Memory:
    """3 MiB of networks, and 8 MiB of activations for an image, or 2 that are recomputed."""
    size = config.engine.micro_batch or config.batch_size
    return Memory(MIB, MIB, MIB, size * (2 if config.engine.activation_checkpointing else 8) * MIB, 0)


def _advice(monkeypatch: pytest.MonkeyPatch, free: int | None, *overrides: str) -> str | None:
    monkeypatch.setattr(module, "free_memory", lambda _: free and free * MIB)
    monkeypatch.setattr(module, "estimate_memory", _formula)
    config = load_config(None, ["batch_size=64", *overrides])
    return module.lack_of_memory(config, ImageShape(3, 32, 32), 10, _formula(config))


def test_the_line_of_the_plan() -> None:
    config = load_config(None)
    line = module.describe_memory(Memory(90 * MIB, 20 * MIB, 30 * MIB, 2 * GIB, GIB), config)
    assert line == (
        "about 2.1 GiB per worker, on top of Python and torch: teacher 90 MiB, student 20 MiB, generator 30 MiB, "
        "activations 2.0 GiB (in the generator step)"
    )
    assert "in the student step" in module.describe_memory(Memory(0, 0, 0, 1, 2), config)
    sharded = load_config(None, ["engine.kind=deepspeed"])
    assert module.describe_memory(Memory(0, 0, 0, 1, 2), sharded).endswith("counted whole, ZeRO shares them out")


def test_what_fits_needs_no_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _advice(monkeypatch, None) is None
    assert _advice(monkeypatch, 8 * 64 + 3) is None


@pytest.mark.parametrize(
    ("free", "overrides", "advice"),
    [
        # recomputing changes no result, so it comes first
        (300, [], "515 MiB per worker, and 300 MiB are free; with engine.activation_checkpointing=true it would be"),
        (100, [], "with engine.micro_batch=8 it would be about 67 MiB"),
        (100, ["engine.activation_checkpointing=true"], "with engine.micro_batch=32 it would be about 67 MiB"),
        (100, ["engine.micro_batch=50"], "with engine.micro_batch=12 it would be about 99 MiB"),
        (10, [], "with engine.activation_checkpointing=true engine.micro_batch=2 it would be about 7 MiB"),
        (4, [], "and 4 MiB are free; no setting"),
        (1, ["engine.micro_batch=1", "engine.activation_checkpointing=true"], "no setting"),
    ],
)
def test_advice(monkeypatch: pytest.MonkeyPatch, free: int, overrides: list[str], advice: str) -> None:
    given = _advice(monkeypatch, free, *overrides)
    assert given is not None
    assert advice in given


def test_an_estimate_that_is_not_in_proportion_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """50 MiB more, whatever the micro-batch: half of 35 images looks as if it fitted, and does not."""
    monkeypatch.setattr(module, "free_memory", lambda _: 200 * MIB)
    monkeypatch.setattr(module, "estimate_memory", lambda config, *_: _and_more(_formula(config)))
    config = load_config(None, ["batch_size=40"])
    lack = module.lack_of_memory(config, ImageShape(3, 32, 32), 10, _and_more(_formula(config)))
    assert lack is not None
    assert "with engine.activation_checkpointing=true it would be about 133 MiB" in lack
    config = load_config(None, ["batch_size=80", "engine.activation_checkpointing=true"])
    monkeypatch.setattr(module, "free_memory", lambda _: 110 * MIB)
    lack = module.lack_of_memory(config, ImageShape(3, 32, 32), 10, _and_more(_formula(config)))
    assert lack is not None
    assert "with engine.micro_batch=20 it would be about 93 MiB" in lack


def _and_more(memory: Memory) -> Memory:
    return replace(memory, generator_step=memory.generator_step + 50 * MIB)


def test_memory_of_this_machine_is_shared_by_its_workers() -> None:
    alone, shared = (
        module.free_memory(load_config(None, ["device=cpu", f"launch.workers={count}"])) for count in (1, 2)
    )
    assert alone is not None
    assert shared is not None
    assert shared == pytest.approx(alone / 2, rel=0.5)


def test_of_a_cluster_elsewhere_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://elsewhere:10001")
    assert module.free_memory(load_config(None, ["launch.kind=ray"])) is None


def _plan(folder: Path, command: str, *overrides: str) -> str:
    console = Console(width=300, record=True)
    print_plan(command, tiny_config(folder, *overrides), [], console)
    return console.export_text()


def test_the_dry_run_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.search(
        r"memory +│ about \d+ MiB per worker, on top of Python and torch: teacher", _plan(tmp_path, "train")
    )
    assert "per worker" not in _plan(tmp_path, "pretrain")
    monkeypatch.setattr(module, "free_memory", lambda _: MIB)
    shown = _plan(tmp_path, "train", "batch_size=512")
    assert re.search(r"memory: about \d+ MiB per worker, and 1 MiB are free", shown)
    assert "ready: configuration" in shown  # a warning: the estimate is none of the process
