"""Transition curves of many images: shared over workers, saved part by part, merged into one Parquet file."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from zskt_dist.algorithms.transitions import Curves, Network, transition_curves, transition_error
from zskt_dist.config import Config
from zskt_dist.data import Split, Standardise
from zskt_dist.distributed.stop_vote import StopVote
from zskt_dist.distributed.world import World
from zskt_dist.errors import Interrupted
from zskt_dist.files import write_atomic_with
from zskt_dist.tracking.local import ProgressFile

SCHEMA = pa.schema(
    {
        "image": pa.int32(),  # position in the test split
        "from_class": pa.int16(),
        "to_class": pa.int16(),
        "step": pa.int16(),
        "p_a": pa.float32(),  # belief of the stepped network
        "p_b": pa.float32(),
    }
)


class CurveParts:
    """The curves of chosen test images in parts; each complete part is saved and not computed again.

    Args:
        folder: Folder of the parts; its name depends on the settings.
        positions: Positions of the images in the test split.
        from_class: int64, one per position.
    """

    def __init__(
        self, folder: Path, config: Config, positions: np.ndarray, from_class: np.ndarray, num_classes: int
    ) -> None:
        self.folder, self.settings, self.num_classes = folder, config.transitions, num_classes
        # A part is one forward pass, or one image where that has more targets than a pass takes.
        each = max(1, self.settings.rows // max(1, num_classes - 1))
        starts = range(0, len(positions), each)
        self.parts = [(positions[s : s + each], from_class[s : s + each]) for s in starts]

    def compute(
        self,
        networks: tuple[Network, Network],
        split: Split,
        standardise: Standardise,
        world: World,
        stop: StopVote,
        progress: ProgressFile,
    ) -> None:
        """Computes the missing parts, which the workers share; raises Interrupted after a stop request."""
        total = len(self.parts)
        done = world.from_main(lambda: {number for number in range(total) if self.path(number).exists()})
        for first in range(0, total, world.size):
            number = first + world.rank
            curves: Curves | None = None
            if number < total and number not in done:
                positions, from_class = self.parts[number]
                x = standardise(split.images[torch.from_numpy(positions)].to(world.device))
                origin = torch.from_numpy(from_class).to(world.device)
                settings = self.settings
                found = transition_curves(
                    *networks,
                    x,
                    origin,
                    num_classes=self.num_classes,
                    steps=settings.steps,
                    step_size=settings.step_size,
                    rows=settings.rows,
                )
                curves = Curves(*(values.cpu() for values in found))
            for other, part in enumerate(world.gather(curves), start=first):
                if part is not None and world.is_main:  # the other workers' machines may not see the folder
                    self._write(other, part)
            if stop.agreed() and first + world.size < total:
                stop.close()
                raise Interrupted(first + world.size, total, "part")
            complete = min(first + world.size, total)
            progress.show({"iteration": complete})
            progress.tick("curves", complete, total)
        stop.close()
        world.barrier()

    def path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.parquet"

    def merge(self, path: Path) -> "CurveSummary":
        """Writes one file in the order of the parts and returns its summary; memory holds one part at a time."""
        summary = CurveSummary(self.settings.steps)

        def write(temporary: Path) -> None:
            with pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
                for number in range(len(self.parts)):
                    table = pq.read_table(self.path(number))
                    writer.write_table(table)
                    summary.add(table)

        write_atomic_with(path, write)
        return summary

    def remove(self) -> None:
        """Removes the parts once the merged file is safe."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, number: int, curves: Curves) -> None:
        positions, from_class = self.parts[number]
        images, targets, steps = curves.p_a.shape
        each = targets * steps
        columns = [
            np.repeat(positions.astype(np.int32), each),
            np.repeat(from_class.astype(np.int16), each),
            np.repeat(curves.targets.cpu().numpy().astype(np.int16).ravel(), steps),
            np.tile(np.arange(steps, dtype=np.int16), images * targets),
            _flat(curves.p_a),
            _flat(curves.p_b),
        ]
        table = pa.table(columns, schema=SCHEMA)
        write_atomic_with(self.path(number), lambda temporary: pq.write_table(table, temporary, compression="zstd"))


class CurveSummary:
    """Mean curves with their standard errors (Figure 4) and the MTE (Eq. 2), from running sums."""

    def __init__(self, steps: int) -> None:
        self.steps, self.curves, self.images = steps, 0, 0
        self._sums = {name: np.zeros((2, steps)) for name in ("p_a", "p_b")}
        self._error = 0.0

    def add(self, table: pa.Table) -> None:
        """Adds all curves of some images, in the columns of `SCHEMA`."""
        p = {name: table[name].to_numpy().astype(np.float64).reshape(-1, self.steps) for name in ("p_a", "p_b")}
        images = len(table["image"].unique())
        for name, values in p.items():
            # The curves of one image are not independent, so the spread is that of the images' means.
            of_images = values.reshape(images, -1, self.steps).mean(axis=1)
            self._sums[name] += np.stack([of_images.sum(axis=0), np.square(of_images).sum(axis=0)])
        p_a, p_b = (torch.from_numpy(values).view(images, -1, self.steps) for values in p.values())
        self._error += transition_error(p_a, p_b).sum().item()
        self.curves += len(p["p_a"])
        self.images += images

    @property
    def mte(self) -> float | None:
        return self._error / self.images if self.images else None

    def mean_curves(self) -> dict[str, list[float]]:
        """`p_a`, `p_b` and the standard errors of these means over images, one value per step."""
        return dict(self._means()) if self.curves else {}

    def _means(self) -> Iterator[tuple[str, list[float]]]:
        for name, (total, squares) in self._sums.items():
            mean = total / self.images
            variance = np.maximum(squares / self.images - np.square(mean), 0)
            yield name, mean.tolist()
            # ddof = 1: variance * N / (N - 1), over N images
            yield f"{name}_standard_error", np.sqrt(variance / max(1, self.images - 1)).tolist()


def describe_mte(config: Config, summary: CurveSummary, dataset: str, images_per_class: int | None) -> dict[str, Any]:
    """The MTE with everything it depends on (section 4.4: "must be reported clearly")."""
    settings = config.transitions
    return {
        "value": summary.mte,
        "dataset": dataset,
        "steps": settings.steps,
        "step_size": settings.step_size,
        "images": summary.images,
        "stepped": settings.stepped,
        "skip": settings.skip,
        "images_per_class": images_per_class,
    }


def _flat(p: Tensor) -> np.ndarray:
    return p.flatten().float().cpu().numpy()
