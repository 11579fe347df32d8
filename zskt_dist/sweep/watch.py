"""What becomes of the trials, written down and shown by the driver while Tune runs them."""

import time
from collections.abc import Sequence
from typing import Any

from ray import tune
from rich.console import Console

from zskt_dist.launch.progress import LINE_SECONDS, new_bar
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.sweep.space import Trial
from zskt_dist.sweep.states import write_states


class Watch(tune.Callback):
    """Writes down and shows what becomes of the trials, in the driver; on a terminal while `bar` is entered."""

    def __init__(self, trials: Sequence[Trial], directory: RunDirectory, console: Console) -> None:
        self._trials, self._directory, self._console = trials, directory, console
        self.bar = new_bar(console)
        self._task = self.bar.add_task("trials", total=sum(not trial.ended for trial in trials), note="")
        self._running: dict[int, str] = {}
        self._shown_at = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        """Tune writes its callbacks down, to restore them; nothing here is needed for that."""
        return {}

    def show_life(self, now: float) -> None:
        """Prints what runs, in a log that has had no line for half a minute; `now` in seconds of `time.monotonic`."""
        if self.bar.disable and now - self._shown_at >= LINE_SECONDS:
            task = self.bar.tasks[self._task]
            running = "  ".join(filter(None, self._running.values())) or "none yet"
            self._print(f"trials {task.completed:.0f}/{task.total:.0f}; running: {running}", now)

    def on_trial_start(self, trial: Any, **_: Any) -> None:
        mine = self._mine(trial)
        mine.state, mine.message, mine.starts = "running", "", mine.starts + 1
        self._tell(mine, "started")

    def on_trial_result(self, trial: Any, result: dict[str, Any], **_: Any) -> None:
        mine = self._mine(trial)
        mine.iteration = int(result.get("iteration", mine.iteration))
        mine.score = result.get("score", mine.score)
        if "state" in result:
            self._end(mine, str(result["state"]), str(result.get("message", "")))
        elif result.get("done"):  # the scheduler has decided: Tune sets this before it calls
            self._end(mine, "stopped", f"by the scheduler after {mine.iteration} iterations")
        elif "score" in result:
            self._note(mine, f"{mine.iteration}: score {mine.score:.4f}")

    def on_trial_recover(self, trial: Any, **_: Any) -> None:
        self._tell(self._mine(trial), "its process ended unexpectedly; it is started again")

    def on_trial_error(self, trial: Any, **_: Any) -> None:
        if self._mine(trial).state != "stopped":  # else it was only leaving
            self._end(self._mine(trial), "failed", "its process ended unexpectedly; Ray's log tells more")

    def _end(self, trial: Trial, state: str, message: str) -> None:
        trial.state, trial.message = state, message
        trial.evaluated = trial.evaluate if state == "finished" else trial.evaluated
        self._tell(trial, ": ".join(filter(None, (state, message))))
        self.bar.update(self._task, advance=1)
        self._note(trial, None)

    def _tell(self, trial: Trial, what: str) -> None:
        write_states(self._directory, self._trials)
        self._note(trial, what)
        self._print(f"trial {trial.number}  {trial.label}  {what}", time.monotonic())

    def _print(self, line: str, now: float) -> None:
        self._shown_at = now
        self._console.print(line, soft_wrap=True, highlight=False)

    def _note(self, trial: Trial, what: str | None) -> None:
        """Beside the bar; None: the trial has ended."""
        self._running[trial.number] = f"#{trial.number} {what}" if what else ""
        self.bar.update(self._task, note="  ".join(filter(None, self._running.values())))

    def _mine(self, trial: Any) -> Trial:
        return self._trials[trial.config["trial"]["number"]]
