"""Measures a trained network: scores, calibration, predictions on noise, transition curves."""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from zskt_dist.config import Config
from zskt_dist.data import ImageDataset
from zskt_dist.data.classes import class_names, names_to_order
from zskt_dist.distributed.stop_vote import StopVote
from zskt_dist.distributed.world import World
from zskt_dist.evaluation.confusion import FILE, confusion_of, write_confusion
from zskt_dist.evaluation.curve_summary import describe_mte
from zskt_dist.evaluation.curves import CurveParts
from zskt_dist.evaluation.estimates import brief, collapse, estimate, headline
from zskt_dist.evaluation.evaluated_run import Answer, EvaluatedRun
from zskt_dist.evaluation.held_out import stored_sources
from zskt_dist.evaluation.image_sources import uniform_noise
from zskt_dist.evaluation.scorer import Score, Scorer, doubt, images_at_a_time
from zskt_dist.evaluation.yardstick import Yardstick, find_or_make, yardsticks
from zskt_dist.files import write_json
from zskt_dist.networks.building import read_network
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.result import YardstickResult
from zskt_dist.speed import fold_batch_norm
from zskt_dist.streams import Purpose, stream
from zskt_dist.tracking.local import ProgressFile

log = logging.getLogger(__name__)


class RunEvaluation:
    """Measures the network of a finished run, on all workers together.

    Raises:
        UserError: the run or its teacher is missing.
    """

    def __init__(
        self, directory: RunDirectory, config: Config, dataset: ImageDataset, world: World, stop: StopVote
    ) -> None:
        self.directory, self.config, self.dataset = directory, config, dataset
        self.world, self.stop = world, stop
        # Rank 0 alone sees the run's files.
        self.measurement: EvaluatedRun | None = None
        self.role, weights = world.from_main(self._open)
        self.networks = {role: self._load(role, path) for role, path in weights.items()}
        self.network = self.networks[self.role]
        self.teacher = self.networks["teacher"] if self.role == "student" and len(self.networks) > 1 else None
        self.parts: CurveParts | None = None
        self.progress = ProgressFile(self.directory.progress if world.is_main else None)

    def run(self) -> None:
        """Writes `evaluation.json` and the curves, and adds the MTE to the run's `result.json`."""
        answer, classes = self._scores()
        answer["noise"] = self._noise()
        answer["estimates"], answer["yardstick"] = self._estimates()
        answer["mte"], answer["mean_curves"] = self._transitions(classes)
        if self.measurement:
            counts = {name: counts for name, counts in answer["confusion"].items() if name != "agreement"}
            names = class_names(self.config.data, self.dataset.num_classes)
            write_confusion(self.measurement.folder / FILE, confusion_of(counts, names))
            self.measurement.keep(answer | {"settings": self.measurement.settings})
            if self.parts:
                self.parts.remove()

    def _open(self) -> tuple[str, dict[str, str]]:
        """The role of the measured network, and the locations of the weights."""
        self.measurement = EvaluatedRun(self.directory, self.config)
        return self.measurement.role, self.measurement.weights

    def _load(self, role: str, path: Path | str) -> nn.Module:
        shape, classes = self.dataset.image_shape, self.dataset.num_classes
        network = read_network(self.config, role, shape, classes, path, f"{role} weights", self.world)
        return network.to(self.world.device).eval().requires_grad_(False)

    @torch.no_grad()
    def _scores(self) -> tuple[Answer, dict[str, np.ndarray]]:
        """Scores on the test images, and each network's predictions for all of them."""
        device = self.world.device
        standardise = self.dataset.standardise(device)
        shard = self.dataset.test.shard(self.world.rank, self.world.size).to(device)
        scorers = {name: Scorer(self.world, self.dataset.num_classes) for name in self._pairs()}
        predicted: dict[str, list[Tensor]] = {name: [] for name in self.networks}
        for batch in shard.batches(images_at_a_time(self.config)):
            x = standardise(batch.images)
            answers = {"label": batch.labels} | {name: network(x) for name, network in self.networks.items()}
            for name, (who, against) in self._pairs().items():
                scorers[name].add(answers[who], answers[against])
            for name, classes in predicted.items():
                classes.append(answers[name].argmax(dim=1))
        scores = {name: scorer.score() for name, scorer in scorers.items()}
        if self.world.is_main and "teacher" in scores and doubt(scores["teacher"]):
            names = names_to_order(self.config.data, self.dataset.num_classes)  # it reads the labels again
            log.warning("%s", doubt(scores["teacher"], names))
        return _answer(scores), {name: self._whole(parts) for name, parts in predicted.items()}

    def _pairs(self) -> dict[str, tuple[str, str]]:
        """Name of each comparison, with the roles or labels that it compares."""
        if self.teacher is None:
            return {self.role: (self.role, "label")}
        return {"student": ("student", "label"), "teacher": ("teacher", "label"), "agreement": ("student", "teacher")}

    def _whole(self, parts: list[Tensor]) -> np.ndarray:
        """Predictions of all shards, in the order of the test split."""
        mine = torch.cat(parts).cpu().numpy() if parts else np.zeros(0, dtype=np.int64)
        whole = np.zeros(len(self.dataset.test.labels), dtype=np.int64)
        for rank, shard in enumerate(self.world.gather(mine)):
            whole[rank :: self.world.size] = shard
        return whole

    @torch.no_grad()
    def _noise(self) -> Answer | None:
        """Shares of the predicted classes on pixels from U{0, …, 255}, normalised as the data (Appendix 2)."""
        images, size = self.config.evaluation.noise_images, self.config.evaluation.batch_size
        if images == 0:
            return None
        classes, device = self.dataset.num_classes, self.world.device
        counts = {name: torch.zeros(classes, dtype=torch.int64, device=device) for name in self.networks}
        standardise = self.dataset.standardise(self.world.device)
        for number in range(self.world.rank, -(-images // size), self.world.size):
            rng = stream(self.config.seed, Purpose.UNIFORM_NOISE, number)
            shape = (min(size, images - number * size), *self.dataset.image_shape)
            pixels = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8)).to(self.world.device)
            for name, network in self.networks.items():
                for part in pixels.split(images_at_a_time(self.config)):
                    predicted = network(standardise(part)).argmax(dim=1)
                    counts[name] += torch.bincount(predicted, minlength=classes)
        return {"images": images} | {
            name: (self.world.sum(count).double() / images).tolist() for name, count in counts.items()
        }

    def _estimates(self) -> tuple[Answer | None, YardstickResult | None]:
        """Writes `estimates.json`; its main numbers, and those of the yardstick. None without a teacher."""
        if self.teacher is None:
            return None, None
        shape, device = self.dataset.image_shape, self.world.device
        standardise, yardstick = self.dataset.standardise(device), self._yardstick(self.teacher)
        sources = stored_sources(self.config, self.directory.snapshots, shape, self.world, self.dataset.mean_std)
        sources += [yardstick.source(standardise, device)] if yardstick else []
        sources.append(uniform_noise(shape, standardise, device))
        found = estimate(self.config, self.network, self.teacher, sources, self.world)
        if found and self.measurement:
            write_json(self.measurement.folder / self.directory.estimates.name, found)
        if not found:
            return None, None
        if self.world.is_main and (warning := collapse(found)):
            log.warning("%s", warning)
        return brief(found), headline(found, yardstick.sha256) if yardstick else None

    def _yardstick(self, teacher: nn.Module) -> Yardstick | None:
        if not self.config.evaluation.yardstick:
            return None
        shape, classes, statistics = self.dataset.image_shape, self.dataset.num_classes, self.dataset.mean_std
        folder = yardsticks(self.directory)
        return find_or_make(folder, teacher, shape, classes, statistics, self.world, self.progress.tick)

    def _transitions(self, classes: dict[str, np.ndarray]) -> tuple[Answer | None, dict[str, list[float]]]:
        settings = self.config.transitions
        if self.teacher is None or settings.images == 0 or self.dataset.num_classes < 2:
            return None, {}
        agreed = np.flatnonzero(classes["student"] == classes["teacher"])
        positions = agreed[: settings.images]
        if len(positions) == 0:
            return None, {}  # the networks agree on no image
        from_class = classes["student"] if settings.skip == "agreed" else self.dataset.test.labels.numpy()
        folder = Path()  # only rank 0 writes, so only it needs the folder
        if self.measurement:
            _warn_of_absent_classes(from_class[agreed], len(positions))
            images = self.dataset.test.images[torch.from_numpy(positions)].numpy()
            folder = self.measurement.parts(*(each.tobytes() for each in (positions, from_class[positions], images)))
        self.parts = CurveParts(folder, self.config, positions, from_class[positions], self.dataset.num_classes)
        pair = (self.network, self.teacher) if settings.stepped == "student" else (self.teacher, self.network)
        if self.config.speed.folded_teacher:  # auto or true
            pair = fold_batch_norm(pair[0])[0], fold_batch_norm(pair[1])[0]
        standardise = self.dataset.standardise(self.world.device)
        self.parts.compute(pair, self.dataset.test, standardise, self.world, self.stop, self.progress)
        if not self.measurement:
            return None, {}
        summary = self.parts.merge(self.measurement.folder / "transition_curves.parquet")
        mte = describe_mte(self.config, summary, self.dataset.name, self.measurement.result["images_per_class"])
        return mte, summary.mean_curves()


