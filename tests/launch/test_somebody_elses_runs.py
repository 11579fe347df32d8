"""A run directory may be somebody else's: its links, its names, its code and its store are not the user's."""

import http.server
import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.configs import tiny_overrides
from zskt_dist.commands import evaluate, replay, synthesize, train
from zskt_dist.export import __main__ as export
from zskt_dist.models import ImageShape, build_network
from zskt_dist.networks.weights import read_about, weights_file
from zskt_dist.report import __main__ as report
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.runs.mirror import Mirror
from zskt_dist.runs.sums import write_recorded

CODE = """
from pathlib import Path
Path(__file__).with_suffix(".ran").touch()
from zskt_dist.models import LeNet
def net(in_channels, num_classes):
    return LeNet(in_channels=in_channels, num_classes=num_classes, image_size=(8, 8))
"""
MEASURE = ["transitions.images=2", "transitions.steps=3", "launch.kind=local"]
SECRET = "not-theirs"

Command = Callable[[Path], int]
COMMANDS: dict[str, Command] = {
    "evaluate": lambda run: evaluate.main([str(run), *MEASURE]),
    "export": lambda run: export.main([str(run), "--to", "safetensors", "--out", str(run.parents[2] / "out")]),
    "synthesize": lambda run: synthesize.main([str(run), "--images", "32", "--out", str(run.parents[2] / "out")]),
    "replay": lambda run: replay.main([str(run), "--uri", f"sqlite:///{run.parents[2] / 'mlflow.db'}"]),
}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theirs")
    assert train.main(tiny_overrides(folder, "name=run", "launch.workers=1", "launch.kind=local")) == 0
    return folder


@pytest.fixture
def run(theirs: Path, tmp_path: Path) -> Path:
    shutil.copytree(theirs / "runs", tmp_path / "runs")
    path = tmp_path / "runs/digits/run"
    begun = json.loads((path / "command.json").read_text())
    begun["teacher"] = begun["teacher"].replace(str(theirs), str(tmp_path))
    (path / "command.json").write_text(json.dumps(begun))
    return path


def test_a_link_to_itself_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "loop").symlink_to("loop")
    assert evaluate.main([str(run), *MEASURE]) == 2
    assert f"{run / 'loop'} is a link out of the run, to loop" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["figures/pseudo_images.png", "figures"])
@pytest.mark.parametrize("verb", COMMANDS)
def test_a_link_out_of_the_run_is_refused(
    run: Path, verb: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "home"
    secret.mkdir()
    (secret / "pseudo_images.png").write_text(SECRET)
    link = run / what
    shutil.rmtree(link) if link.is_dir() else link.unlink(missing_ok=True)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(secret if what == "figures" else secret / "pseudo_images.png")
    assert COMMANDS[verb](run) == 2
    assert f"{link} is a link out of the run, to {link.readlink()}; put the file" in capsys.readouterr().err


def test_a_report_leaves_such_a_run_out(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "id_rsa").write_text(SECRET)
    (run / "figures/pseudo_images.png").unlink(missing_ok=True)
    (run / "figures/pseudo_images.png").symlink_to(tmp_path / "id_rsa")
    report.main([str(run), "--out", str(tmp_path / "report")])
    assert "is a link out of the run" in caplog.text
    assert not any(
        SECRET in file.read_text(errors="replace") for file in (tmp_path / "report").rglob("*") if file.is_file()
    )


def test_links_within_the_run_and_to_the_run_are_followed(run: Path, tmp_path: Path) -> None:
    (run / "snapshots").rename(run / "elsewhere")
    (run / "snapshots").symlink_to("elsewhere")
    (tmp_path / "linked").symlink_to(run)
    assert export.main([str(tmp_path / "linked"), "--to", "safetensors", "--out", str(tmp_path / "out")]) == 0


def test_a_store_gets_no_file_that_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "id_rsa").write_text(SECRET)
    copy, store = tmp_path / "copy", tmp_path / "store"
    copy.mkdir()
    (copy / "result.json").write_text("{}")
    (copy / "figure.png").symlink_to(tmp_path / "id_rsa")
    Mirror(f"file://{store}", copy).push()
    assert [path.name for path in store.iterdir()] == ["result.json"]


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc", "..", "a/b"])
def test_names_in_a_result_lead_nowhere_else(
    run: Path, name: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {"seeds": [0], "runs": [name]}))
    assert evaluate.main([str(run), *MEASURE]) == 2
    assert f"names {name!r} as a run beside it, and that lies elsewhere" in capsys.readouterr().err
    assert RunDirectory(run).sibling("other").path == run.with_name("other")


