"""Code that a run's configuration names, which may do anything, runs only if the user of a command names it, too.

The run may be somebody else's: a download, a folder of a colleague, an unpacked archive.
"""

from collections.abc import Sequence

from zskt_dist.config import Config
from zskt_dist.errors import ConfigError, UserError
from zskt_dist.models import is_user_code

KEYS = ("teacher.arch=", "student.arch=")


def code_in(config: Config) -> dict[str, str]:
    """Import paths in a configuration, by key."""
    archs = {"teacher.arch": config.teacher.arch, "student.arch": config.student.arch}
    return {key: arch for key, arch in archs.items() if is_user_code(arch)}


def words_for(config: Config) -> list[str]:
    """The words that name all code in a configuration of the user's own, and its store."""
    return [*_code_words(config), *([f"tracking.uri={config.tracking.uri}"] if config.tracking.uri else [])]


def _code_words(config: Config) -> list[str]:
    return [f"{key}={arch}" for key, arch in code_in(config).items()]


def check_named(location: str, config: Config, words: Sequence[str]) -> None:
    """Checks that the user names the code of a run, and no other network.

    Args:
        location: Of the run.
        words: `key=value`, as the user gives them.

    Raises:
        ConfigError: a word names another network than the run's; UserError: no word names its code.
    """
    for word in (word for word in words if word.startswith(KEYS)):
        key, _, arch = word.partition("=")
        own = getattr(config, key.partition(".")[0]).arch
        if arch != own:
            raise ConfigError(key, arch, f"belongs to the run, which has {own}")
    if missing := [word for word in _code_words(config) if word not in words]:
        raise UserError(f"{location} needs code that it names; if you trust it, name it: {' '.join(missing)}")
