"""What becomes of the trials, written down and shown by the driver while Tune runs them."""

from typing import Any

from ray import tune
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from zskt_dist.sweep.space import Trial
from zskt_dist.sweep.states import State, States


class Watch(tune.Callback):
    """Writes down and shows what becomes of the trials, in the driver."""

    def __init__(self, trials: dict[int, Trial], states: States, console: Console) -> None:
        self._trials, self._states, self._console = trials, states, console
        self._bar = Progress(
            TextColumn("trials"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("trials", total=len(trials), note="")
        self._ended: set[int] = set()
        self._left_alone = {number for number, trial in trials.items() if states.ended(trial)}
        """Trials that only report again."""
        self._running: dict[int, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Tune writes its callbacks down, to restore them; nothing here is needed for that."""
        return {}

    def __enter__(self) -> "Watch":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        state = self._state(trial)
        if state.number not in self._left_alone:
            state.state, state.message, state.starts = "running", "", state.starts + 1
            self._states.write()
            self._show(state, "started")

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:
        state = self._state(trial)
        if state.number not in self._left_alone:
            state.iteration = int(result.get("iteration", state.iteration))
            state.score = result.get("label_free_score", state.score)
            if "label_free_score" in result:
                self._show(state, f"{state.iteration}: score {state.score:.4f}", line=False)
        if "state" in result:
            self._end(state, str(result["state"]), str(result.get("message", "")))
        elif result.get("done"):  # the scheduler has decided: Tune sets this before it tells us
            self._end(state, "stopped", f"by the scheduler after {state.iteration} iterations")

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        state = self._state(trial)
        if state.number not in self._left_alone:
            self._show(state, "its process ended unexpectedly; it is started again")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self._end(self._state(trial), "failed", "its process ended unexpectedly; Ray's log tells more")

    def _end(self, state: State, how: str, message: str) -> None:
        if state.number in self._ended:
            return
        self._ended.add(state.number)
        self._bar.update(self._task, advance=1)
        if state.number in self._left_alone:
            return
        state.state, state.message = how, message
        if how == "finished":
            state.evaluated = self._trials[state.number].evaluate
        self._states.write()
        self._running.pop(state.number, None)
        self._show(state, f"{how}{f': {message}' if message else ''}", running=False)

    def _show(self, state: State, what: str, *, running: bool = True, line: bool = True) -> None:
        if running:
            self._running[state.number] = f"#{state.number} {what}"
        self._bar.update(self._task, note="  ".join(self._running.values()))
        if line:
            label = self._trials[state.number].label
            self._console.print(f"trial {state.number}  {label}  {what}", soft_wrap=True, highlight=False)

    def _state(self, trial: Any) -> State:
        return self._states[self._trials[trial.config["trial"]["number"]]]
