"""Twenty kills at random moments, of a command and all that it has started: in the end all is as without them."""

import json
import random
import time
from pathlib import Path

from tests.support.commands import command, finish, kill_group, wait_for_iteration
from tests.support.configs import tiny_overrides

KILLS, EARLY, ITERATIONS = 20, 4, 3000
TRAIN = (
    "name=run",
    f"iterations={ITERATIONS}",
    "checkpoint.every=25",
    "evaluation.every=1000",
    "launch.workers=1",
    "launch.kind=local",
)
RUN = "runs/digits/run"
COMMANDS = {
    "train": (14, ("train", *TRAIN)),
    "evaluate": (4, ("evaluate", RUN, "transitions.images=4", "transitions.steps=5")),
    "export": (2, ("export", RUN, "--to", "safetensors")),
}
"""How often each is killed, and its words."""


def _words(folder: Path, words: tuple[str, ...]) -> tuple[str, ...]:
    return ("train", *tiny_overrides(folder, *words[1:])) if words[0] == "train" else words


def _made(folder: Path) -> dict[str, bytes]:
    """What there is at the end: networks, and numbers that are measured."""
    files = sorted((folder / "runs").rglob("*.safetensors"))
    answer = json.loads((folder / RUN / "evaluation/evaluation.json").read_text())
    numbers = {key: answer[key] for key in ("accuracy", "agreement", "mte", "calibration")}
    return {str(file.relative_to(folder)): file.read_bytes() for file in files} | {"": json.dumps(numbers).encode()}


def test_random_kills_change_nothing_and_leave_nothing_behind(tmp_path: Path) -> None:
    calm, stormy, seconds = tmp_path / "calm", tmp_path / "stormy", dict[str, float]()
    for folder in (calm, stormy):
        folder.mkdir()
    for phase, (_, words) in COMMANDS.items():
        started = time.monotonic()
        code, output = finish(command(*_words(calm, words), folder=calm))
        assert code == 0, output
        seconds[phase] = time.monotonic() - started
    rng, progress = random.Random(0), stormy / RUN / "progress.json"
    for phase, (kills, words) in COMMANDS.items():
        for number in range(kills):
            process = command(*_words(stormy, words), folder=stormy)
            if phase == "train" and number >= EARLY:  # in each part of the run, so after checkpoints
                part = (number - EARLY + rng.random()) / (kills - EARLY)
                wait_for_iteration(process, progress, "student", int(0.7 * part * ITERATIONS))
            else:
                time.sleep(rng.uniform(0, 0.3) * seconds[phase])
            assert process.poll() is None, "it is killed while it works"
            kill_group(process)
            finish(process)
        code, output = finish(command(*_words(stormy, words), folder=stormy))
        assert code == 0, output
        assert "Traceback" not in output
    assert sum(kills for kills, _ in COMMANDS.values()) == KILLS
    assert _made(stormy) == _made(calm)
    assert not [path for path in stormy.rglob("*") if path.name.endswith(".tmp")]
