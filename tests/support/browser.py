"""Headless Chromium, where it is installed, and MLflow's pages for it to look at."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SECONDS = 180
_PAGE_MILLISECONDS = 30_000
"""A page's own clock, which stands still while it waits for the server."""


def browser() -> str | None:
    """Its program; None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def look(url: str, picture: Path, size: tuple[int, int] = (1280, 900)) -> str:
    """Writes a picture of the page (PNG) and returns its DOM; width and height in pixels."""
    program = browser()
    assert program
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={size[0]},{size[1]}"]
    options += [f"--virtual-time-budget={_PAGE_MILLISECONDS}", f"--user-data-dir={picture.with_suffix('.profile')}"]
    for output in (f"--screenshot={picture}", "--dump-dom"):
        done = subprocess.run(
            [program, *options, output, url], capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    shutil.rmtree(picture.with_suffix(".profile"), ignore_errors=True)
    return done.stdout


@contextmanager
def mlflow_server(store: str) -> Iterator[str]:
    """The address of a server of the store on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--backend-store-uri", store, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(address, server)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=60)


def _wait(address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            return
        except OSError:
            assert server.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.3)
