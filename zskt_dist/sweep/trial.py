"""One trial: a Tune trainable that runs the whole command, and reports each evaluation of it."""

import logging
import math
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune

from zskt_dist import logs
from zskt_dist.config import parse_config
from zskt_dist.errors import Interrupted, UserError, one_line
from zskt_dist.evaluation.held_out import ranked_by
from zskt_dist.files import read_json
from zskt_dist.runs.directory import Differs, RunDirectory
from zskt_dist.runs.locations import absolute
from zskt_dist.tasks.stages import run_directory
from zskt_dist.tracking.base import is_evaluation
from zskt_dist.tracking.local import read_history

_POLL_SECONDS = 0.5
_STOP_SECONDS = 300.0
"""How long a trial that is stopped may take to save; Tune itself waits longer."""
_LOCK_SECONDS = 120.0
"""How long the lock of a process that died with its machine may outlive it, on shared storage."""

log = logging.getLogger(__name__)


class TrialRun(tune.Trainable):
    """Drives one Ray Train run from a thread, so that a trial that is stopped early still saves and leaves in order.

    Its configuration holds plain values: `config` (of the run), `evaluate` (overrides, or None), `sweep` (name of
    its directory), `swept` (the keys that it varies), `folder` (where it was started), `stop` (a file: it ends) and
    `verbose` (as `logs.set_up` takes it).
    """

    def setup(self, config: dict[str, Any]) -> None:
        self.order = order = config["trial"]
        logs.set_up(order["verbose"], who=f"trial {order['number']}")
        if Path(order["folder"]).is_dir():  # else: another machine, where Ray has unpacked the job's own folder
            os.chdir(order["folder"])
        self.run_config = parse_config(order["config"])
        self.directory = RunDirectory(absolute(run_directory(self.run_config, "train").location))
        self.reported = math.inf
        """Iteration of the newest evaluation that the driver knows: first of the history, once that is read."""
        self.leaving = threading.Event()
        self.driving = False
        """True once the run is this trial's to stop: another command may be working on it."""
        self.outcome: dict[str, Any] = {"state": "failed", "message": "ended without an answer"}
        self.thread = threading.Thread(target=self._run, name="trial", daemon=True)
        self.thread.start()

    def step(self) -> dict[str, Any]:
        """The next evaluation of the run, or how the trial ended."""
        while self.thread.is_alive():
            if Path(self.order["stop"]).exists():
                self._ask_to_stop()
            if row := self._evaluation():
                return row
            self.thread.join(timeout=_POLL_SECONDS)
        return self.outcome | {"done": True}

    def cleanup(self) -> None:
        """Also called in mid-run, when Tune stops the trial early."""
        deadline = time.monotonic() + _STOP_SECONDS
        while self.thread.is_alive() and time.monotonic() < deadline:
            self._ask_to_stop()  # again and again: the run forgets requests from before its own start
            self.thread.join(timeout=_POLL_SECONDS)

    def _ask_to_stop(self) -> None:
        self.leaving.set()
        if self.driving and self.directory.path.is_dir():
            self.directory.stop.touch()

    def _evaluation(self) -> dict[str, Any] | None:
        """The newest evaluation that has not been reported, from what the run shows its user."""
        shown = read_json(self.directory.progress)
        if not shown or shown["phase"] != "student" or shown["evaluated"] <= self.reported:
            return None
        self.reported = shown["evaluated"]
        return {**scored(shown["metrics"]), "iteration": self.reported}

    def _run(self) -> None:
        try:
            self.directory.mirror.pull(checkpoints=False)
            rows = read_history(self.directory.history)
            self.reported = max((row["iteration"] for row in rows if is_evaluation(row)), default=0)
            self.outcome = {"state": "finished", **self._train()}
        except Exception as error:
            if not isinstance(error, UserError):
                log.exception("trial failed")
            state = "interrupted" if isinstance(error, Interrupted) else "failed"
            self.outcome = {"state": state, "message": one_line(error)}

    def _wait_for_the_run(self) -> None:
        """Until the process that drove it before, and died, holds it no longer.

        Raises:
            UserError: another command is at it; Interrupted: asked to stop meanwhile.
        """
        deadline = time.monotonic() + _LOCK_SECONDS
        while not self.driving:
            try:
                with self.directory.driven():
                    self.driving = True
            except UserError:
                if time.monotonic() > deadline:
                    raise
                if self.leaving.wait(timeout=_POLL_SECONDS):
                    raise Interrupted(0, 0) from None

    def _train(self) -> dict[str, Any]:
        if Path(self.order["stop"]).exists():
            raise Interrupted(0, 0)
        from rich.console import Console

        from zskt_dist.launch.driver import execute
        from zskt_dist.launch.evaluate import evaluate_run
        from zskt_dist.launch.mlflow_run import adopt
        from zskt_dist.launch.named_code import words_for

        self._wait_for_the_run()
        console, group = Console(quiet=True), self.order["sweep"]
        differs = Differs(swept=tuple(self.order["swept"]))
        result = self.directory.whole()
        if result is None:
            result = execute("train", self.run_config, fresh=False, console=console, group=group, differs=differs)
        else:
            adopt(self.directory, self.directory.sibling(group), differs, self.run_config.tracking.uri)
        if self.order["evaluate"] is not None:
            words = [*self.order["evaluate"], *words_for(self.run_config)]
            evaluate_run(self.directory.location, words, fresh=False, console=console)
        scores = {name: value for name, value in (result["estimates"] or {}).items() if name != "sources"}
        return {"iteration": result["iterations"], **scored(scores)}


def scored(scores: Mapping[str, Any]) -> dict[str, Any]:
    """With `score`, what trials are ranked by without labels."""
    score = ranked_by(scores)
    return {**scores, **({} if score is None else {"score": score})}
