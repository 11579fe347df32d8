"""What a sweep has found: tables, figures, the chosen trial, `result.json`, and the record in MLflow."""

from collections import Counter
from collections.abc import Sequence
from shlex import quote
from typing import Any, cast

import pandas as pd
from rich.console import Console
from rich.table import Table

from zskt_dist.report.page import Report
from zskt_dist.report.tables import markdown
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.result import BestTrial, MlflowRun, RankCorrelation, SweepResult
from zskt_dist.sweep.plots import sweep_figures
from zskt_dist.sweep.record import close_parent
from zskt_dist.sweep.selection import pooled_agreement
from zskt_dist.sweep.space import Sweep, Trial
from zskt_dist.sweep.table import best_trial, compares_teachers, means_over_seeds, rank_correlations, trial_row
from zskt_dist.tracking.mlflow.store import RunAddress

_SELECTED = {
    "label_free_score": "without labels, by agreement with the teacher on its yardstick, else on pseudo-images",
    "accuracy": "BY TEST ACCURACY, which a zero-shot setting does not have: its accuracy is no estimate any more",
}
_TEACHERS = (
    "The trials have different teachers: a score tells how well a student imitates its own, so the teacher that is "
    "easiest to imitate has an advantage"
)


def conclude(sweep: Sweep, trials: Sequence[Trial], directory: RunDirectory, parent: RunAddress | None) -> SweepResult:
    """Judges, tabulates, draws, chooses and records what there is; safe to repeat."""
    for trial in trials:
        trial.run.mirror.pull(checkpoints=False)
    finished = {trial.run: found for trial in trials if trial.state == "finished" and (found := trial.run.finished())}
    # The pool is for trials without a yardstick.
    lacking = any("yardstick_agreement" not in (found.get("estimates") or {}) for found in finished.values())
    pooled = pooled_agreement(list(finished), sweep.pool_images, sweep.seed) if sweep.pool_images and lacking else {}
    rows = [trial_row(trial, pooled) for trial in trials]
    table, states = pd.DataFrame(rows), Counter(trial.state for trial in trials)
    ranking, chosen = rank_correlations(table), best_trial(table, sweep.select_by)
    best: dict[str, Any] | None = None
    if chosen is not None:
        names = ("trial", "run", "score", "label_free_score", "accuracy", "agreement", "mte")
        best = {"settings": trials[chosen].settings, **{name: rows[chosen][name] for name in names}}
    result: SweepResult = {
        # Finished once every trial has ended well, so that the same command tries failed ones again.
        "status": "finished" if all(trial.ended for trial in trials) else "partial",
        "command": "sweep",
        "experiment": directory.path.parent.name,
        "name": directory.path.name,
        "sweep": sweep.model_dump(mode="json"),
        "trials": len(trials),
        "finished": states["finished"],
        "stopped": states["stopped"],
        "failed": states["failed"],
        "select_by": sweep.select_by,
        "compares_teachers": compares_teachers(table),
        "best": cast(BestTrial | None, best),
        "rank_correlations": cast(list[RankCorrelation], ranking.to_dict("records")),
        "runs": [trial.run.path.name for trial in trials if trial.state == "finished"],
        "mlflow": cast(MlflowRun, parent._asdict()) if parent else None,
    }
    _write_report(directory, table, list(trials[0].settings), ranking, result)
    directory.finish(result)
    close_parent(parent, trials, rows, result, directory)
    return result


def _write_report(
    directory: RunDirectory, table: pd.DataFrame, keys: list[str], ranking: pd.DataFrame, result: SweepResult
) -> None:
    title = result["sweep"]["title"]
    report = Report(directory.path, title)
    report.text(f"Selected {_SELECTED[result['select_by']]}.")
    if result["compares_teachers"]:
        report.text(f"{_TEACHERS}.")
    if best := result["best"]:
        report.text(f"Best: trial {best['trial']}, run `{best['run']}`: {best['settings']}")
    settings = [key for key in keys if key != "seed"]
    frames = {
        "trials": ("Trials", table.drop(columns=["message", "setting"])),
        "means": ("Means over seeds", means_over_seeds(table, settings) if "seed" in keys else pd.DataFrame()),
        "ranking": ("How label-free scores rank settings (means over seeds), and test accuracy does", ranking),
        "problems": ("Trials that did not finish", table[table["message"] != ""][["trial", "state", "message"]]),
    }
    for name, (heading, frame) in frames.items():
        if not frame.empty:
            report.numbers(name, frame)
            report.text(f"## {heading}", "", markdown(frame.map(_cell)))
    report.text("## Figures")
    for label, figure in sweep_figures(table, settings).items():
        if figure is not None:
            report.figure("sweep", title, label, figure)
    report.write()


def _cell(value: Any, form: str = "") -> str:
    """For people: numbers to four significant digits or as `form` has them, nothing for what is missing."""
    if value is None or value != value:
        return ""
    return format(value, form or ".4g") if isinstance(value, float) else str(value)


def print_sweep(result: SweepResult, directory: RunDirectory, console: Console) -> None:
    """The trials in the order of their score, those that have not finished last, and where everything lies."""
    table = pd.read_csv(directory.path / "tables" / "trials.csv")
    best = result["best"]
    settings = list(best["settings"]) if best else []
    shown = Table(title=f"{result['experiment']} / {result['name']}, {_SELECTED[result['select_by']]}")
    for name in ("trial", *settings, "state", "score", "accuracy", "MTE"):
        shown.add_column(name, justify="left" if name in (*settings, "state") else "right", overflow="fold")
    column = "score" if result["select_by"] == "label_free_score" else "accuracy"
    order = table.assign(done=table["state"] == "finished").sort_values(["done", column], ascending=False)
    for row in order.to_dict("records"):
        cells = ["null" if row[key] != row[key] else str(row[key]) for key in settings]
        numbers = [_cell(row[name], form) for name, form in (("score", ".2%"), ("accuracy", ".2%"), ("mte", ".3f"))]
        style = "bold" if best and row["trial"] == best["trial"] else None
        shown.add_row(str(row["trial"]), *cells, row["state"], *numbers, style=style)
    console.print(shown)
    for correlation in result["rank_correlations"][:1]:
        rho, n = correlation["rank correlation with accuracy"], correlation["n"]
        console.print(f"rank correlation of the score with test accuracy: {rho:.2f} ({n} settings)", highlight=False)
    if result["compares_teachers"]:
        console.print(_TEACHERS, soft_wrap=True, highlight=False)
    if best:
        student = directory.path.with_name(best["run"]) / "student.safetensors"
        console.print(f"student  {student}", soft_wrap=True)
    console.print(f"report   {directory.path / 'report.html'}", soft_wrap=True)
    if result["mlflow"]:
        console.print(
            f"compare  mlflow ui --backend-store-uri {quote(result['mlflow']['tracking_uri'])}", soft_wrap=True
        )
