"""The README as a package index shows it: the only page there, so a link to another file would lead nowhere."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE_LINK = re.compile(r"\[([^]\[]+)\]\((?!https?://|mailto:|#)([^)\s]+)\)")


class ReadmeHook(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        """Relative links lead into `Repository` of `[project.urls]`; without one they become their plain text."""
        readme = Path(self.root, "README.md").read_text(encoding="utf-8")
        home = metadata.get("urls", {}).get("Repository")
        link = rf"[\1]({home.rstrip('/')}/blob/HEAD/\2)" if home else r"\1"
        metadata["readme"] = {"content-type": "text/markdown", "text": _RELATIVE_LINK.sub(link, readme)}
