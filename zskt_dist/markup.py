"""Texts that somebody else has given, as Markdown that shows them and does nothing else."""

import re


def plain(text: str) -> str:
    """Text as Markdown that shows it as it is: no image, link, HTML, code or emphasis, on one line."""
    escaped = re.sub(r"[\\`*\[\]<&|]|\b_|_\b", r"\\\g<0>", " ".join(text.split()))
    return re.sub(r":(?=//)|(?<=\bwww)\.", r"\\\g<0>", escaped)  # viewers would make links of bare addresses


def code(text: str) -> str:
    """Text as code on one line, between more backticks than it has in a row."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{' '.join(text.split())}{space}{fence}"
