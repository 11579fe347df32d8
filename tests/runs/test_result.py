"""The schema of `result.json`; the tests of each command hold what it writes against it."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support.results import SCHEMA, check_result
from zskt_dist.runs.directory import RunDirectory

TOY: dict[str, Any] = {
    "status": "finished",
    "command": "toy",
    "seed": 0,
    "settings": {},
    "seconds": 1.5,
    "teacher": {"accuracy": 1.0},
    "student": {"agreement": 0.75, "agreement_at_start": 0.25},
    "figures": [],
}


def test_every_field_says_what_it_is() -> None:
    silent = [
        f"{kind}.{name}"
        for kind, definition in SCHEMA["$defs"].items()
        for name, field in definition["properties"].items()
        if not field.get("description", "").strip()
    ]
    assert silent == []
    assert {"RunResult", "SweepResult", "ToyResult", "PseudoDataResult"} <= set(SCHEMA["$defs"])


@pytest.mark.parametrize(
    "change", [{"seconds": "1.5"}, {"accuracy": 1.0}, {"command": "train"}, {"status": "running"}, {"teacher": {}}]
)
def test_what_no_command_writes_does_not_fit(change: dict[str, Any]) -> None:
    check_result(TOY)
    with pytest.raises(jsonschema.ValidationError):
        check_result(TOY | change)


@pytest.mark.parametrize(
    ("text", "finished"),
    [
        ('{"status": "finished"}', True),  # of an older version, with fewer fields
        ('{"status": "finished", "command": "train", "new": 1}', True),
        ('{"status": "partial"}', False),
        ('{"status": "finis', False),
        ('["finished"]', False),
        ("{}", False),
    ],
)
def test_an_old_result_is_one_and_a_damaged_one_is_none(tmp_path: Path, text: str, finished: bool) -> None:
    (tmp_path / "result.json").write_text(text)
    assert (RunDirectory(tmp_path).finished() is not None) == finished
