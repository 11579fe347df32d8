"""Sizes, differences and latencies as rows of texts, for the terminal and for the model card."""

from typing import Any

from zskt_dist.export.latency import BATCH_SIZES

Record = dict[str, Any]
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Header and rows."""

_LATENCY = tuple(f"ms, B = {size}" for size in BATCH_SIZES)


def networks_table(record: Record) -> Table:
    """Teacher and student side by side, in PyTorch."""
    rows = []
    for role, network in record["networks"].items():
        size = f"{network['parameters']:,}", amount(network["bytes"])
        rows.append((role, network["arch"], *size, *_latency(network)))
    return ("network", "architecture", "parameters", "weights", *_LATENCY), rows


def files_table(record: Record) -> Table:
    """What has been exported as files."""
    rows = []
    for entry in record["files"].values():
        difference = f"{entry['difference']:.1e} ({entry['difference_large']:.1e})"
        rows.append((entry["file"], amount(entry["bytes"]), difference, *_latency(entry)))
    return ("file", "size", "difference", *_LATENCY), rows


def earlier_files(record: Record) -> list[str]:
    """Of each file that an earlier export has made and measured under other conditions than the record's, these."""
    found = []
    for entry in record["files"].values():
        made = entry.get("made", record)
        told = {
            "tolerance": f"tolerance {made['tolerance']:g}",
            "threads": thread_count(made["threads"]),
            "machine": f"{made['machine']['cores']} cores of {made['machine']['system']}",
        }
        words = [words for key, words in told.items() if made[key] != record[key]]
        words += [f"{name} {v}" for name, v in made["versions"].items() if v != record["versions"].get(name)]
        if words:
            found.append(f"{entry['file']} was exported earlier, with {', '.join(words)}")
    return found


def thread_count(threads: int) -> str:
    return f"{threads} thread{'s' * (threads != 1)}"


def amount(size: int) -> str:
    """Bytes for people."""
    if size < 1024:
        return f"{size} B"
    return f"{size / 2**10:.1f} KiB" if size < 2**20 else f"{size / 2**20:.1f} MiB"


def percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _latency(entry: Record) -> tuple[str, ...]:
    """Empty for weights, which are the network in PyTorch."""
    return tuple(f"{entry['latency_ms'][str(size)]:.2f}" if "latency_ms" in entry else "" for size in BATCH_SIZES)
