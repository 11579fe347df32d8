"""`export`: which run is exported to what, and the answer as tables."""

import os
import platform
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from zskt_dist.errors import ConfigError, UserError
from zskt_dist.export import FORMATS
from zskt_dist.export.card import PICTURE, write_card
from zskt_dist.export.check import BATCH_SIZES, LARGE
from zskt_dist.export.exported_network import NORMALISED, PIXELS, ExportedNetwork, open_network, own_role
from zskt_dist.export.exporter import Exporter
from zskt_dist.export.latency import latency_ms
from zskt_dist.export.packages import check_packages
from zskt_dist.export.register import register
from zskt_dist.export.tables import earlier_files, files_table, networks_table, percent, thread_count
from zskt_dist.extras import installed_version
from zskt_dist.files import read_json, sha256_of, write_json
from zskt_dist.launch.named_code import check_named
from zskt_dist.models import count_parameters
from zskt_dist.page.write import update_page
from zskt_dist.report.folder import refuse_runs
from zskt_dist.runs.directory import check_networks, find_finished
from zskt_dist.runs.locations import local_folder

Record = dict[str, Any]
_RECORD = "export.json"
# Beside the file that bears the name of its format.
_COMPANIONS = {"safetensors": ("config.json",), "card": ("README.md", PICTURE)}
_MEASURED_WITH = ("torch", "onnx", "onnxscript", "onnxruntime", "mlflow")
_CONDITIONS = ("tolerance", "threads", "machine", "versions")


def export_run(
    location: str,
    formats: Collection[str],
    *,
    out: str | None,
    role: str | None,
    tolerance: float,
    normalises: bool,
    model_name: str | None,
    uri: str | None,
    console: Console,
    words: Sequence[str] = (),
) -> Record:
    """Exports the network of a finished run; returns the content of `export.json`.

    What was exported earlier into the same folder stays in `export.json` and the card.

    Args:
        formats: Of `FORMATS`.
        out: Folder; None: `export/` in the run's directory, `export-teacher/` for the teacher of a student's run.
        role: None: the network that the run has trained.
        tolerance: Largest difference of a file's logits from PyTorch's.
        normalises: Programs take pixels in [0, 1] instead of normalised images.
        words: `student.arch=…`, `teacher.arch=…`: what names code of the run's configuration that may be run.

    Raises:
        UserError: no finished run, a package is missing, the folder holds something else or another network, or a
            format has failed; the others are done then.
    """
    if not tolerance >= 0:
        raise UserError(f"--tolerance {tolerance:g}: expected 0 or more, for example 1e-4")
    check_packages(formats)
    chosen = None if out is None else local_folder(out)
    if chosen:
        refuse_runs(chosen)
    directory, result = find_finished(location, "export", single=True)
    check_networks(directory, result)
    if config := directory.read_config():
        check_named(directory.location, config, words)
    exported = open_network(directory, result, role)
    folder = chosen or directory.path / ("export" if exported.role == own_role(result) else f"export-{exported.role}")
    exporter = Exporter(exported, folder, tolerance=tolerance, normalises=normalises)
    before = read_json(folder / _RECORD) or {}
    if "weights_sha256" not in before:
        before = {}
    record = _record(exported, tolerance) | _earlier(exported, folder, before)
    record["written"] = _ours(exporter, formats, before)
    record["networks"] = _networks(exported)
    write_json(folder / _RECORD, record)  # what is written from here on is known to be ours
    failures = list(_export_files(exporter, formats, record))
    if "mlflow" in formats:
        try:
            record["mlflow"] = register(exported, normalises=normalises, name=model_name, uri=uri)
        except UserError as error:
            failures.append(str(error))
    if "card" in formats:
        write_card(exported, record, folder / "README.md")
    record["written"] = [name for name in record["written"] if (folder / name).exists()]
    write_json(folder / _RECORD, record)
    if folder.parent == directory.path:
        update_page(directory)
    directory.mirror.push()
    print_export(record, folder, console)
    if failures:
        raise UserError("; ".join(failures))
    return record


def _export_files(exporter: Exporter, formats: Collection[str], record: Record) -> Iterator[str]:
    """Puts what is written into the record's `files`, in the order of `FORMATS`; yields why others were not."""
    files = record["files"]
    for name in [name for name in exporter.files if name in formats]:
        try:
            files[name] = exporter.export(name)
        except UserError as error:
            files.pop(name, None)
            yield str(error)
    record["files"] = {name: files[name] for name in FORMATS if name in files}


