"""The short table at the end of a command."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from rich.console import Console
from rich.table import Table

from zskt_dist.extras import lacking
from zskt_dist.page.write import NEEDS
from zskt_dist.runs.conclusion import conclusion, next_steps
from zskt_dist.runs.directory import RunDirectory

_SOURCES = {
    "yardstick": "yardstick",
    "held_out": "pseudo-images",
    "noise": "normal noise",
    "uniform_noise": "uniform noise",
}


def print_summary(result: dict[str, Any], directory: Path, console: Console) -> None:
    """Prints what was trained, how good it is, how long it took, and where everything lies."""
    teacher, student = result["teacher"], result["student"]
    several = len(result.get("seeds", [])) > 1
    over = f", mean ± std over {len(result['seeds'])} seeds" if several else ""
    table = Table(title=f"{result['experiment']} / {result['name']}{over}", title_justify="left")
    measured = result.get("dataset") != "none"
    for column in ("", "network", "parameters", *(("test accuracy", "agreement") if measured else ())):
        table.add_column(column, justify="left" if column in ("", "network") else "right")
    if teacher:
        scores = [_percent(teacher, "accuracy", several)] if measured else []
        table.add_row("teacher", teacher["arch"], f"{teacher['params']:,}", *scores)
    if student:
        share = f" ({student['params'] / teacher['params']:.0%})" if teacher else ""
        scores = [_percent(student, name, several) for name in ("accuracy_last", "agreement")] if measured else []
        table.add_row("student", student["arch"], f"{student['params']:,}{share}", *scores)
    console.print(table)
    resumed = f", continued from {result['resumed_from']:,}" if result.get("resumed_from") else ""
    console.print(
        f"{result['iterations']:,} iterations in {result['seconds']:.0f} s "
        f"({result['iterations_per_second']:.2f}/s) by {result['world_size']} worker(s), "
        f"{result['launcher']}, {result['device']}, {result.get('speed', 'plain')}{resumed}",
        soft_wrap=True,
    )
    for sentence in conclusion(result):
        console.print(sentence, soft_wrap=True, highlight=False)
    if not result.get("yardstick"):
        print_estimates((result.get("estimates") or {}).get("sources"), console, several=several)
    for purpose, command in next_steps(result, str(directory)):
        console.print(f"next     {command}   # {purpose}", soft_wrap=True, highlight=False)
    role = "student" if student else "teacher"
    for run in result.get("runs", [directory.name]):
        console.print(f"{role:8} {directory.with_name(run) / f'{role}.safetensors'}", soft_wrap=True)
    console.print(f"result   {directory / 'result.json'}", soft_wrap=True)
    _print_page(RunDirectory(directory).page, console)
    if result["mlflow"]:
        uri = result["mlflow"]["tracking_uri"]
        where = uri if uri.startswith(("http://", "https://")) else f"mlflow ui --backend-store-uri {quote(uri)}"
        console.print(f"compare  {where}", soft_wrap=True)


def _print_page(page: Path, console: Console) -> None:
    """Prints where the page is, or what it takes to have one."""
    missing = lacking(*NEEDS)
    if page.exists():
        console.print(f"page     {page}", soft_wrap=True)
    elif missing:
        console.print(f"page     {missing}", soft_wrap=True, highlight=False, markup=False)


def print_runs(title: str, runs: Sequence[tuple[Mapping[str, str], RunDirectory]], console: Console) -> None:
    """`--dry-run` of several: what there is to say of each run, by column, and how far it is."""
    table = Table(title=title, title_justify="left")
    for column in (*runs[0][0], "run", "state"):
        table.add_column(column, overflow="fold")
    for about, directory in runs:
        directory.mirror.pull(checkpoints=False)
        state = "finished" if directory.finished() else "begun" if directory.path.exists() else "missing"
        table.add_row(*about.values(), directory.path.name, state)
    console.print(table)


def print_estimates(sources: dict[str, dict[str, float]] | None, console: Console, *, several: bool = False) -> None:
    """Prints the label-free estimates, one row for each source of images; prints nothing where there are none.

    Args:
        several: True if the numbers are means over several seeds.
    """
    if not sources:
        return
    table = Table()
    for column in ("estimated on", "images", "agreement %", "chance", "KL", "classes"):
        table.add_column(column, justify="left" if column == "estimated on" else "right", no_wrap=True)
    for name, entry in sources.items():
        names = ("agreement", "agreement_low", "agreement_high", "chance_agreement")
        share, low, high, chance = (100 * entry[each] for each in names)
        within = f"± {100 * entry['agreement_std']:.1f}" if several else f"({low:.1f} to {high:.1f})"
        table.add_row(
            _SOURCES.get(name, name),
            f"{entry['images']:,.0f}",
            f"{share:.1f} {within}",
            f"{chance:.1f}",
            f"{entry['kl_50']:.3g}",
            f"{round(entry['teacher_classes'], 1):g}",
        )
    console.print(table)
    console.print(
        "estimates: agreement with the teacher on images that are not real; they say how alike the two are, not how "
        "right. In brackets: 95 % interval; KL: median, nats; classes: those the teacher predicts (docs/estimates.md)",
        soft_wrap=True,
        highlight=False,
    )


def _percent(entry: dict[str, Any], name: str, several: bool) -> str:
    """A fraction in per cent, with its standard deviation where there are several seeds."""
    fraction, spread = entry[name], entry.get(f"{name}_std") if several else None
    if fraction is None:
        return ""
    return f"{100 * fraction:.2f}" + (f" ± {100 * spread:.2f}" if spread is not None else "") + " %"
