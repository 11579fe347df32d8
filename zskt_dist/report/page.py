"""The report: Markdown, a page of HTML that stands alone, PNG figures and CSV tables."""

import base64
import hashlib
import html
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from zskt_dist.figures.drawing import png
from zskt_dist.files import write_atomic
from zskt_dist.markup import code, plain
from zskt_dist.report import curves, estimates, gaps, noise, plots, tables
from zskt_dist.report.folder import replaced
from zskt_dist.report.gaps import Gap
from zskt_dist.report.runs import WITHOUT_DATA, Group

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 13px; }
th, td { border-bottom: 1px solid #8884; padding: .3rem .6rem; text-align: left; white-space: nowrap; }
img { max-width: 100%; background: white; border-radius: 6px; }
code { font-size: 12px; }
pre { overflow-x: auto; }
"""
_LONGEST = 237
"""Bytes of a picture's name: file systems allow 255, with the extension and what a temporary file has on top."""


class Report:
    """Sections of text, tables and figures, written into a folder as they are added."""

    def __init__(self, folder: Path, title: str) -> None:
        self.folder, self.title = folder, title
        self._parts = [f"# {plain(title)}", ""]
        self._heading: str | None = None
        self._gaps: list[str] = []
        self._pictures: set[str] = set()
        """Paths of those that were written: no others become part of the page."""

    def heading(self, text: str) -> None:
        """Begins a section; its heading stands above what comes first, and nowhere if nothing comes."""
        self._heading = text

    def text(self, *lines: str) -> None:
        """Lines of Markdown; what comes from a run goes through `tables.plain` or `tables.code` first."""
        if self._heading:
            self._parts += [f"## {self._heading}", ""]
            self._heading = None
        self._parts += [*lines, ""]

    def table(self, name: str, frame: pd.DataFrame) -> None:
        """A table and its CSV file; nothing where it is empty."""
        if not frame.empty:
            self.numbers(name, frame)
            self.text(tables.markdown(frame))

    def numbers(self, name: str, frame: pd.DataFrame) -> Path:
        """A CSV file."""
        path = Path("tables", f"{name}.csv")
        write_atomic(self.folder / path, frame.to_csv(index=False))
        return path

    def figure(self, name: str, heading: str, label: str, figure: Figure) -> None:
        self.text(self._image(name, label, f"{heading}: {label}", png(figure)))

    def picture(self, name: str, label: str, source: Path) -> None:
        """An existing PNG file, under a line that says what it is."""
        self.text(f"{plain(label)}:", "", self._image(name, label, label, source.read_bytes()))

    def gaps(self, found: Iterable[Gap]) -> None:
        """Commands that would fill what is missing; the report's last section has them, each once."""
        self._gaps += [f"- {plain(gap.what)}: {code(gap.command)}" for gap in found]

    def write(self) -> None:
        """`report.md` and `report.html`."""
        self.heading("Missing, and what would make it")
        if self._gaps:
            self.text(*dict.fromkeys(self._gaps))
        markdown = "\n".join(self._parts)
        write_atomic(self.folder / "report.md", markdown)
        body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
        body = re.sub(r'src="([^"]+)"', lambda match: f'src="{self._embedded(match[1])}"', body)
        head = f'<meta charset="utf-8"><title>{html.escape(self.title)}</title><style>{_STYLE}</style>'
        write_atomic(self.folder / "report.html", f"<!doctype html><html><head>{head}</head><body>{body}</body></html>")

    def _image(self, name: str, label: str, text: str, content: bytes) -> str:
        """The Markdown of a picture, which it writes; in the file's name a hash tells apart what letters do not."""
        stem, said = f"{name}_{_slug(label)}", label
        while (path := f"figures/{stem}.png") in self._pictures or len(stem) > _LONGEST:
            said = hashlib.sha256(said.encode()).hexdigest()
            stem = f"{name}_{_slug(label)}"[: _LONGEST - 9] + f"-{said[:8]}"
        write_atomic(self.folder / path, content)
        self._pictures.add(path)
        return f"![{plain(text)}]({path})"

    def _embedded(self, path: str) -> str:
        """Itself, where the report has not written it: names in runs must not fetch files of this machine."""
        if path not in self._pictures:
            return path
        content = base64.b64encode((self.folder / path).read_bytes()).decode()
        return f"data:image/png;base64,{content}"


def write_report(groups: Sequence[Group], folder: Path, title: str) -> None:
    """All tables and figures that the runs allow; an earlier report in the folder is replaced.

    Raises:
        UserError: the folder is a run's, or holds files in the way that are no report's.
    """
    with replaced(folder) as building:
        report = Report(building, title)
        _head(report, groups)
        _table_1(report, groups)
        _figure_2(report, groups)
        _transitions(report, groups)
        _pseudo_images(report, groups)
        _noise(report, groups)
        _estimates(report, groups)
        report.heading("All settings")
        report.table("runs", tables.summary(groups))
        report.write()


def _head(report: Report, groups: Sequence[Group]) -> None:
    count = sum(len(group.runs) for group in groups)
    report.text(
        f"{count} finished runs in {len(groups)} settings, {time.strftime('%Y-%m-%d')}. Accuracy is that of the last "
        "iterate on the test images, mean ± population standard deviation over n seeds."
    )
    report.text(
        "Each setting is compared with the paper's where data and networks are the paper's, else with the setting that "
        "differs least from all others here. Values that differ are in brackets, `[key=value]`. Table 1 has only "
        "settings without brackets, and shows the paper's numbers beside runs with the paper's settings."
    )
    dropped = [run for group in groups for run in group.dropped]
    if dropped:
        report.text(
            "Left out, for a newer run has the same settings and seed: "
            + ", ".join(f"{plain(run.directory.path.name)} (seed {run.seed})" for run in dropped)
            + "."
        )


def _table_1(report: Report, groups: Sequence[Group]) -> None:
    report.heading("Table 1: accuracy of teacher-student pairs")
    report.table("table_1", tables.table_1(groups))
    report.gaps([*gaps.table_1_gaps(groups), *gaps.any_zero_shot(groups)])


def _figure_2(report: Report, groups: Sequence[Group]) -> None:
    heading = "Figure 2: accuracy against images per class"
    report.heading(heading)
    for dataset, pair in tables.pairs_with_few_images(groups):
        if figure := plots.accuracy_against_images(groups, dataset, pair):
            report.figure("figure_2", heading, f"{dataset} {pair[0]} {pair[1]}", figure)
    report.table("figure_2", tables.figure_2(groups))
    report.gaps(gaps.figure_2_gaps(groups))


def _transitions(report: Report, groups: Sequence[Group]) -> None:
    report.heading("Table 2: mean transition errors")
    report.table("table_2", tables.table_2(groups))
    report.gaps(gaps.evaluation_gaps(groups))
    heading = "Figure 4: transition curves"
    report.heading(heading)
    found = {key: curves.panels_of(groups, *key) for key in tables.pairs_of(groups)}
    for (dataset, pair), panels in found.items():
        if figure := plots.transition_curves(panels, dataset, pair):
            report.figure("figure_4", heading, f"{dataset} {pair[0]} {pair[1]}", figure)
    frame = curves.figure_4([panel for panels in found.values() for panel in panels])
    if frame.empty:
        return
    path = report.numbers("figure_4", frame)
    report.text(
        "Bands are ± 2 standard errors: images are independent, the curves of one image are not, and seeds see nearly "
        f"the same images (docs/fidelity.md). The numbers: `{path.as_posix()}`."
    )


def _pseudo_images(report: Report, groups: Sequence[Group]) -> None:
    report.heading("Figure 3: pseudo-images over training")
    zero_shot = [group for group in groups if group.method in WITHOUT_DATA]
    without = []
    for group in zero_shot:
        found = (run.directory.figures / "pseudo_images.png" for run in group.runs)
        how = ", inversion" if group.method == "inversion" else ""
        name = f"{group.dataset} {tables.arrow(group.pair)}{how}" + (f" [{group.label}]" if group.label else "")
        if path := next((path for path in found if path.exists()), None):
            report.picture("figure_3", name, path)
        else:
            without.append(name)
    if len(without) < len(zero_shot):
        for name in without:
            report.text(f"{plain(name)}: no pictures are kept (`tracking.images` was 0, or they have been removed).")
    report.heading("Section 4.3: nature of the pseudo data")
    frame = tables.pseudo_data(groups)
    report.table("pseudo_data", frame)
    if not frame.empty:
        report.text(
            "The entropy is that of the class frequencies in one batch, averaged over the run. Frequencies in a batch "
            "are less even than what they are drawn from, so uniform predictions would give `uniform in such batches` "
            "(its exact expectation) and not log C."
        )


def _noise(report: Report, groups: Sequence[Group]) -> None:
    heading = "Figure 5: predictions on uniform noise"
    report.heading(heading)
    frames = []
    for dataset, pair in tables.pairs_of(groups):
        found = noise.predictions_of(groups, dataset, pair)
        if figure := plots.noise_predictions(found, dataset, pair):
            report.figure("figure_5", heading, f"{dataset} {pair[0]} {pair[1]}", figure)
            frames.append(noise.figure_5(found, dataset, pair))
    if frames:
        report.text(f"The numbers: `{report.numbers('figure_5', pd.concat(frames)).as_posix()}`.")
    else:
        report.gaps(gaps.evaluation_gaps(groups, measure="noise"))


def _estimates(report: Report, groups: Sequence[Group]) -> None:
    """Shown only where runs have both estimates and test images."""
    frame = estimates.estimates(groups)
    if frame.empty:
        return
    heading = "Estimates without labels beside what was measured"
    report.heading(heading)
    report.table("estimates", estimates.shown(frame))
    for (data, teacher), runs in estimates.by_teacher(frame):
        label = f"{data}, teacher {teacher}"
        report.figure("estimates", heading, label, estimates.against_accuracy(runs, label))
    report.text(
        "Estimates are agreement with the teacher on images that are not real: they say how alike the two are there, "
        "not how right (docs/estimates.md). Rank correlations are over runs, where seeds of one setting count singly; "
        f"with fewer than {estimates.FEWEST} runs of one teacher there is none."
    )
    report.table("estimates_ranking", estimates.ranking(frame))


def _slug(label: str) -> str:
    """A file name: letters and digits that ASCII has."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
