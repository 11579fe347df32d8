"""Which Ray cluster a run joins: none that does not answer."""

import logging
import socket
from pathlib import Path

import pytest
from ray.exceptions import AuthenticationError

from zskt_dist.errors import UserError
from zskt_dist.launch import environment, ray


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which `ray start` leaves the address of its cluster."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


@pytest.mark.parametrize("given", [None, "", "auto", "local"])
def test_no_address_is_named(given: str | None, left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if given is not None:
        monkeypatch.setenv("RAY_ADDRESS", given)
        left.write_text("127.0.0.1:1")
    assert environment.named_ray_cluster() is None
    assert ray._address() is None


def test_the_environment_goes_before_what_ray_start_left(left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left.write_text("10.0.0.1:6379\n")
    assert environment.named_ray_cluster() == ("10.0.0.1:6379", False)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    assert environment.named_ray_cluster() == ("ray://head:10001", True)


@pytest.mark.usefixtures("left")
def test_a_named_cluster_must_answer(closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed_port}")
    with pytest.raises(UserError, match=rf"RAY_ADDRESS, 127.0.0.1:{closed_port}, does not answer .*unset RAY_ADDRESS"):
        ray._address()
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        assert ray._address() is None, "Ray reads the variable itself"


def test_what_a_crashed_ray_start_left_is_passed_over(
    left: Path, closed_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    left.write_text(f"127.0.0.1:{closed_port}")
    with caplog.at_level(logging.WARNING):
        assert ray._address() == "local"
    assert f"127.0.0.1:{closed_port} does not answer" in caplog.text


@pytest.mark.usefixtures("left")
@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (
            ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:80"),
            r"at 10\.0\.0\.1:80; .*correct RAY_ADDRESS",
        ),
        (
            AuthenticationError("Authentication is on, no token was found."),
            r"^Authentication is on, no token was found; ",
        ),
    ],
)
def test_what_answers_and_takes_nobody_in_is_one_line(
    raised: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(ray.ray, "init", init)
    with pytest.raises(UserError, match=words) as told, ray.connected():
        pass
    assert "set RAY_AUTH_MODE=token, and have the cluster's token in ~/.ray/auth_token" in str(told.value)
    assert "\n" not in str(told.value)
