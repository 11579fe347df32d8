"""What a sweep has found: tables, figures, the chosen trial, `result.json`, and the record in MLflow."""

from collections.abc import Sequence
from typing import Any, cast

import pandas as pd
from rich.console import Console
from rich.table import Table

from zskt_dist.report.page import Report
from zskt_dist.report.tables import markdown
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.locations import absolute
from zskt_dist.runs.result import BestTrial, MlflowRun, RankCorrelation, SweepResult
from zskt_dist.sweep.plots import sweep_figures
from zskt_dist.sweep.record import close_parent
from zskt_dist.sweep.selection import pooled_agreement
from zskt_dist.sweep.space import Sweep, Trial
from zskt_dist.sweep.states import States
from zskt_dist.sweep.table import best_trial, compares_teachers, means_over_seeds, rank_correlations, trial_table
from zskt_dist.tasks.stages import run_directory
from zskt_dist.tracking.mlflow.store import RunAddress

_SELECTED = {
    "label_free_score": "without labels, by agreement with the teacher on held-out pseudo-images, and a little noise",
    "accuracy": "BY TEST ACCURACY, which a zero-shot setting does not have: its accuracy is no estimate any more",
}
_TEACHERS = (
    "The trials have different teachers: a score tells how well a student imitates its own, so the teacher that is "
    "easiest to imitate has an advantage"
)


def conclude(
    sweep: Sweep, trials: Sequence[Trial], states: States, directory: RunDirectory, parent: RunAddress | None
) -> SweepResult:
    """Judges, tabulates, draws, chooses and records what there is; safe to repeat."""
    runs = {trial.hash: RunDirectory(absolute(run_directory(trial.config, "train").location)) for trial in trials}
    for run in runs.values():
        run.mirror.pull(checkpoints=False)
    finished = [runs[state.hash] for state in states if state.state == "finished" and runs[state.hash].finished()]
    pooled = pooled_agreement(finished, sweep.pool_images, sweep.seed) if sweep.pool_images and finished else {}
    table = trial_table(states, runs, pooled)
    keys = list(trials[0].settings)
    chosen = best_trial(table, keys, sweep.select_by)
    result = _result(sweep, states, directory, table, keys, chosen, parent)
    _write_report(sweep, directory, table, keys, result)
    directory.finish(result)
    close_parent(parent, table, runs, result, directory.path, stopped=directory.stop.exists())
    return result


def _result(
    sweep: Sweep,
    states: States,
    directory: RunDirectory,
    table: pd.DataFrame,
    keys: list[str],
    chosen: int | None,
    parent: RunAddress | None,
) -> SweepResult:
    """`result.json`; finished once every trial has ended well, so that the same command tries failed ones again."""
    best: BestTrial | None = None
    if chosen is not None:
        row = table.set_index("trial", drop=False).loc[chosen].to_dict()
        names = ("trial", "run", "score", "label_free_score", "accuracy", "agreement", "mte")
        settings = next(state.settings for state in states if state.number == chosen)
        best = cast(BestTrial, {"settings": settings} | {name: _plain(row[name]) for name in names})
    return {
        "status": "partial" if states.left() else "finished",
        "command": "sweep",
        "experiment": directory.path.parent.name,
        "name": directory.path.name,
        "sweep": sweep.model_dump(mode="json"),
        "trials": len(table),
        "finished": states.count("finished"),
        "stopped": states.count("stopped"),
        "failed": states.count("failed"),
        "select_by": sweep.select_by,
        "compares_teachers": compares_teachers(table),
        "best": best,
        "rank_correlations": cast(list[RankCorrelation], rank_correlations(table, keys).to_dict("records")),
        "runs": [state.run for state in states if state.state == "finished"],
        "mlflow": cast(MlflowRun, parent._asdict()) if parent else None,
    }


def _write_report(
    sweep: Sweep, directory: RunDirectory, table: pd.DataFrame, keys: list[str], result: SweepResult
) -> None:
    report = Report(directory.path, sweep.title)
    report.text(f"Selected {_SELECTED[sweep.select_by]}.")
    if result["compares_teachers"]:
        report.text(f"{_TEACHERS}.")
    if best := result["best"]:
        report.text(f"Best: trial {best['trial']}, run `{best['run']}`: {best['settings']}")
    ranking = rank_correlations(table, keys)
    frames = (
        ("trials", "Trials", table.drop(columns="message")),
        ("means", "Means over seeds", means_over_seeds(table, keys) if "seed" in keys else pd.DataFrame()),
        ("ranking", "How label-free scores rank settings (means over seeds), and test accuracy does", ranking),
        ("problems", "Trials that did not finish", table[table["message"] != ""][["trial", "state", "message"]]),
    )
    for name, heading, frame in frames:
        if not frame.empty:
            report.numbers(name, frame)
            report.text(f"## {heading}", "", markdown(_readable(frame)))
    report.text("## Figures")
    for label, figure in sweep_figures(table, keys).items():
        if figure is not None:
            report.figure("sweep", sweep.title, label, figure)
    report.write()


def _readable(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers to four significant digits, nothing for what is missing."""

    def cell(value: Any) -> str:
        if value is None or value != value:
            return ""
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return frame.map(cell)


def print_sweep(result: SweepResult, directory: RunDirectory, console: Console) -> None:
    """The trials in the order of their score, the chosen one first, and where everything lies."""
    table = pd.read_csv(directory.path / "tables" / "trials.csv")
    column = "score" if result["select_by"] == "label_free_score" else "accuracy"
    settings = list(result["best"]["settings"]) if result["best"] else []
    shown = Table(title=f"{result['experiment']} / {result['name']}, {_SELECTED[result['select_by']]}")
    for name in ("trial", *settings, "state", "score", "accuracy", "MTE"):
        shown.add_column(name, justify="left" if name in (*settings, "state") else "right", overflow="fold")
    for row in table.sort_values(column, ascending=False).to_dict("records"):
        best = result["best"] is not None and row["trial"] == result["best"]["trial"]
        cells = ["null" if row[key] != row[key] else str(row[key]) for key in settings]
        numbers = (_percent(row["score"]), _percent(row["accuracy"]), _number(row["mte"]))
        shown.add_row(str(row["trial"]), *cells, row["state"], *numbers, style="bold" if best else None)
    console.print(shown)
    for correlation in result["rank_correlations"][:1]:
        rho, n = correlation["rank correlation with accuracy"], correlation["n"]
        console.print(f"rank correlation of the score with test accuracy: {rho:.2f} ({n} settings)", highlight=False)
    if result["compares_teachers"]:
        console.print(_TEACHERS, soft_wrap=True, highlight=False)
    if result["best"]:
        best_run = directory.path.with_name(result["best"]["run"])
        console.print(f"student  {best_run / 'student.safetensors'}", soft_wrap=True)
    console.print(f"report   {directory.path / 'report.html'}", soft_wrap=True)
    if result["mlflow"]:
        console.print(f"compare  mlflow ui --backend-store-uri {result['mlflow']['tracking_uri']}", soft_wrap=True)


def _plain(value: Any) -> Any:
    """Python's own types, None for what is missing."""
    if value is None or value != value:
        return None
    return value.item() if hasattr(value, "item") else value


def _percent(value: Any) -> str:
    return "" if value is None or value != value else f"{100 * value:.2f} %"


def _number(value: Any) -> str:
    return "" if value is None or value != value else f"{value:.3f}"
