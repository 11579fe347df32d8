"""Transition curves of many images: shared over workers, saved part by part, merged into one Parquet file."""

import shutil
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
        "p_a": pa.float32(),  # of the stepped network
        "p_b": pa.float32(),
    }
)


class CurveParts:
    """The curves of chosen test images in parts, each written once it is complete: what stands is not done again.

    Args:
        folder: Of the parts; its name tells the settings apart.
        positions: Of the images in the test split.
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
        """All missing parts, each by the worker whose turn it is; raises Interrupted when asked to stop."""
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
        """One file in the order of the parts, and what it says in the mean; memory holds one part at a time."""
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
        """The parts, once what they were merged into is safe."""
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
        self.steps, self.images = steps, 0
        self._sums = torch.zeros(2, 2, steps, dtype=torch.float64)  # of the means over targets and of their squares
        self._error = 0.0

    def add(self, table: pa.Table) -> None:
        """All curves of some images, as `SCHEMA` orders them."""
        images = len(table["image"].unique())
        p_a, p_b = (torch.tensor(table[name].to_numpy()).view(images, -1, self.steps) for name in ("p_a", "p_b"))
        self.add_curves(p_a, p_b)

    def add_curves(self, p_a: Tensor, p_b: Tensor) -> None:
        """All curves of some images, p_j of A and of B, each [B, C - 1, K]."""
        p = torch.stack([p_a, p_b]).double().cpu()
        # The curves of one image are not independent: the spread is that of the images' means.
        of_images = p.mean(dim=2)
        self._sums += torch.stack([of_images.sum(dim=1), of_images.square().sum(dim=1)])
        self._error += transition_error(*p).sum().item()
        self.images += len(p_a)

    @property
    def mte(self) -> float | None:
        return self._error / self.images if self.images else None

    def mean_curves(self) -> dict[str, list[float]]:
        """`p_a`, `p_b` and the standard errors of these means over images, one value per step."""
        if not self.images:
            return {}
        mean, squares = self._sums / self.images
        variance = (squares - mean.square()).clamp(min=0)
        error = (variance / max(1, self.images - 1)).sqrt()  # ddof = 1: variance * N / (N - 1), over N images
        values = torch.stack([mean, error], dim=1).flatten(end_dim=1).tolist()
        return dict(zip(("p_a", "p_a_standard_error", "p_b", "p_b_standard_error"), values, strict=True))


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
