"""The page: what stands in runs is shown as it is, and no file but the report's own pictures becomes part of it."""

import base64
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.support.finished import finished_run
from zskt_dist import markup
from zskt_dist.report import __main__ as command
from zskt_dist.report.page import Report


@pytest.mark.parametrize("there", [True, False])
def test_names_in_runs_fetch_no_files(tmp_path: Path, there: bool) -> None:
    secret = tmp_path / "id"
    if there:
        secret.write_text("a private key")
    image = f"![]({secret})"
    pair = (f"lenet {image}", "lenet <class A>")
    finished_run(tmp_path / "runs", "train", 0, 0.8, "student.options.key=even", pair=pair, dataset="digits", name="a")
    special = f"student.options.key='odd {image} `{image}` <b>'"
    finished_run(tmp_path / "runs", "train", 0, 0.8, special, pair=pair, dataset="digits", name="b")
    finished_run(tmp_path / "runs", "distill", 0, 0.8, pair=pair, many=10, dataset="digits", name=f"{image[:3]}c")
    out = tmp_path / "out"
    arguments = [str(tmp_path / "runs"), "--out", str(out), "--no-mlflow", "--title", f"</title>{image}<script>"]
    assert command.main(arguments) == 0
    page = (out / "report.html").read_text()
    assert base64.b64encode(b"a private key").decode() not in page
    assert page.count("<img") == page.count("data:image/png") == 1, "Figure 2 alone"
    assert not re.search(r"<(class|b|script|a)\b", page)
    assert "lenet &lt;class A&gt;" in page
    assert f"<title>&lt;/title&gt;{image}&lt;script&gt;</title>" in page
    assert f"odd {image} `{image}` &lt;b&gt;" in page, "as it was given"


def test_a_report_embeds_its_own_pictures_alone(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"its own")
    (tmp_path / "mine.png").write_bytes(b"mine")
    report = Report(tmp_path / "out", "A report")
    report.picture("figure_3", "digits", tmp_path / "picture.png")
    report.text("![](../mine.png) ![](nowhere.png) <b>")
    report.write()
    page = (tmp_path / "out/report.html").read_text()
    assert base64.b64encode(b"its own").decode() in page
    assert base64.b64encode(b"mine").decode() not in page
    assert "<b>" not in page


def test_pictures_do_not_overwrite_each_other(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(b"a picture")
    long = "digits " + ", ".join(f"generator_terms.teacher_entropy={i}" for i in range(20))
    labels = ["entropy=1", "entropy=-1", "entropy=1", long, f"{long}, another"]

    def names(folder: Path, labels: list[str]) -> list[str]:
        report = Report(folder, "A report")
        for label in labels:
            report.picture("figure_3", label, tmp_path / "picture.png")
        report.write()
        assert (folder / "report.html").read_text().count("data:image/png") == len(labels)
        return re.findall(r"figures/(\S+)\)", (folder / "report.md").read_text())

    found = names(tmp_path / "a", labels)
    assert found[0] == "figure_3_entropy-1.png", "a hash only where it is needed"
    assert found == names(tmp_path / "b", labels), "the same in the next report"
    assert sorted(set(found)) == sorted(path.name for path in (tmp_path / "a/figures").iterdir())
    assert len(set(found)) == len(labels)
    assert names(tmp_path / "c", ["x" * 228]) == [f"figure_3_{'x' * 228}.png"]


@pytest.mark.parametrize("text", ["a_b", "_a_ **b**", "[a](b) ![c][d]", "<b> &lt;", r"\\ \[", "a | b", "`c` ``d``"])
def test_text_and_code_are_shown_as_they_are(text: str) -> None:
    def shown(markdown: str) -> str:
        (inline,) = (token for token in MarkdownIt("commonmark").parse(markdown) if token.type == "inline")
        assert {child.type for child in inline.children or []} <= {"text", "text_special", "code_inline"}
        return "".join(child.content for child in inline.children or [])

    assert shown(f"- {markup.plain(text)}") == text
    assert shown(f"- {markup.code(text)}") == text
