"""What has become of each trial, in a file that survives the driver; everything else is in the trials' runs."""

from collections.abc import Sequence

from zskt_dist.files import read_json_list, write_json
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.sweep.space import Trial

_KEPT = ("state", "iteration", "score", "message", "starts", "evaluated")


def read_states(directory: RunDirectory, trials: Sequence[Trial]) -> None:
    """The trials learn what became of them before; one whose finished run is gone begins anew."""
    known = {entry["hash"]: entry for entry in read_json_list(directory.path / "trials.json") or []}
    for trial in trials:
        before = known.get(trial.hash, {})
        if before.get("state") != "finished" or _is_finished(trial.run):
            vars(trial).update({name: before[name] for name in _KEPT if name in before})


def write_states(directory: RunDirectory, trials: Sequence[Trial]) -> None:
    """After every change; a store gets it soon."""
    lines = [
        {"number": trial.number, "hash": trial.hash, "settings": trial.settings, "run": trial.run.path.name}
        | {name: getattr(trial, name) for name in _KEPT}
        for trial in trials
    ]
    write_json(directory.path / "trials.json", lines)
    directory.mirror.push_soon()


def _is_finished(run: RunDirectory) -> bool:
    """True if its directory still says so; a store is asked only for what is not on this machine."""
    if run.finished() is None:
        run.mirror.pull(checkpoints=False)
    return run.finished() is not None
