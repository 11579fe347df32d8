"""`toy`: the experiment, its figures and its result, in this process."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from zskt_dist.algorithms.toy import ToySettings, decision_map, toy_data, toy_transfer, train_teacher
from zskt_dist.files import write_json
from zskt_dist.report.toy import draw_toy
from zskt_dist.streams import Purpose, stream

_SNAPSHOTS = 40


def run_toy(settings: ToySettings, seed: int, folder: Path, console: Console) -> dict[str, Any]:
    """Runs the experiment and writes `figure1.png`, `figure1.gif` and `result.json` into `folder`."""
    started = time.perf_counter()
    torch.set_num_threads(1)  # networks of this size only wait for each other
    torch.manual_seed(int(stream(seed, Purpose.INITIALISATION).integers(2**63)))
    generator = torch.Generator().manual_seed(int(stream(seed, Purpose.NOISE).integers(2**63)))
    x, label = toy_data(generator)
    teacher = train_teacher(x, label)
    accuracy = (teacher(x).argmax(dim=1) == label).double().mean().item()
    # Evenly spaced on a logarithmic scale: most happens early.
    shown = {round(settings.rounds ** (i / (_SNAPSHOTS - 1))) for i in range(_SNAPSHOTS)}
    snapshots = []
    rounds = toy_transfer(teacher, settings, generator, shown.__contains__)
    for snapshot in track(rounds, "toy", total=len(shown) + 1, console=console, disable=not console.is_terminal):
        snapshots.append(snapshot)
    draw_toy(snapshots, decision_map(teacher), (x, label), folder)
    result = {
        "status": "finished",
        "command": "toy",
        "seed": seed,
        "settings": asdict(settings),
        "seconds": round(time.perf_counter() - started, 2),
        "teacher": {"accuracy": accuracy},
        "student": {"agreement": snapshots[-1].agreement, "agreement_at_start": snapshots[0].agreement},
        "figures": ["figure1.png", "figure1.gif"],
    }
    write_json(folder / "result.json", result)
    return result
