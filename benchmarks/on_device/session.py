"""One call of the suite: its folders, its device, how long it may take, and the answers so far."""

import gc
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import machine
from zskt_dist.errors import UserError
from zskt_dist.files import read_json, write_json

Entry = dict[str, Any]
"""An answer: `status`, and numbers by name."""

REPORT = "accelerator.json"
_LINES = 6


class OutOfTime(Exception):
    """The call is about to be over: the same command with `--resume` goes on."""


class Skipped(Exception):
    """This cannot be done here; the message says why."""


@dataclass
class Session:
    """
    Attributes:
        out: What is handed back.
        work: Run directories and rounded teachers, of this call and of earlier ones.
        data: Parquet shards of CIFAR-10.
        teachers: Where pairs find their teachers.
        settings: Further settings of every run, `dotted.key=value`.
        ends: When the stages have to be over, on the monotonic clock.
        stages: All answers, by stage and name.
    """

    out: Path
    work: Path
    data: Path
    teachers: Path
    settings: tuple[str, ...]
    ends: float
    toy: bool
    recipe: str
    stages: dict[str, dict[str, Entry]] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def left(self) -> float:
        """Seconds."""
        return self.ends - time.monotonic()

    def recall(self, folder: Path) -> None:
        """The answers of an earlier call.

        Raises:
            UserError: the folder has none.
        """
        report = read_json(folder / REPORT)
        if report is None:
            raise UserError(f"--resume={folder}: has no readable {REPORT}; name what an earlier call has left in --out")
        self.stages = report["stages"]

    def save(self) -> None:
        write_json(self.out / REPORT, {"machine": machine(), "toy": self.toy, "stages": self.stages})

    def done(self, stage: str, name: str) -> bool:
        return self.stages.get(stage, {}).get(name, {}).get("status") == "done"

    def answer(self, stage: str, name: str, work: Callable[[], Entry], *, needs: float = 0.0) -> None:
        """Keeps what `work` answers, once over all calls; a failure is an answer too and stops nothing.

        Args:
            needs: Seconds that must be left to begin; minus infinity: it is short, and what it is of would be lost.

        Raises:
            OutOfTime: they are not.
        """
        if self.done(stage, name):
            return
        if self.left() <= (min(0.0, needs) if self.toy else needs):
            raise OutOfTime
        started = time.perf_counter()
        entry: Entry
        try:
            entry = {"status": "done"} | work()
        except OutOfTime:
            raise
        except Skipped as reason:
            entry = {"status": "skipped", "message": str(reason)}
        except Exception as error:
            lines = traceback.format_exc().strip().splitlines()[-_LINES:]
            entry = {"status": "failed", "message": f"{type(error).__name__}: {error}", "traceback": lines}
        _free_memory()
        took = {"wall_seconds": round(time.perf_counter() - started, 2)}
        self.stages.setdefault(stage, {})[name] = entry | took
        self.save()
        print(f"{stage:12} {name:44} {entry['status']:12} {entry.get('message', '')}", flush=True)


def _free_memory() -> None:
    """Of what was measured: a recorded graph that is collected while another one is recorded would spoil that."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
