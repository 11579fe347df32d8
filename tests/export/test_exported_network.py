"""What is exported of a run whose files are no longer as they were."""

import json
from pathlib import Path

import pytest

from tests.export.runs import untrained_run
from zskt_dist.errors import ConfigError
from zskt_dist.export.exported_network import open_network
from zskt_dist.runs.directory import RunDirectory


def test_a_student_stands_alone_where_its_teacher_cannot_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory, damaged = RunDirectory(untrained_run(tmp_path)), tmp_path / "teacher.safetensors"
    damaged.write_text("no weights")
    (directory.path / "command.json").write_text(json.dumps({"command": "train", "teacher": str(damaged)}))
    result = directory.finished()
    assert result
    exported = open_network(directory, result)
    assert (exported.role, exported.teacher) == ("student", None)
    assert f"the student stands alone: teacher weights='{damaged}': damaged" in caplog.text
    with pytest.raises(ConfigError, match="damaged or not safetensors"):
        open_network(directory, result, "teacher")
