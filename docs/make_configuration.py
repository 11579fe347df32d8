"""Writes docs/configuration.md from the schema; with --check, exits with 1 where the file is out of date."""

import sys
from pathlib import Path

from pydantic import BaseModel

from zskt_dist.config import Config

PATH = Path(__file__).with_name("configuration.md")


def page() -> str:
    """One table, a row per key, in the order of the schema."""
    lines = ["# Configuration", "", "Made by `python docs/make_configuration.py` from the schema.", ""]
    lines += ["| key | default | meaning |", "|---|---|---|", *rows(Config(), "")]
    return "\n".join(lines) + "\n"


def rows(section: BaseModel, prefix: str) -> list[str]:
    found = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            found += rows(value, f"{prefix}{name}.")
        else:
            shown = "null" if value is None else str(list(value) if isinstance(value, tuple) else value)
            meaning = (field.description or "").replace("\n", " ").replace("|", "\\|")
            found.append(f"| `{prefix}{name}` | `{shown}` | {meaning} |")
    return found


if __name__ == "__main__":
    if "--check" in sys.argv:
        raise SystemExit(PATH.read_text(encoding="utf-8") != page())
    PATH.write_text(page(), encoding="utf-8")
