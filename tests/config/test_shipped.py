"""Configurations by name: in any folder, and never in the place of a file that is there."""

from pathlib import Path

import pytest

from tests.support.commands import REPOSITORY
from zskt_dist.config import load_config, load_graph
from zskt_dist.config.shipped import beside, locate, shipped
from zskt_dist.errors import UserError
from zskt_dist.sweep.space import load_sweep


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_file_is_shipped() -> None:
    files = [path for folder in ("configs", "tune") for path in (REPOSITORY / folder).rglob("*.yaml")]
    assert {path.resolve() for path in shipped().values()} == {path.resolve() for path in files}
    assert {"digits", "two_cores/graph", "paper/graph_table1", "sweeps/beta"} <= shipped().keys()


@pytest.mark.parametrize("name", ["digits", "digits.yaml", "configs/digits.yaml"])
def test_a_configuration_by_name(name: str) -> None:
    assert load_config(name, ["iterations=9"]) == load_config(REPOSITORY / "configs" / "digits.yaml", ["iterations=9"])


def test_graphs_and_sweeps_by_name() -> None:
    graph, tasks = load_graph(Path("two_cores/graph"), [])
    assert graph.title == "The paper's experiments on two CPU cores"
    assert tasks[0].config.experiment == "two_cores_digits"
    sweep, trials = load_sweep(Path("sweeps/beta"), [])
    assert (sweep.name, trials[0].config.experiment, len(trials)) == ("beta", "digits", 15)
    assert load_sweep(REPOSITORY / "configs" / "sweeps" / "beta.yaml", [])[1] == trials


@pytest.mark.parametrize("name", ["digits", "digits.yaml", "sub/digits.yaml"])
def test_a_file_goes_first(name: str) -> None:
    Path("sub").mkdir()
    Path(name).write_text("iterations: 3\n")
    assert load_config(name).iterations == 3


def test_a_folder_of_that_name_does_not() -> None:
    """As `runs_dir=.` makes one."""
    Path("digits").mkdir()
    assert load_config("digits").experiment == "digits"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("digts", "; did you mean 'digits'? `zskt configs` lists those"),
        ("sweeps/rando.yaml", "; did you mean 'sweeps/random'? `zskt configs` lists those"),
        ("zzzzzz", "; `zskt configs` lists those"),
        ("../pyproject", "; `zskt configs` lists those"),
    ],
)
def test_an_unknown_name(name: str, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(name)
    assert str(caught.value) == f"--config {name}: no such file, here or among the shipped ones{problem}"


@pytest.mark.parametrize("name", [name for name in shipped() if "graph" in name or "sweep" in name])
def test_copies_of_graphs_and_sweeps_mean_the_same(name: str) -> None:
    """Wherever they are copied to: they name configurations as anybody would."""
    copy = Path("mine.yaml")
    copy.write_text(shipped()[name].read_text())
    load = load_sweep if name.startswith("sweeps/") else load_graph
    assert [each.config for each in load(copy, [])[1]] == [each.config for each in load(Path(name), [])[1]]


def test_what_a_graph_names_is_beside_it() -> None:
    graph = Path("graphs/graph.yaml")
    graph.parent.mkdir()
    Path("other").mkdir()
    Path("graphs/link").symlink_to("../other/deep")
    for path in ("digits.yaml", "graphs/digits.yaml"):
        Path(path).touch()
    assert beside(graph, "digits.yaml") == Path("graphs/digits.yaml")
    assert beside(graph, "../digits.yaml") == Path("digits.yaml")
    assert beside(Path("graphs/link/sweep.yaml"), "../digits.yaml") == Path("graphs/digits.yaml"), "as it reads"
    assert beside(graph, "digits") == shipped()["digits"]
    assert not beside(graph, "mnist.yaml").exists(), "a file that is missing is no shipped one"
    assert locate(graph.with_name("digits.yaml")) == Path("graphs/digits.yaml")
