"""Graphs of experiments: shipped ones are whole, all combinations are there, mistakes are told before hours of work."""

from pathlib import Path

import pytest

from tests.config.test_load import GRAPHS
from zskt_dist.config import load_graph
from zskt_dist.errors import UserError
from zskt_dist.tasks.stages import identity


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.name)
def test_shipped_graph_is_whole_and_runs_nothing_twice(path: Path) -> None:
    _, tasks = load_graph(path, [])
    runs = [(task.command, identity(task.command, task.config)) for task in tasks]
    assert len(runs) >= 5
    assert len(set(runs)) == len(runs)


def _write(folder: Path, steps: str) -> Path:
    (folder / "one.yaml").write_text("iterations: 5\n")
    path = folder / "graph.yaml"
    path.write_text(f"title: t\nreport: out\nset: {{seed: 3, loss.beta: 1}}\nsteps:\n{steps}")
    return path


def test_combinations_and_which_setting_wins(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        "  - {command: train, config: one.yaml, set: {loss.beta: 2},"
        " each: {batch_size: [4, 8], loss.temperature: [1, 2]}, evaluate: {transitions.images: 7}}\n"
        "  - {command: distill, config: one.yaml}\n",
    )
    graph, tasks = load_graph(path, ["iterations=9"])
    assert graph.report == "out"
    seen = [(t.config.batch_size, t.config.loss.temperature, t.config.loss.beta, t.config.iterations) for t in tasks]
    assert seen == [(4, 1, 2, 9), (4, 2, 2, 9), (8, 1, 2, 9), (8, 2, 2, 9), (128, 1, 1, 9)]
    assert all(task.config.seed == 3 for task in tasks)
    assert tasks[0].evaluate == ["transitions.images=7"]
    assert tasks[-1].evaluate is None


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ("  - {command: train, config: one.yaml, set: {loss.betta: 1}}\n", "loss.betta"),
        ("  - {command: fly, config: one.yaml}\n", "command"),
        ("  - {command: train, config: none.yaml}\n", "no such file"),
        ("  - {command: train, config: one.yaml, sett: {}}\n", "sett"),
        ("  []\n", "steps"),
    ],
)
def test_mistakes_are_told_at_once(tmp_path: Path, steps: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        load_graph(_write(tmp_path, steps), [])
