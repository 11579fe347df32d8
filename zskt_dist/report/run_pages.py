"""Pages of runs that were finished by an earlier version, or elsewhere."""

import logging
from collections.abc import Sequence

from zskt_dist.errors import UserError
from zskt_dist.page.write import update_page
from zskt_dist.runs.directory import find_run
from zskt_dist.runs.locations import is_file, join

log = logging.getLogger(__name__)


def write_pages(locations: Sequence[str]) -> list[str]:
    """Writes the page of each location that is a finished run itself; folders of runs are passed over.

    Returns:
        Where the pages are; a run that cannot be used is left out with a warning.
    """
    found = []
    for location in locations:
        try:
            if not is_file(join(location, "result.json"), "FOLDER"):
                continue
            directory = find_run(location)
            if page := update_page(directory):
                directory.mirror.push()
                found.append(join(location, page.name))
        except UserError as error:
            log.warning("no page was written: %s", error)
    return found
