"""Which figures a run directory gets. Matplotlib comes last: training does without, and then there are no figures."""

import re
from pathlib import Path

from zskt_dist.extras import is_installed
from zskt_dist.files import read_json
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.tracking.local import read_history

_GRID = re.compile(r"pseudo_images_\d+\.png")


def draw_run(directory: RunDirectory) -> None:
    """Writes `training.png`, `pseudo_images.png` (Figure 3), `overview.png` (both) and `estimates.png`.

    Each is written where there is what it shows.
    """
    if not is_installed("matplotlib"):
        return
    from zskt_dist.figures import plots
    from zskt_dist.figures.overview import overview

    rows, pictures = read_history(directory.history), grids(directory)
    if curves := plots.training_curves(rows):
        plots.save(curves, directory.figures / "training.png")
    if pictures:
        plots.save(plots.over_training(pictures), directory.figures / "pseudo_images.png")
    if figure := overview(rows, pictures):
        plots.save(figure, directory.figures / "overview.png")
    if found := read_json(directory.estimates):
        plots.save(plots.estimates(found), directory.figures / "estimates.png")


def grids(directory: RunDirectory) -> list[Path]:
    """The pictures of pseudo-images that the training has drawn, in order; their names end in their iteration."""
    return sorted(path for path in directory.figures.glob("*.png") if _GRID.fullmatch(path.name))


def draw_evaluation(directory: RunDirectory) -> None:
    """Writes `transition_curves.png` (Figure 4), `calibration.png` and `noise.png` (Figure 5) of an evaluated run."""
    answer = read_json(directory.evaluation / "evaluation.json")
    if not answer or not is_installed("matplotlib"):
        return
    from zskt_dist.figures import plots

    if answer["mean_curves"]:
        figure = plots.transitions(answer["mean_curves"], answer["mte"])
        plots.save(figure, directory.figures / "transition_curves.png")
    if answer["noise"]:
        plots.save(plots.noise(answer["noise"]), directory.figures / "noise.png")
    plots.save(plots.calibration(answer["calibration"]), directory.figures / "calibration.png")
