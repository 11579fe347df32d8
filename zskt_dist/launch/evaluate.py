"""`evaluate`: chooses the runs and settings, measures, and prints the answer as a table."""

from typing import Any

from rich.console import Console
from rich.table import Table

from zskt_dist.config import Config, with_overrides
from zskt_dist.errors import ConfigError, UserError
from zskt_dist.evaluation.evaluated_run import EvaluatedRun, teacher_weights
from zskt_dist.files import read_json
from zskt_dist.launch import named_code
from zskt_dist.launch.driver import complete_evaluation, evaluate
from zskt_dist.launch.environment import is_follower
from zskt_dist.launch.mlflow_run import repair_record
from zskt_dist.launch.summary import print_estimates
from zskt_dist.networks.brought import with_digest
from zskt_dist.page.write import update_page
from zskt_dist.runs.directory import RunDirectory, find_finished
from zskt_dist.runs.several import seed_directories, summarise_estimates, summarise_mte, summarise_yardstick
from zskt_dist.tracking.mlflow.store import store_of, withhold_credentials

Result = dict[str, Any]

TEACHER_KEYS = ("teacher.checkpoint=", "teacher.prefix=")
# Keys for how, on which images and where a run is measured; all others belong to the run.
_OWN_KEYS = ("transitions.", "evaluation.", "data.", "launch.", "tracking.", "device=", *TEACHER_KEYS, *named_code.KEYS)


def evaluate_run(location: str, overrides: list[str], *, fresh: bool, console: Console) -> Result:
    """Measures a run, or those of its seeds, and returns its result with the evaluation in it.

    Raises:
        UserError: there is no finished run, a key belongs to the run, or something is missing.
    """
    for override in overrides:
        if not override.startswith(_OWN_KEYS):
            key, _, value = override.partition("=")
            allowed = ", ".join(prefix.rstrip(".=") for prefix in _OWN_KEYS)
            raise ConfigError(key, value, f"belongs to the run that is evaluated; evaluate takes {allowed}")
    directory, result = find_finished(location, "evaluate")
    if result.get("command") == "sweep":
        best = (result["best"] or {}).get("run")
        raise UserError(f"{location} is a sweep; evaluate one of its runs" + (f", the best is {best}" if best else ""))
    runs = seed_directories(directory, result)
    for run in runs[1:] if runs[0] is directory else runs:
        run.mirror.pull(checkpoints=False)
    named = dict(word.partition("=")[::2] for word in overrides).get("tracking.uri")
    for each in (directory, *runs):
        config = each.read_config()
        for store in (config.tracking.uri if config else None, store_of(each.tracking)):
            withhold_credentials(store, named, "tracking.uri=")
    measurements = [EvaluatedRun(run, measured_config(run, overrides)) for run in runs]
    answers = [_evaluate(measurement, fresh, console) for measurement in measurements]
    if is_follower():
        return {}
    own = all(measurement.is_own for measurement in measurements)
    mte = summarise_mte([answer["mte"] for answer in answers]) if "seeds" in result else answers[0]["mte"]
    if "seeds" in result and own:
        found = [run.finished() or {} for run in runs]
        estimates = summarise_estimates([each.get("estimates") for each in found])
        yardstick = summarise_yardstick([each.get("yardstick") for each in found])
        directory.finish(result | {"estimates": estimates, "yardstick": yardstick, "mte": mte})
        update_page(directory)
        if known := read_json(directory.tracking):
            repair_record(directory, known["tracking_uri"])
        directory.mirror.push()
    result = directory.finished() or result
    print_evaluation(
        [(run.path.name, answer) for run, answer in zip(runs, answers, strict=True)], result | {"mte": mte}, console
    )
    if not own:
        folders = ", ".join(str(measurement.folder) for measurement in measurements)
        console.print(f"Other data or another teacher than the run's: result.json keeps its MTE, this is in {folders}")
    return result | {"command": "evaluate", "evaluation": answers[0] if len(answers) == 1 else answers}


def _evaluate(measurement: EvaluatedRun, fresh: bool, console: Console) -> Result:
    answer = None if fresh else measurement.finished()
    if answer is None:
        evaluate(measurement, fresh=fresh, console=console)
        answer = read_json(measurement.folder / "evaluation.json")
    elif not is_follower():
        complete_evaluation(measurement, answer)
    return answer or {}


def measured_config(directory: RunDirectory, overrides: list[str]) -> Config:
    """The run's configuration with the overrides, and with the run's present location.

    Raises:
        UserError: there is none, or it names code that no override names (`named_code`).
    """
    config = directory.read_config()
    if config is None:
        raise UserError(f"{directory.location} holds a result but no config.yaml")
    named_code.check_named(directory.location, config, overrides)
    teacher = config.teacher.model_copy(update={"checkpoint": teacher_weights(directory)})
    config = config.model_copy(update={"teacher": teacher, "seeds": None, "name": None})
    return with_digest(with_overrides(config, overrides))


def print_evaluation(answers: list[tuple[str, Result]], result: Result, console: Console) -> None:
    """One row per run, and the mean transition error with what it depends on."""
    table = Table(title=f"{result['experiment']} / {result['name']}", title_justify="left")
    for column in ("run", "accuracy", "agreement", "ECE", "ECE teacher", "MTE"):
        table.add_column(column, justify="left" if column == "run" else "right", no_wrap=True, overflow="fold")
    for name, answer in answers:
        errors = {who: values["ece"] for who, values in answer["calibration"].items()}
        own = errors.get("student", errors.get("teacher"))
        other = errors.get("teacher") if "student" in errors else None
        mte = answer["mte"]["value"] if answer["mte"] else None
        shares = (_percent(answer["accuracy"]), _percent(answer["agreement"]))
        table.add_row(name, *shares, _number(own), _number(other), _number(mte))
    console.print(table)
    for name, answer in answers:
        if len(answers) > 1 and answer["estimates"]:
            console.print(name, highlight=False)
        print_estimates(answer["estimates"], console)
    if mte := result["mte"]:
        spread = f" ± {mte['value_std']:.3f}" if "value_std" in mte else ""
        console.print(
            f"MTE {mte['value']:.3f}{spread}: K = {mte['steps']}, xi = {mte['step_size']:g}, N = {mte['images']:g}, "
            f"{mte['stepped']} stepped, {mte['skip']} class skipped",
            highlight=False,
        )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
