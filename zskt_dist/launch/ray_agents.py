"""Ray's agents outlive a killed cluster by a minute: the next command ends them."""

import os
from contextlib import suppress

import psutil

_AGENTS = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}


def end_orphaned_agents() -> list[int]:
    """Ends this user's agents whose raylet is dead: they serve nothing, and only try to report its death.

    Returns:
        Their process IDs.
    """
    orphans = [process for process in psutil.process_iter() if _is_orphaned_agent(process)]
    for process in orphans:
        with suppress(psutil.Error):
            process.kill()
    return [process.pid for process in orphans]


def _is_orphaned_agent(process: psutil.Process) -> bool:
    try:
        if process.name() not in _AGENTS or process.uids().real != os.getuid():
            return False
        parent = process.parent()
        return parent is None or parent.name() != "raylet"
    except psutil.Error:  # it has just ended, or belongs to somebody else
        return False
