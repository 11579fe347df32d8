"""A tracking server can neither stop nor delay a command, whatever it answers."""

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import tiny_overrides
from zskt_dist.commands import train
from zskt_dist.launch import patience as module
from zskt_dist.launch.patience import Patience, TooLateError

SERVER = "http://127.0.0.1:9"


def test_a_store_on_this_machine_is_waited_for() -> None:
    assert Patience(0.0).ask("sqlite:///mlflow.db", lambda: "answer") == "answer"


def test_answers_and_errors_come_through() -> None:
    patience = Patience()
    assert patience.ask(SERVER, lambda: 3) == 3
    with pytest.raises(ConnectionError, match="refused"):
        patience.ask(SERVER, lambda: _raise(ConnectionError("refused")))
    assert patience.left > 10
    assert not patience.is_over


def test_time_that_was_waited_is_gone_and_what_is_late_is_left_behind() -> None:
    patience, waiting = Patience(0.8), threading.Event()
    patience.ask(SERVER, lambda: time.sleep(0.2))
    assert patience.left == pytest.approx(0.4, abs=0.15)
    started = time.monotonic()
    with pytest.raises(TooLateError, match=r"^no answer within 0.8 s \(tracking.patience\)$"):
        patience.ask(SERVER, waiting.wait)
    assert time.monotonic() - started < 2
    patience.begin(20.0)
    started = time.monotonic()
    with pytest.raises(TooLateError):
        patience.ask(SERVER, waiting.wait)
    assert time.monotonic() - started < 1, "a server that was late once is not waited for again"
    waiting.set()


def _raise(error: Exception) -> None:
    raise error


Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def _busy(status: int) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Retry-After", "300")
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def _trickling(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    for _ in range(100):
        request.wfile.write(b" ")
        request.wfile.flush()
        time.sleep(0.5)


def _slow(request: http.server.BaseHTTPRequestHandler) -> None:
    time.sleep(5)
    _busy(500)(request)


ANSWERS = {"429": _busy(429), "503": _busy(503), "a byte a time": _trickling, "5 s a request": _slow}


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            with suppress(OSError):  # the client has gone
                request.param(self)

        do_GET = do_POST = do_PATCH = do_PUT = _answer  # noqa: N815 (names of the standard library)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as here:
        here.daemon_threads = True
        here.block_on_close = False
        threading.Thread(target=here.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{here.server_port}"
        here.shutdown()


@pytest.mark.parametrize("server", ANSWERS.values(), ids=ANSWERS, indirect=True)
def test_no_answer_delays_a_run(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def seconds(folder: Path, uri: str) -> float:
        monkeypatch.setattr(module.patience, "is_over", False)
        words = [f"tracking.uri={uri}", "tracking.patience=3", "launch.workers=1", "launch.kind=local", "name=run"]
        started = time.monotonic()
        assert train.main(tiny_overrides(folder, *words)) == 0
        return time.monotonic() - started

    without = seconds(tmp_path / "without", "none")
    assert seconds(tmp_path / "with", server) < without + 3 + 5, "the deadline, and as much for a busy machine"
    assert "Nothing is lost" in caplog.text
    assert "replay" in caplog.text