def _warn_of_absent_classes(from_class: np.ndarray, count: int) -> None:
    """Warns where the first images of the test split lack classes, as in a split that is sorted by class.

    Args:
        from_class: Classes of all agreed images in the order of the split, int64.
        count: N, number of images that are measured.
    """
    absent = np.setdiff1d(from_class, from_class[:count])
    if len(absent):
        log.warning(
            "transitions.images=%d: the first %d agreed test images lack %d classes that the others have (first: %d); "
            "use a larger number if the test split is sorted by class",
            count,
            count,
            len(absent),
            absent[0],
        )


def _answer(scores: dict[str, Score]) -> Answer:
    trained = "student" if "student" in scores else "teacher"
    against_labels = {name: score for name, score in scores.items() if name != "agreement"}
    return {
        "accuracy": scores[trained].accuracy,
        "teacher_accuracy": scores["teacher"].accuracy if "teacher" in scores else None,
        "agreement": scores["agreement"].accuracy if "agreement" in scores else None,
        "images": scores[trained].images,
        "per_class_accuracy": {name: score.class_accuracies for name, score in against_labels.items()},
        "confusion": {name: score.confusion.tolist() for name, score in scores.items() if score.confusion is not None},
        "calibration": {name: score.calibration._asdict() for name, score in scores.items()},
    }
