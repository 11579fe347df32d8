"""The short table at the end of a command."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_summary(result: dict[str, Any], directory: Path, console: Console) -> None:
    """What was trained, how good it is, how long it took, and where everything lies."""
    teacher, student = result["teacher"], result["student"]
    over = f", mean ± std over {len(result['seeds'])} seeds" if "seeds" in result else ""
    table = Table(title=f"{result['experiment']} / {result['name']}{over}", title_justify="left")
    for column in ("", "network", "parameters", "test accuracy", "agreement"):
        table.add_column(column, justify="left" if column in ("", "network") else "right")
    if teacher:
        table.add_row("teacher", teacher["arch"], f"{teacher['params']:,}", _percent(teacher, "accuracy"), "")
    if student:
        share = f" ({student['params'] / teacher['params']:.0%})" if teacher else ""
        table.add_row(
            "student",
            student["arch"],
            f"{student['params']:,}{share}",
            _percent(student, "accuracy_last"),
            _percent(student, "agreement"),
        )
    console.print(table)
    resumed = f", continued from {result['resumed_from']:,}" if result.get("resumed_from") else ""
    console.print(
        f"{result['iterations']:,} iterations in {result['seconds']:.0f} s "
        f"({result['iterations_per_second']:.2f}/s) by {result['world_size']} worker(s), "
        f"{result['launcher']}, {result['device']}, {result.get('speed', 'plain')}{resumed}",
        soft_wrap=True,
    )
    if result.get("dataset") == "none":
        console.print("no test images: accuracy is not measured")
    if estimates := result.get("estimates"):
        console.print(
            f"without labels: agrees with the teacher on {100 * estimates['held_out_agreement']:.1f} % of held-out "
            f"pseudo-images and {100 * estimates['noise_agreement']:.1f} % of noise (estimates, no test image is seen)",
            soft_wrap=True,
            highlight=False,
        )
    role = "student" if student else "teacher"
    for run in result.get("runs", [directory.name]):
        console.print(f"{role:8} {directory.with_name(run) / f'{role}.safetensors'}", soft_wrap=True)
    console.print(f"result   {directory / 'result.json'}", soft_wrap=True)
    if result["mlflow"]:
        console.print(f"compare  mlflow ui --backend-store-uri {result['mlflow']['tracking_uri']}", soft_wrap=True)


def _percent(entry: dict[str, Any], name: str) -> str:
    """A fraction, over several seeds with its standard deviation."""
    fraction, spread = entry[name], entry.get(f"{name}_std")
    if fraction is None:
        return ""
    return f"{100 * fraction:.2f}" + (f" ± {100 * spread:.2f}" if spread is not None else "") + " %"