@pytest.mark.parametrize("verb", COMMANDS)
def test_code_that_a_run_names_runs_only_if_the_user_names_it_too(
    run: Path, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "their_code.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_code", raising=False)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("student:\n  arch: lenet", "student:\n  arch: their_code:net"))
    assert COMMANDS[verb](run) == 2
    expected = f"error: {run} needs code that it names; if you trust it, name it: student.arch=their_code:net\n"
    assert capsys.readouterr().err == expected
    assert not (tmp_path / "their_code.ran").exists()


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_divergence_that_a_run_names_is_not_even_imported(
    run: Path, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done with a finished run needs no loss."""
    (tmp_path / "their_code.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_code", raising=False)
    config = run / "config.yaml"
    written = config.read_text()
    config.write_text(written.replace("divergence: forward_kl", "divergence: their_code:net"))
    assert config.read_text() != written
    assert COMMANDS[verb](run) == 0
    assert not (tmp_path / "their_code.ran").exists()


def test_code_that_the_user_names_runs(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_code.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_code", raising=False)
    config, student = run / "config.yaml", run / "student.safetensors"
    config.write_text(config.read_text().replace("student:\n  arch: lenet", "student:\n  arch: their_code:net"))
    network = build_network("lenet", ImageShape(1, 8, 8), 10)
    write_recorded(student, weights_file(network, read_about(student) | {"arch": "their_code:net"}))
    words = [str(run), "student.arch=their_code:net"]
    assert evaluate.main([*words, *MEASURE]) == 0
    assert export.main([*words, "--to", "safetensors", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "their_code.ran").exists()


def test_another_network_than_the_runs_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (lambda words: evaluate.main(words), lambda words: export.main(words)):
        assert command([str(run), "student.arch=wrn-16-1"]) == 2
        assert capsys.readouterr().err == "error: student.arch='wrn-16-1': belongs to the run, which has lenet\n"


class _Server(http.server.BaseHTTPRequestHandler):
    """Notes what it is sent, and knows nothing."""

    seen: list[str]

    def _answer(self) -> None:
        self.seen.append(str(self.headers.get("Authorization")))
        self.send_response(404)
        self.end_headers()

    do_GET = do_POST = _answer  # noqa: N815 (names of the standard library)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """Address of a web server, and the authorisations that it was sent."""
    handler = type("Handler", (_Server,), {"seen": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as here:
        threading.Thread(target=here.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{here.server_port}", handler.seen
        here.shutdown()


@pytest.mark.parametrize("named", ["nowhere", "--uri", "MLFLOW_TRACKING_URI"])
def test_tokens_go_only_where_the_user_names_the_store(
    run: Path,
    server: tuple[str, list[str]],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    uri, seen = server
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    (run / "mlflow.json").write_text(json.dumps({"tracking_uri": uri}))
    if named == "MLFLOW_TRACKING_URI":
        monkeypatch.setenv(named, uri)
    assert replay.main([str(run), *(["--uri", uri] if named == "--uri" else [])]) == 2
    assert seen, "the server was asked"
    assert any(SECRET in each for each in seen) == (named != "nowhere")
    warned = f"no password or token is sent to {uri}, which only the run names; if you trust it, name it: --uri {uri}"
    assert caplog.text.count(warned) == (named == "nowhere")


def test_evaluate_sends_none_either(
    run: Path, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri, seen = server
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow/credentials").write_text(
        f"[mlflow]\nmlflow_tracking_username=me\nmlflow_tracking_password={SECRET}\n"
    )
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("uri: none", f"uri: {uri}"))
    (run / "mlflow.json").write_text(json.dumps({"tracking_uri": uri}))
    assert evaluate.main([str(run), *MEASURE]) == 0
    assert seen, "the server was asked"
    assert set(seen) == {"Basic Z3Vlc3Q6Z3Vlc3Q="}, "guest:guest, in place of what stands in the user's file"


@pytest.mark.parametrize("verb", ["evaluate", "export"])
def test_a_result_without_networks_is_one_line(run: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "result.json").write_text(json.dumps({"status": "finished"}))
    assert COMMANDS[verb](run) == 2
    expected = f"error: {run / 'result.json'} lacks command, teacher, student; it is not the result of a run\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("content", [{"x": 1}, {"run_id": 1}, {"tracking_uri": 3}])
def test_an_address_that_is_none(run: Path, content: dict[str, object], tmp_path: Path) -> None:
    (run / "mlflow.json").write_text(json.dumps(content))
    (run / "command.json").write_text(json.dumps({"group": 5}))
    assert replay.main([str(run), "--uri", f"sqlite:///{tmp_path / 'mlflow.db'}"]) == 2  # of the group
    (run / "command.json").unlink()
    assert replay.main([str(run), "--uri", f"sqlite:///{tmp_path / 'mlflow.db'}"]) == 0
