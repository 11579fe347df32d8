"""The files of `cluster/`, and the command lines in them, read as their users would."""

import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.support.commands import REPOSITORY
from zskt_dist.commands.shared import _parser
from zskt_dist.config import Config, load_config
from zskt_dist.config.shipped import shipped

CLUSTER = REPOSITORY / "cluster"
IMAGE_FOLDER = "/app"  # the Dockerfile's WORKDIR, which is a copy of the repository


class _NoDuplicates(yaml.SafeLoader):
    """PyYAML takes the last of two equal keys; Kubernetes refuses them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        assert len(keys) == len(set(keys)), f"{node.start_mark}: a key twice in {keys}"
        return super().construct_mapping(node, deep)


def program(name: str) -> str | None:
    """A linter, which lies beside the Python that runs the tests."""
    return shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def read_documents(path: Path) -> list[dict[str, Any]]:
    return [dict(document) for document in yaml.load_all(path.read_text(encoding="utf-8"), Loader=_NoDuplicates)]


def pinned(package: str) -> str:
    """Its version in the lock file."""
    found = re.search(rf"^{re.escape(package)}==(\S+)$", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)
    assert found, f"{package} is not pinned"
    return found[1]


def training_config(words: list[str]) -> Config:
    """The configuration of `python -m zskt_dist.VERB …`; exits or raises where the command would."""
    python, module_option, module, *arguments = words
    assert (python, module_option) == ("python", "-m")
    package, verb = module.split(".")
    assert (REPOSITORY / package / "commands" / f"{verb}.py").is_file(), f"no module {module}"
    options = _parser(verb, "").parse_intermixed_args(arguments)
    file = REPOSITORY / options.config.replace(IMAGE_FOLDER, str(REPOSITORY), 1)
    return load_config(shipped().get(options.config, file), options.overrides)


def documented_commands(page: Path) -> list[list[str]]:
    """All command lines in the fenced blocks of a Markdown page, without comments."""
    blocks = re.findall(r"^```\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]
