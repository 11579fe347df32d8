"""Reads a page as a browser does: what it shows, and what it would fetch."""

import base64
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

_VOID = {"meta", "img", "br", "link", "input", "hr"}
_SHOWN = {"h1": "headings", "h2": "headings", "td": "cells", "th": "cells"}


@dataclass
class Page(HTMLParser):
    """The content of a page; raises AssertionError for one that is not well-formed."""

    file: Path
    tags: list[str] = field(default_factory=list)
    text: str = ""
    links: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    headings: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    _open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        HTMLParser.__init__(self)
        self.content = self.file.read_text(encoding="utf-8")
        self.feed(self.content)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]
        self.sources += [value or "" for name, value in attrs if name in ("src", "srcset", "data", "poster", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        if tag in ("h1", "h2"):
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            assert not re.search(r"url\(|@import", data)
            return
        self.text += data
        if {"th", "td"} & set(self._open):
            self.rows[-1][-1] += data.strip()
        if {"h1", "h2"} & set(self._open):
            self.headings[-1] += data

    def check(self) -> "Page":
        """That it stands alone, and that nothing on it is empty."""
        assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(self.tags)
        assert all(source.startswith("data:image/") for source in self.sources)
        assert not any(re.match(r"[a-z]+:|/", link, re.I) for link in self.links), "links are relative"
        assert all(any(row) for row in self.rows)
        assert all(self.headings)
        for section in self.content.split("<section>")[1:]:
            inside = section.split("</h2>")[1].split("</section>")[0]
            assert re.sub(r"<[^i][^>]*>|\s", "", inside), "a heading above nothing"
        return self

    def pictures(self) -> list[bytes]:
        return [base64.b64decode(source.partition(",")[2]) for source in self.sources]

    def row(self, name: str) -> list[str]:
        """What stands beside a name."""
        (found,) = (row[1:] for row in self.rows if row and row[0] == name)
        return found
