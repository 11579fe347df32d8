"""`ray-up.yaml`, as the cluster launcher reads it."""

import json
import shlex
from typing import Any

import jsonschema
import pytest

from tests.cluster.files import CLUSTER, documented_commands, pinned, read_documents, training_config
from tests.support.commands import REPOSITORY

(WRITTEN,) = read_documents(CLUSTER / "ray-up.yaml")


@pytest.fixture(scope="module")
def launched() -> dict[str, Any]:
    """With the launcher's defaults, validated by the launcher."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(json.loads(json.dumps(WRITTEN)))
    validate_config(config)
    return dict(config)


def test_a_misspelt_key_is_found(launched: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import validate_config

    with pytest.raises(jsonschema.ValidationError, match="min_worker"):
        validate_config(launched | {"min_worker": 1})


def test_all_nodes_are_there_from_the_beginning(launched: dict[str, Any]) -> None:
    head, worker = (launched["available_node_types"][kind] for kind in ("head", "worker"))
    assert worker["min_workers"] == worker["max_workers"] == launched["max_workers"]
    assert head["resources"]["CPU"] == 0


def test_ray_starts_with_a_token_and_a_dashboard_on_localhost(launched: dict[str, Any]) -> None:
    for commands in (launched["head_start_ray_commands"], launched["worker_start_ray_commands"]):
        (start,) = (command for command in commands if "ray start" in command)
        assert "RAY_AUTH_MODE=token" in shlex.split(start)[: shlex.split(start).index("ray")]
    (start,) = (shlex.split(command) for command in launched["head_start_ray_commands"] if "ray start" in command)
    assert "--dashboard-host=127.0.0.1" in start
    assert launched["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_start_commands_are_understood_by_the_installed_ray(launched: dict[str, Any]) -> None:
    from ray.scripts.scripts import start as ray_start

    for commands in (launched["head_start_ray_commands"], launched["worker_start_ray_commands"]):
        (words,) = (shlex.split(command) for command in commands if "ray start" in command)
        ray_start.make_context("ray start", words[words.index("start") + 1 :])


def test_nodes_install_the_lock_file_with_the_same_uv() -> None:
    mounted = set(WRITTEN["file_mounts"].items())
    assert {("~/zskt/requirements.txt", "requirements.txt"), ("~/zskt/pyproject.toml", "pyproject.toml")} <= mounted
    makefile = (REPOSITORY / "Makefile").read_text()
    setup = "\n".join(WRITTEN["setup_commands"])
    assert "UV_VERSION := " + setup.partition("uv==")[2].split()[0] in makefile
    assert "--constraint ~/zskt/requirements.txt" in setup


def test_nodes_are_not_open_to_the_world() -> None:
    """The launcher's own group admits SSH from anywhere, and its own role may do anything with EC2 and S3."""
    for kind in WRITTEN["available_node_types"].values():
        assert kind["node_config"]["SecurityGroupIds"]
        assert kind["node_config"]["IamInstanceProfile"]
        assert kind["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}
    assert "security_group" not in WRITTEN["provider"]


def test_the_documented_job_fits() -> None:
    page = REPOSITORY / "docs" / "clusters" / "cloud.md"
    (line,) = (words for words in documented_commands(page) if words[:3] == ["ray", "job", "submit"])
    config = training_config(line[line.index("--") + 1 :])
    worker = WRITTEN["available_node_types"]["worker"]
    assert config.launch.workers <= worker["min_workers"] * worker["resources"]["GPU"]
    assert config.launch.cpus_per_worker
    assert config.launch.cpus_per_worker <= worker["resources"]["CPU"]
    assert config.name
    assert config.runs_dir.startswith("/shared/")
    assert any("/shared" in command for command in WRITTEN["initialization_commands"])


def test_ray_is_new_enough_for_tokens() -> None:
    assert tuple(map(int, pinned("ray").split("."))) >= (2, 52, 0)
