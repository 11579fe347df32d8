"""The Dockerfile: linted, and consistent with the files it copies and the versions the project pins."""

import re
import subprocess

from tests.cluster.files import CLUSTER, IMAGE_FOLDER, pinned, program
from tests.support.commands import REPOSITORY
from zskt_dist import __version__

DOCKERFILE = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")


def _instructions(name: str) -> list[str]:
    joined = re.sub(r"\\\n\s*", " ", DOCKERFILE)
    return re.findall(rf"^{name} (.*)$", joined, re.MULTILINE)


def test_hadolint() -> None:
    hadolint = program("hadolint")
    assert hadolint
    answer = subprocess.run(
        [hadolint, "--no-color", str(CLUSTER / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_what_is_copied_exists_and_passes_dockerignore() -> None:
    allowed = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for words in map(str.split, _instructions("COPY")) for source in words[:-1]}
    assert copied == allowed
    assert all((REPOSITORY / source).exists() for source in copied)
    assert "*" in (REPOSITORY / ".dockerignore").read_text().splitlines()


def test_the_image_is_not_root_and_wants_a_token() -> None:
    (user,) = _instructions("USER")
    assert user == "1000", "a number, or runAsNonRoot cannot be checked"
    assert any("RAY_AUTH_MODE=token" in variables for variables in _instructions("ENV"))


def test_bytecode_is_in_the_image() -> None:
    """A user who cannot write it would compile Ray anew in every process."""
    before_installing, installing, _ = DOCKERFILE.partition("RUN uv pip install")
    assert installing
    assert "UV_COMPILE_BYTECODE=1" in before_installing


def test_versions_are_the_projects() -> None:
    (uv,) = re.findall(r"^UV_VERSION := (\S+)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert _instructions("ARG") == [f"UV_VERSION={uv}"]
    assert _instructions("WORKDIR") == [IMAGE_FOLDER]
    assert re.findall(r"python:(\d\.\d+)", _instructions("FROM")[0]) == ["3.11"], "the lock file's lowest Python"
    assert f"zskt-dist:{__version__}-ray{pinned('ray')}" in DOCKERFILE


def test_no_index_address() -> None:
    assert not re.search(r"index-url|find-links|UV_INDEX|PIP_INDEX", DOCKERFILE)
