"""`toy`: the experiment, its figures and its result, in this process; interrupted, it goes on."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from zskt_dist.algorithms.toy import Snapshot, ToySettings, ToyTransfer, decision_map, toy_data, train_teacher
from zskt_dist.figures.toy import draw_toy
from zskt_dist.files import read_json, write_json
from zskt_dist.runs.checkpoints import CheckpointStore, State
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.several import spread
from zskt_dist.runs.toy_result import ToyResult
from zskt_dist.streams import Purpose, stream

_SNAPSHOTS = 40
_CHECKPOINT_ROUNDS = 50
"""Rounds between checkpoints: seconds with the authors' sizes."""


def run_toy_seeds(
    settings: ToySettings, seeds: Sequence[int], folder: Path, console: Console, *, fresh: bool
) -> ToyResult:
    """Each seed's experiment in `folder/seed-N`; their mean and standard deviation in `folder/seeds-N-…`."""
    runs = [f"seed-{seed}" for seed in seeds]
    results = [
        run_toy(settings, seed, folder / run, console, fresh=fresh) for seed, run in zip(seeds, runs, strict=True)
    ]
    summary: ToyResult = {
        "status": "finished",
        "command": "toy",
        "seeds": list(seeds),
        "runs": runs,
        "settings": asdict(settings),
        "seconds": round(sum(result["seconds"] for result in results), 2),
        "teacher": spread([result["teacher"] for result in results], ("accuracy",)),
        "student": spread([result["student"] for result in results], ("agreement", "agreement_at_start")),
    }
    write_json(folder / f"seeds-{'-'.join(map(str, seeds))}" / "result.json", summary)
    return summary


def run_toy(settings: ToySettings, seed: int, folder: Path, console: Console, *, fresh: bool) -> ToyResult:
    """Runs the experiment, or continues it, and writes `figure1.png`, `figure1.gif` and `result.json` into `folder`.

    What is finished there with the same settings is the answer at once, unless `fresh`.

    Raises:
        UserError: another command is at it.
    """
    with RunDirectory(folder.absolute()).driven():
        identity = {"seed": seed, "settings": asdict(settings)}
        result = read_json(folder / "result.json")
        if not fresh and result and result | identity == result:
            return cast(ToyResult, result)
        if fresh:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return _run(settings, seed, identity, folder, console)


def _run(settings: ToySettings, seed: int, identity: State, folder: Path, console: Console) -> ToyResult:
    started = time.perf_counter()
    torch.set_num_threads(1)  # networks of this size only wait for each other
    torch.manual_seed(int(stream(seed, Purpose.INITIALISATION).integers(2**63)))
    generator = torch.Generator().manual_seed(int(stream(seed, Purpose.NOISE).integers(2**63)))
    x, label = toy_data(generator)
    teacher = train_teacher(x, label)
    accuracy = (teacher(x).argmax(dim=1) == label).double().mean().item()
    transfer = ToyTransfer(teacher, settings, generator)
    store = CheckpointStore(folder / "checkpoints", keep=1)
    snapshots, seconds = _continued(store, identity, transfer) or ([transfer.snapshot()], 0.0)
    # Evenly spaced on a logarithmic scale: most happens early.
    shown = {round(settings.rounds ** (i / (_SNAPSHOTS - 1))) for i in range(_SNAPSHOTS)}
    rounds = range(transfer.round + 1, settings.rounds + 1)
    for number in track(rounds, "toy", console=console, disable=not console.is_terminal):
        transfer.step()
        if number in shown:
            snapshots.append(transfer.snapshot())
        if number % _CHECKPOINT_ROUNDS == 0:
            so_far = seconds + time.perf_counter() - started
            store.save(number, _state(identity, transfer, snapshots, so_far))
    draw_toy(snapshots, decision_map(teacher), (x, label), folder)
    result: ToyResult = {
        "status": "finished",
        "command": "toy",
        "seed": seed,
        "settings": asdict(settings),
        "seconds": round(seconds + time.perf_counter() - started, 2),
        "teacher": {"accuracy": accuracy},
        "student": {"agreement": snapshots[-1].agreement, "agreement_at_start": snapshots[0].agreement},
        "figures": ["figure1.png", "figure1.gif"],
    }
    write_json(folder / "result.json", result)
    shutil.rmtree(store.folder, ignore_errors=True)
    return result


def _state(identity: State, transfer: ToyTransfer, snapshots: Sequence[Snapshot], seconds: float) -> State:
    shown = [(s.round, s.points, s.student_map.to(torch.uint8), s.agreement) for s in snapshots]
    teacher = transfer.teacher.state_dict()
    return {
        "identity": identity,
        "teacher": teacher,
        "transfer": transfer.state_dict(),
        "shown": shown,
        "seconds": seconds,
    }


def _continued(store: CheckpointStore, identity: State, transfer: ToyTransfer) -> tuple[list[Snapshot], float] | None:
    """Snapshots so far and seconds spent, with `transfer` brought there; None where nothing is to be continued."""
    saved = store.latest()
    state = saved.state if saved else {}
    if state.get("identity") != identity or not _equal(state["teacher"], transfer.teacher.state_dict()):
        return None
    transfer.load_state_dict(state["transfer"])
    shown = [Snapshot(number, points, cells.long(), agreement) for number, points, cells, agreement in state["shown"]]
    return shown, state["seconds"]


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """On another machine the teacher may come out another one: then its student starts over too."""
    return all(torch.equal(one[name], value) for name, value in other.items())
