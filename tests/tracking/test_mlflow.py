"""MLflow gets every row once, and an absent or silent server costs the training nothing."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from tests.support.stores import new_store
from tests.support.user_networks import Undecided
from zskt_dist.errors import UserError
from zskt_dist.models import WideResNet
from zskt_dist.tracking.base import Row
from zskt_dist.tracking.mlflow import runs
from zskt_dist.tracking.mlflow.models import log_student, register_model
from zskt_dist.tracking.mlflow.runs import DataInput, open_run, upload
from zskt_dist.tracking.mlflow.store import RunAddress, check_reachable, tracking_uri
from zskt_dist.tracking.mlflow.stream import MlflowStream

ROWS: list[Row] = [{"iteration": i, "time": 1000.0 + i, "kl": 1.0 / i} for i in range(1, 6)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return new_store(tmp_path_factory.mktemp("mlflow"))


def _open(store: str, name: str) -> RunAddress:
    return open_run(store, "digits", name, params={"loss.beta": 250.0}, tags={"pair": "a -> b"})


def _points(address: RunAddress, key: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    history = MlflowClient(tracking_uri=address.tracking_uri).get_metric_history(address.run_id, key)
    return sorted((metric.step, metric.value) for metric in history)


def test_what_the_stream_missed_is_uploaded_and_nothing_twice(store: str, tmp_path: Path) -> None:
    address = _open(store, "stream")
    picture = tmp_path / "pseudo_images_00000002.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture)
    stream = MlflowStream(address)
    for row in ROWS[:2]:
        stream.log_row(row)
    stream.log_image(2, picture)
    stream.close()
    assert _points(address, "losses/kl") == [(1, 1.0), (2, 0.5)]

    sent = [upload(address, rows=ROWS, images={2: picture}, tags={"a": "b"}, status="FINISHED") for _ in range(2)]
    assert sent == [3, 0]
    assert _points(address, "losses/kl") == [(i, 1.0 / i) for i in range(1, 6)]
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store)
    assert len([f for f in client.list_artifacts(address.run_id, "images") if f.path.endswith(".png")]) == 1
    run = client.get_run(address.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"loss.beta": "250.0"}
    assert run.data.tags["pair"] == "a -> b"


def test_a_run_of_an_earlier_version_gets_the_new_names_in_full_and_keeps_the_old(store: str) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    address, client = _open(store, "earlier"), MlflowClient(tracking_uri=store)
    client.log_batch(address.run_id, metrics=[Metric("kl", 1.0 / i, 1000 + i, i) for i in range(1, 4)])
    assert open_run(store, "digits", "earlier", tags={}, known=address) == address
    stream = MlflowStream(address)
    stream.log_row(ROWS[3])  # it goes on from iteration 3
    stream.close()
    assert [upload(address, rows=ROWS) for _ in range(2)] == [4, 0], "all but the one that was streamed"
    assert _points(address, "losses/kl") == [(i, 1.0 / i) for i in range(1, 6)]
    assert _points(address, "kl") == [(i, 1.0 / i) for i in range(1, 4)]


def test_what_somebody_has_edited_in_mlflow_stays(store: str) -> None:
    from mlflow import MlflowClient

    client, note = MlflowClient(tracking_uri=store), "mlflow.note.content"

    def shown(address: RunAddress) -> tuple[str, str]:
        run = client.get_run(address.run_id)
        return run.info.run_name, run.data.tags[note]

    address = open_run(store, "digits", "digits-1234", tags={})
    earlier = client.create_run(address.experiment_id, run_name="digits-1234")  # as earlier versions named it
    for number in (1, 2):
        upload(address, tags={"mlflow.runName": f"name {number} (digits-1234)", note: f"note {number}"})
        assert shown(address) == (f"name {number} (digits-1234)", f"note {number}")
    client.update_run(address.run_id, name="mine")
    client.set_tag(address.run_id, note, "my note")
    open_run(store, "digits", "name 3 (digits-1234)", tags={note: "note 3"}, known=address)
    assert shown(address) == ("mine", "my note")
    known = RunAddress(store, address.experiment_id, earlier.info.run_id)
    assert shown(open_run(store, "digits", "name 4 (digits-1234)", tags={note: "note 4"}, known=known)) == (
        "name 4 (digits-1234)",
        "note 4",
    )


def test_experiments_are_of_training_unless_somebody_has_chosen(store: str) -> None:
    from mlflow import MlflowClient

    client, kind = MlflowClient(tracking_uri=store), "mlflow.experimentKind"
    client.create_experiment("before")
    client.create_experiment("chosen", tags={kind: "genai_development"})
    for name, expected in (
        ("new", "custom_model_development"),
        ("before", "custom_model_development"),
        ("chosen", "genai_development"),
    ):
        open_run(store, name, "run", tags={})
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None
        assert experiment.tags[kind] == expected


def test_data_are_inputs_once(store: str) -> None:
    from mlflow import MlflowClient

    address, inputs = _open(store, "inputs"), [DataInput("cifar10", "ab" * 8, "testing", 10_000)]
    for _ in range(2):
        upload(address, inputs=inputs)
    (found,) = MlflowClient(tracking_uri=store).get_run(address.run_id).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest, found.dataset.profile) == (
        "cifar10",
        "ab" * 8,
        '{"images": 10000}',
    )
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "testing")]


def test_a_continued_run_reopens_its_mlflow_run(store: str) -> None:
    first = _open(store, "again")
    upload(first, rows=ROWS, status="KILLED")
    second = open_run(store, "digits", "again", params={"loss.beta": 250.0, "new": 1}, tags={}, known=first)
    assert second == first
    stream = MlflowStream(second)
    stream.log_row({"iteration": 3, "time": 9999.0, "kl": 1.0 / 3})  # executed again after the kill, later in time
    stream.close()
    assert _points(first, "losses/kl") == [(i, 1.0 / i) for i in range(1, 6)]


def test_the_logged_student_loads_back_and_takes_any_batch_size(store: str) -> None:
    import mlflow

    torch.manual_seed(0)
    network = WideResNet(10, 1, in_channels=1, num_classes=7).eval()
    address = _open(store, "model")
    mlflow.set_tracking_uri(store)
    with mlflow.start_run(run_id=address.run_id):
        uri = log_student(network, (1, 8, 8), name="student")
    x = torch.randn(5, 1, 8, 8)
    loaded = mlflow.pytorch.load_model(uri)
    torch.testing.assert_close(loaded(x), network(x), rtol=0, atol=1e-5)
    served = mlflow.pyfunc.load_model(uri).predict(x.numpy())
    np.testing.assert_allclose(served, network(x).detach().numpy(), atol=1e-5)


def test_a_model_that_cannot_be_logged_costs_a_warning(store: str, caplog: pytest.LogCaptureFixture) -> None:
    from mlflow import MlflowClient

    address, client = _open(store, "untraceable"), MlflowClient(tracking_uri=store)

    def log_model() -> str:
        return log_student(Undecided(10).eval(), (1, 8, 8), name="student")

    missing = upload(address, rows=ROWS, tags={"a": "b"}, log_model=log_model, status="FINISHED")
    assert missing == 5
    run = client.get_run(address.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["model_error"].startswith("the model cannot be logged in MLflow, as torch.export writes it: ")
    assert run.data.tags["model_error"] in caplog.text
    assert (run.data.tags["a"], "model_uri" in run.data.tags) == ("b", False)
    for is_logged in (True, False):
        with pytest.raises(UserError, match="the model cannot be logged"):
            register_model(address, "small", tags={}, log_model=log_model, is_logged=is_logged)
        assert client.get_run(address.run_id).info.status == "FINISHED"


@pytest.fixture(params=["closed", "silent"])
def dead_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URI of a port where nobody listens, or where connections are taken and never answered."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if request.param == "silent":
            server.listen(50)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_dead_server_neither_blocks_nor_raises(dead_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = MlflowStream(RunAddress(dead_server, "1", "a" * 32), patience=1.0)
    started = time.monotonic()
    for row in ROWS * 1000:
        stream.log_row(row)
    logged = time.monotonic()
    assert logged - started < 5, "to wait for one answer takes 10 s; a busy machine needed 1.6"
    stream.close()
    assert time.monotonic() - logged < 5


def test_an_outage_costs_one_warning_and_what_waited_is_sent_after_it(
    store: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address, connect, attempts = _open(store, "outage"), runs.connect, []

    def away_twice(uri: str) -> object:
        attempts.append(uri)
        if len(attempts) <= 2:
            raise ConnectionError("away")
        return connect(uri)

    monkeypatch.setattr(runs, "connect", away_twice)
    monkeypatch.setattr("zskt_dist.tracking.mlflow.stream._RETRY_SECONDS", 0.01)
    stream = MlflowStream(address)
    for sent, row in enumerate(ROWS[:3], start=1):
        stream.log_row(row)
        while len(attempts) < sent:
            time.sleep(0.01)
    stream.close()
    assert _points(address, "losses/kl") == [(1, 1.0), (2, 0.5), (3, 1.0 / 3)]
    messages = [record.getMessage() for record in caplog.records]
    # The thread of another test may still wait for its server, and warn of that.
    assert [message for message in messages if store in message] == [
        f"MLflow at {store}: ConnectionError: away; training goes on"
    ]


def test_a_run_that_ends_in_an_outage_does_not_wait_for_its_end(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address, down = _open(store, "ended"), threading.Event()

    def away(uri: str) -> object:
        down.set()
        raise ConnectionError("away")

    monkeypatch.setattr(runs, "connect", away)
    stream = MlflowStream(address)
    stream.log_row(ROWS[0])
    assert down.wait(10)
    started = time.monotonic()
    stream.close()
    assert time.monotonic() - started < 5, "30 seconds are for a run that goes on"


@pytest.mark.parametrize(
    ("configured", "environment", "expected"),
    [
        ("none", "http://a", None),
        ("http://b", "http://a", "http://b"),
        (None, "http://a", "http://a"),
        ("sqlite:////x/y.db", None, "sqlite:////x/y.db"),
    ],
)
def test_tracking_uri(
    configured: str | None, environment: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if environment:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", environment)
    assert tracking_uri(configured) == expected


def test_the_default_store_is_a_file_in_this_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking_uri(None) == f"sqlite:///{tmp_path}/mlflow.db"


def test_a_kill_while_a_database_is_made_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow makes its tables one after the other, and cannot go on with some of them."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "search_experiments", _killed)
        with pytest.raises(KeyboardInterrupt):
            check_reachable(uri)
    assert [path.name for path in tmp_path.iterdir()] == [".mlflow.db.lock"]
    for draft in (".mlflow.db.0123abcd.tmp", ".mlflow.db.0123abcd.tmp-journal"):  # as SIGKILL leaves them
        (tmp_path / draft).write_bytes(b"some of the tables")
    check_reachable(uri)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mlflow.db.lock", "mlflow.db"]
    before = (tmp_path / "mlflow.db").stat().st_ino
    check_reachable(uri)
    assert (tmp_path / "mlflow.db").stat().st_ino == before, "one that is there stays"


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
