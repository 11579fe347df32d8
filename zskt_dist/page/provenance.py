"""What a run was made from, and by which commands."""

import shlex
from pathlib import Path

from zskt_dist.files import read_bytes
from zskt_dist.page.facts import Facts
from zskt_dist.page.parts import Code, Part, table
from zskt_dist.runs.locations import join

_LONGEST = 100_000
"""Most letters of a configuration that are shown."""


def settings(facts: Facts) -> list[Part]:
    """The whole configuration, folded away."""
    content = (read_bytes(facts.directory.config) or b"").decode(errors="replace")
    if not content:
        return []
    rest = "" if len(content) <= _LONGEST else "\n… the rest is in config.yaml"
    return [Code(content[:_LONGEST] + rest, "config.yaml")]


def provenance(facts: Facts) -> list[Part]:
    """Hashes, the commit, the machine, and the commands."""
    result = facts.result
    student, on = result["student"] or {}, result.get("yardstick") or {}
    seed = result.get("seed_images") or {}
    rows = [
        ("hash of the configuration", result.get("config_hash")),
        ("commit of the code", result.get("git_commit")),
        ("SHA-256 of the student", student.get("sha256")),
        ("SHA-256 of the yardstick", on.get("sha256")),
        ("SHA-256 of the images that were given", seed.get("sha256")),
        ("started by", f"{result.get('launcher')}, engine {result.get('engine')}"),
        ("fast paths", result.get("speed")),
    ]
    shown = [(name, str(value)) for name, value in rows if value]
    return [*table(("", ""), shown), Code("\n".join(_commands(facts)))]


def _commands(facts: Facts) -> list[str]:
    """That make such a run again, measure it, and export it; as the folder was called when it was made."""
    result, config = facts.result, facts.config
    run = join(config.runs_dir, result["experiment"], result["name"]) if config else str(facts.directory.location)
    again = [f"zskt_dist.{result['command']}", "--config", join(run, Path(facts.directory.config).name)]
    labelled = ["data.name=parquet", "data.root=FOLDER"] if result.get("dataset") == "none" else []
    verbs = [[*again, f"name={result['name']}-again"], ["zskt_dist.evaluate", run, *labelled]]
    if "seeds" not in result:
        verbs.append(["zskt_dist.export", run])
    return [shlex.join(["python", "-m", *verb]) for verb in verbs]
