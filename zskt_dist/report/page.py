"""The report: Markdown, a page of HTML that stands alone, PNG figures and CSV tables."""

import base64
import io
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from zskt_dist.files import write_atomic
from zskt_dist.report import plots, tables
from zskt_dist.report.runs import Group

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 13px; }
th, td { border-bottom: 1px solid #8884; padding: .3rem .6rem; text-align: left; white-space: nowrap; }
img { max-width: 100%; background: white; border-radius: 6px; }
code { font-size: 12px; }
"""


class Report:
    """Sections of text, tables and figures, written into a folder as they are added."""

    def __init__(self, folder: Path, title: str) -> None:
        self.folder, self.title = folder, title
        self._parts = [f"# {title}", ""]

    def text(self, *lines: str) -> None:
        self._parts += [*lines, ""]

    def table(self, name: str, heading: str, frame: pd.DataFrame, otherwise: str) -> None:
        """A table and its CSV file, or what would fill it."""
        self.text(f"## {heading}")
        if frame.empty:
            self.text(f"Nothing yet: {otherwise}")
            return
        write_atomic(self.folder / "tables" / f"{name}.csv", frame.to_csv(index=False))
        self.text(tables.markdown(frame))

    def figures(self, name: str, heading: str, figures: dict[str, Figure | None], otherwise: str) -> None:
        """Figures and their PNG files by a label, or what would fill them."""
        self.text(f"## {heading}")
        drawn = {label: figure for label, figure in figures.items() if figure is not None}
        if not drawn:
            self.text(f"Nothing yet: {otherwise}")
        for label, figure in drawn.items():
            path = Path("figures", f"{name}_{re.sub(r'[^a-z0-9]+', '-', label.lower()).strip('-')}.png")
            buffer = io.BytesIO()
            figure.savefig(buffer, dpi=110, format="png")
            plt.close(figure)
            write_atomic(self.folder / path, buffer.getvalue())
            self.text(f"![{heading}: {label}]({path.as_posix()})")

    def picture(self, label: str, source: Path) -> None:
        """An existing PNG file."""
        path = Path("figures", source.with_stem(f"{source.stem}_{label}").name)
        write_atomic(self.folder / path, source.read_bytes())
        self.text(f"![{label}]({path.as_posix()})")

    def write(self) -> None:
        """`report.md` and `report.html`."""
        markdown = "\n".join(self._parts)
        write_atomic(self.folder / "report.md", markdown)
        body = MarkdownIt("commonmark").enable("table").render(markdown)
        body = re.sub(r'src="([^"]+)"', lambda match: f'src="{self._embedded(match[1])}"', body)
        head = f'<meta charset="utf-8"><title>{self.title}</title><style>{_STYLE}</style>'
        write_atomic(self.folder / "report.html", f"<!doctype html><html><head>{head}</head><body>{body}</body></html>")

    def _embedded(self, path: str) -> str:
        content = base64.b64encode((self.folder / path).read_bytes()).decode()
        return f"data:image/png;base64,{content}"


def write_report(groups: Sequence[Group], folder: Path, title: str) -> None:
    """All tables and figures that the runs allow; an earlier report in the folder is replaced."""
    for part in ("figures", "tables"):
        shutil.rmtree(folder / part, ignore_errors=True)
    report = Report(folder, title)
    count = sum(len(group.runs) for group in groups)
    report.text(
        f"{count} finished runs in {len(groups)} settings, {time.strftime('%Y-%m-%d')}. Accuracy is that of the last "
        "iterate on the test images, mean ± population standard deviation over n seeds."
    )
    pairs = tables.pairs_of(groups)
    report.table("table_1", "Table 1: accuracy of teacher-student pairs", tables.table_1(groups), _how("train"))
    few = _how("distill", "data.images_per_class=10")
    by_images = _figures(pairs, lambda data, pair: plots.accuracy_against_images(groups, data, pair))
    report.figures("figure_2", "Figure 2: accuracy against images per class", by_images, few)
    report.table("table_2", "Table 2: mean transition errors", tables.table_2(groups), _how_evaluate())
    curves = _figures(pairs, lambda data, pair: plots.transition_curves(groups, data, pair))
    report.figures("figure_4", "Figure 4: transition curves", curves, _how_evaluate())
    report.text("## Figure 3: pseudo-images over training")
    strips = {g.dataset: g.first.directory.figures / "pseudo_images.png" for g in groups if g.method == "train"}
    for dataset, path in strips.items():
        if path.exists():
            report.picture(dataset, path)
    if not any(path.exists() for path in strips.values()):
        report.text(f"Nothing yet: {_how('train')}")
    report.table("pseudo_data", "Section 4.3: nature of the pseudo data", tables.pseudo_data(groups), _how("train"))
    noise = {dataset: plots.noise_predictions(groups, dataset) for dataset in dict.fromkeys(g.dataset for g in groups)}
    report.figures("figure_5", "Figure 5: predictions on uniform noise", noise, _how_evaluate())
    report.table("runs", "All settings", tables.summary(groups), _how("train"))
    report.write()


def _figures(
    pairs: Sequence[tuple[str, tables.Pair]], draw: Callable[[str, tables.Pair], Figure | None]
) -> dict[str, Figure | None]:
    return {f"{dataset} {pair[0]} {pair[1]}": draw(dataset, pair) for dataset, pair in pairs}


def _how(command: str, *overrides: str) -> str:
    return f"`python -m zskt_dist.{command} --config FILE {' '.join(overrides)}`".replace(" `", "`")


def _how_evaluate() -> str:
    return "`python -m zskt_dist.evaluate RUN_DIR`"
