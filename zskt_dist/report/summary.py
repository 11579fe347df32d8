"""The short table at the end of a command."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_summary(result: dict[str, Any], directory: Path, console: Console) -> None:
    """What was trained, how good it is, how long it took, and where everything lies."""
    teacher, student = result["teacher"], result["student"]
    table = Table(title=f"{result['experiment']} / {result['name']}", title_justify="left")
    for column in ("", "network", "parameters", "test accuracy", "agreement"):
        table.add_column(column, justify="left" if column in ("", "network") else "right")
    if teacher:
        table.add_row("teacher", teacher["arch"], f"{teacher['params']:,}", _percent(teacher["accuracy"]), "")
    if student:
        share = f" ({student['params'] / teacher['params']:.0%})" if teacher else ""
        table.add_row(
            "student",
            student["arch"],
            f"{student['params']:,}{share}",
            _percent(student["accuracy_last"]),
            _percent(student["agreement"]),
        )
    console.print(table)
    resumed = f", continued from {result['resumed_from']:,}" if result["resumed_from"] else ""
    console.print(
        f"{result['iterations']:,} iterations in {result['seconds']:.0f} s "
        f"({result['iterations_per_second']:.2f}/s) by {result['world_size']} worker(s), "
        f"{result['launcher']}, {result['device']}{resumed}"
    )
    role = "student" if student else "teacher"
    console.print(f"{role:8} {directory / f'{role}.safetensors'}", soft_wrap=True)
    console.print(f"result   {directory / 'result.json'}", soft_wrap=True)
    if result["mlflow"]:
        console.print(f"compare  mlflow ui --backend-store-uri {result['mlflow']['tracking_uri']}", soft_wrap=True)


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f} %"
