"""The evaluation of a finished run: its settings, the place of its answer, and its part in the run's result."""

import hashlib
import json
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

from zskt_dist.config import Config
from zskt_dist.config.inputs import is_brought
from zskt_dist.errors import ConfigError, UserError
from zskt_dist.evaluation.yardstick import RECIPE
from zskt_dist.files import read_json, sha256_of, write_json
from zskt_dist.runs.directory import RunDirectory, check_networks
from zskt_dist.runs.locations import absolute, is_file, join, split
from zskt_dist.runs.mirror import local_file

Answer = dict[str, Any]


class EvaluatedRun:
    """A finished run and the settings of its evaluation.

    Args:
        config: The run's configuration with the settings of the evaluation; `teacher.checkpoint` names the teacher.

    Attributes:
        role: Role of the network that is measured, `student` or `teacher`.
        weights: Locations of the measured networks' weights, by role.

    Raises:
        UserError: the run is not finished; ConfigError: the location of its teacher is not known.
    """

    def __init__(self, directory: RunDirectory, config: Config) -> None:
        self.directory, self.config = directory, config
        result = directory.finished()
        if result is None:
            raise UserError(f"{directory.location}: the run is not finished, so there is nothing to evaluate yet")
        check_networks(directory, result)
        self.result = result
        self.role = "student" if result["student"] else "teacher"
        self.weights = {self.role: str(directory.weights(self.role))}
        if result["student"] and (result["teacher"] or config.teacher.checkpoint):
            checkpoint = config.teacher.checkpoint
            if checkpoint is None:
                raise ConfigError("teacher.checkpoint", None, f"{directory.location} does not say where its teacher is")
            self.weights["teacher"] = checkpoint

    @cached_property
    def settings(self) -> Answer:
        """Everything that the answer depends on; raises ConfigError where weights are missing."""
        data = self.config.data.model_dump(mode="json", include={"name", "mean", "std"})
        return {
            "transitions": self.config.transitions.model_dump(mode="json", exclude={"rows"}),
            "noise_images": self.config.evaluation.noise_images,
            "held_out_images": self.config.evaluation.held_out_images,
            "yardstick": RECIPE.version if self.config.evaluation.yardstick else None,
            "data": data | {"root": absolute(self.config.data.root)},
            "weights": {role: _identity(role, path) for role, path in self.weights.items()},
        }

    @cached_property
    def is_own(self) -> bool:
        """True if data set and teacher are the run's: only then its MTE is the one in `result.json`."""
        return self._own_data() and self._own_teacher()

    @property
    def folder(self) -> Path:
        """Folder of the answer and its curves; other data or another teacher have a folder of their own."""
        evaluation = self.directory.evaluation
        return evaluation if self.is_own else evaluation / f"other-{_digest(self.settings)}"

    def parts(self, *what: bytes) -> Path:
        """Folder for curves that are not complete yet; its name depends on all that they depend on."""
        return self.folder / f"curves-{_digest([self.settings, self.config.transitions.rows], *what)}"

    def finished(self) -> Answer | None:
        """The answer of an earlier evaluation of the same weights with the same settings; None where there is none."""
        try:
            answer = read_json(self.folder / "evaluation.json")
            return answer if answer and answer.get("settings") == self.settings else None
        except ConfigError:
            return None  # the weights are missing, so nothing can be compared

    def keep(self, answer: Answer) -> None:
        """Saves the answer, after the run's result has its MTE: so a saved answer is always complete."""
        self.publish(answer)
        write_json(self.folder / "evaluation.json", answer)

    def publish(self, answer: Answer) -> None:
        """Adds the MTE and the label-free estimates to the run's result, if data set and teacher are its own."""
        result = self.directory.finished() or self.result
        updated = result | {"mte": answer["mte"]}
        if answer["estimates"]:
            known = result.get("estimates") or {}
            # Without snapshots generators could be asked at the end of training only: those numbers stay.
            updated["estimates"] = known | {"sources": known.get("sources", {}) | answer["estimates"]}
        if answer.get("yardstick"):  # absent from answers of earlier versions
            updated["yardstick"] = answer["yardstick"]
        if self.is_own and result != updated:
            self.directory.finish(updated)

    def discard_parts(self) -> None:
        """Removes the curves of an interrupted evaluation."""
        for folder in self.folder.glob("curves-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _own_data(self) -> bool:
        own = self.directory.read_config()
        if own is None:
            return True
        before, now = own.data, self.config.data
        if (before.name, before.mean, before.std) != (now.name, now.mean, now.std):
            return False
        moved = not Path(before.root).exists()
        return now.name != "parquet" or moved or absolute(before.root) == absolute(now.root)

    def _own_teacher(self) -> bool:
        if not self.result["teacher"]:  # the run had none
            return "teacher" not in self.weights
        own = teacher_weights(self.directory)
        if "teacher" not in self.settings["weights"] or own is None or not _is_there(own):
            return True
        return _identity("teacher", own) == self.settings["weights"]["teacher"]


def teacher_weights(directory: RunDirectory) -> str | None:
    """Where the run's teacher lies: where it did then, or beside the run where all have been moved."""
    then = directory.teacher_weights()
    if then is None or _is_there(then):
        return then
    folder, name = split(then)
    moved = join(split(split(directory.location)[0])[0], "teachers", split(folder)[1], name)
    return moved if is_file(moved, "RUN_DIR") else then


def _is_there(location: str) -> bool:
    return is_brought(location) or is_file(location, "RUN_DIR")


def _identity(role: str, location: str) -> str:
    if is_brought(location):
        return location
    try:
        return sha256_of(local_file(location, f"{role} weights"))
    except OSError as error:
        raise ConfigError(f"{role} weights", location, f"cannot be read: {error.strerror}") from None


def _digest(settings: Any, *what: bytes) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for content in what:
        digest.update(content)
    return digest.hexdigest()[:8]
