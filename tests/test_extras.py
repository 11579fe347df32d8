"""What is missing is one line that names the extra, and the extras bring what that line says."""

import tomllib
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.commands import REPOSITORY
from zskt_dist.errors import UserError
from zskt_dist.extras import EXTRAS, is_installed, lacking, require

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OPTIONAL = {
    extra: {canonicalize_name(Requirement(line).name) for line in lines}
    for extra, lines in PROJECT["optional-dependencies"].items()
}


@pytest.mark.parametrize(
    ("modules", "absent", "problem"),
    [
        (["ray"], [], None),
        (["ray"], ["ray"], "needs Ray: pip install 'zskt-dist[ray]'"),
        (["ray", "pandas"], ["pandas", "scipy"], "needs pandas: pip install 'zskt-dist[report]'"),
        (
            ["torchvision", "scipy"],
            ["scipy", "torchvision"],
            "needs torchvision and SciPy: pip install 'zskt-dist[zoo]'",
        ),
        (["pandas", "scipy"], ["scipy", "pandas"], "needs pandas and SciPy: pip install 'zskt-dist[report]'"),
        (
            ["ray", "pandas", "matplotlib"],
            ["ray", "pandas", "matplotlib"],
            "needs Matplotlib, pandas and Ray: pip install 'zskt-dist[report,ray]'",
        ),
    ],
)
def test_what_is_missing(
    modules: list[str], absent: list[str], problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more extras than it takes: one brings SciPy with torchvision, another with pandas."""
    monkeypatch.setattr("zskt_dist.extras.find_spec", lambda name: None if name in absent else name)
    assert lacking(*modules) == problem
    if problem is None:
        require("zskt sweep", *modules)
    else:
        with pytest.raises(UserError) as caught:
            require("zskt sweep", *modules)
        assert str(caught.value) == f"zskt sweep {problem}"


def test_extras_bring_the_modules_that_messages_promise() -> None:
    distributions = packages_distributions()
    for extra, modules in EXTRAS.items():
        for module in filter(is_installed, modules):
            assert {canonicalize_name(name) for name in distributions[module]} & OPTIONAL[extra], (extra, module)


def test_all_is_every_extra_for_users() -> None:
    (line,) = PROJECT["optional-dependencies"]["all"]
    assert Requirement(line).name == PROJECT["name"]
    assert Requirement(line).extras == set(EXTRAS) == set(OPTIONAL) - {"all", "dev", "docs"}
