"""What a command does around its workers."""

import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.configs import tiny_config
from tests.support.jobs import train_in
from zskt_dist.launch.driver import execute

_OPENED: list[str] = []
_WATCHED: set[str] = set()


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _WATCHED and str(arguments[0]) in _WATCHED:
        _OPENED.append(str(arguments[0]))


@pytest.fixture(scope="module", autouse=True)
def _audited() -> None:
    """Hooks stay for ever; this one notes nothing while no file is watched."""
    sys.addaudithook(_note)


@pytest.mark.parametrize(
    ("command", "given", "overrides"),
    [
        ("train", True, ()),
        ("train", False, ()),
        ("finetune", True, ("data.images_per_class=2", "finetune.iterations=2")),
        ("distill", True, ("data.images_per_class=2",)),
    ],
)
def test_a_teachers_file_is_read_at_most_twice(
    command: str, given: bool, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    """Once by preflight, whose content the stages use; a cached teacher's likewise."""
    trained = train_in("pretrain", tiny_config(tmp_path)).weights("teacher")
    if given:
        file = trained.rename(tmp_path / "teacher.safetensors")
        overrides = (*overrides, f"teacher.checkpoint={file}")
    else:
        file = trained
    config = tiny_config(tmp_path, *overrides, "supervised.iterations=12")
    _OPENED.clear()
    _WATCHED.add(str(file))
    try:
        result = execute(command, config, fresh=False, console=Console(quiet=True))
    finally:
        _WATCHED.clear()
    assert result["status"] == "finished"
    assert 1 <= len(_OPENED) <= 2, "by preflight, whose content the first stage takes, and by a second one"