def print_export(record: Record, folder: Path, console: Console) -> None:
    """Networks and files with sizes and latencies, and where everything lies."""
    threads = f"CPU, {thread_count(record['threads'])}"
    for title, (header, rows) in (
        (f"In PyTorch ({threads})", networks_table(record)),
        (f"Files, compared with PyTorch ({threads})", files_table(record)),
    ):
        if not rows:
            continue
        table = Table(title=title, title_justify="left")
        for column in header:
            words = column in ("network", "architecture", "file")
            table.add_column(column, justify="left" if words else "right", no_wrap=column == "file", overflow="fold")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for line in earlier_files(record):
        console.print(line, soft_wrap=True, highlight=False)
    for takes in (NORMALISED, PIXELS):
        if files := [entry["file"] for entry in record["files"].values() if entry["input"] == takes]:
            console.print(f"{takes}: {', '.join(files)}", soft_wrap=True, highlight=False)
    for name, share in record["files"].get("int8", {}).get("agreement", {}).items():
        console.print(f"int8 agrees with PyTorch on {percent(share)} of {name.replace('_', '-')}", highlight=False)
    if model := record.get("mlflow"):
        address = f"models:/{model['name']}/{model['version']} at {model['tracking_uri']}"
        console.print(f"registered  {address}", soft_wrap=True, highlight=False)
    console.print(f"exported    {folder}", soft_wrap=True, highlight=False)


def _record(exported: ExportedNetwork, tolerance: float) -> Record:
    result = exported.result
    return {
        "run": {key: result.get(key) for key in ("experiment", "name", "command", "config_hash", "git_commit")},
        "role": exported.role,
        "arch": exported.arch,
        "weights_sha256": exported.sha256,
        "image_shape": list(exported.image_shape),
        "num_classes": exported.num_classes,
        "mean": exported.mean,
        "std": exported.std,
        "check": {"batch_sizes": BATCH_SIZES, "large": LARGE},
        "tolerance": tolerance,
        "threads": torch.get_num_threads(),
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "versions": {name: found for name in _MEASURED_WITH if (found := installed_version(name))},
    }


def _earlier(exported: ExportedNetwork, folder: Path, before: Record) -> Record:
    """What was exported before into the folder and is still as it was then; `made`: under which conditions.

    Raises:
        UserError: it was another network, and files of both would lie side by side.
    """
    if not before:
        return {"files": {}}
    if before["weights_sha256"] != exported.sha256:
        held = f"the {before['role']} of {before['run']['experiment']}/{before['run']['name']}"
        raise UserError(f"{folder} holds {held} with other weights; choose another folder with --out, or remove it")
    made = {"made": {key: before[key] for key in _CONDITIONS}}
    files = {
        name: made | entry
        for name, entry in before["files"].items()
        if (path := folder / entry["file"]).is_file() and sha256_of(path) == entry["sha256"]
    }
    return {"files": files, **({"mlflow": before["mlflow"]} if "mlflow" in before else {})}


def _ours(exporter: Exporter, formats: Collection[str], before: Record) -> list[str]:
    """Names of the files that exports have written into the folder, and of those that this one will write.

    Raises:
        ConfigError: one of the latter is there and none of the former, so it is somebody else's.
    """
    folder = exporter.folder
    ours = {_RECORD, *before["written"]} if before else set()
    new = {_RECORD, *(exporter.file_name(name) for name in exporter.files if name in formats)}
    new |= {file for name, files in _COMPANIONS.items() if name in formats for file in files}
    if foreign := sorted(name for name in new - ours if (folder / name).exists()):
        problem = f"holds {foreign[0]}, which no export has written; choose another folder"
        raise ConfigError("--out", str(folder), problem)
    return sorted(ours | new)


def _networks(exported: ExportedNetwork) -> dict[str, Record]:
    """Size and latency of the teacher, where there is one beside the student, and of the network itself."""
    networks = {"teacher": exported.teacher, exported.role: exported.network}
    return {
        role: {
            "arch": getattr(exported.config, role).arch,
            "parameters": count_parameters(network),
            "bytes": sum(tensor.nbytes for tensor in network.state_dict().values()),
            "latency_ms": latency_ms(network, exported.image_shape),
        }
        for role, network in networks.items()
        if network is not None
    }
