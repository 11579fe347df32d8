"""Writes the page of a run."""

import logging
from pathlib import Path

from zskt_dist.errors import one_line
from zskt_dist.extras import lacking
from zskt_dist.files import write_atomic
from zskt_dist.runs.directory import RunDirectory

log = logging.getLogger(__name__)

NEEDS = ("matplotlib", "jinja2")


def update_page(directory: RunDirectory) -> Path | None:
    """Writes `index.html` of a finished run from what its directory has now.

    Returns:
        Its path; None where the run is not finished, the packages are missing, or, with a warning, it failed: a page
        is no reason for a command to fail.
    """
    if lacking(*NEEDS):
        return None
    try:
        return _write(directory)
    except Exception as error:
        log.warning("%s was not written: %s", directory.page, one_line(error))
        return None


def _write(directory: RunDirectory) -> Path | None:
    result = directory.finished()
    if result is None or not {"teacher", "student", "command", "experiment", "name"} <= result.keys():
        return None
    from zskt_dist.page.facts import Facts  # late: Matplotlib takes a second
    from zskt_dist.page.render import render

    write_atomic(directory.page, render(Facts(directory, result)))
    return directory.page
