"""Passwords of addresses: shown nowhere, and known where the address is opened."""

import pytest

from zskt_dist import addresses
from zskt_dist.addresses import hide, learn, masked, passwords, reveal
from zskt_dist.errors import UserError


@pytest.fixture(autouse=True)
def _another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_known", {})
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:p@ss/word@host/runs is", "s3://***@host/runs is"),
        ("http://token@host", "http://***@host"),
        ("s3://b/runs?secret_key=abc&region=x", "s3://b/runs?secret_key=***&region=x"),
        ("http://host:5000/a", "http://host:5000/a"),
        ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db"),
        ("postgresql+psycopg2://me:pw@db:5432/mlflow", "postgresql+psycopg2://***@db:5432/mlflow"),
    ],
)
def test_no_secret_is_shown(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_what_was_hidden_is_revealed_here_and_where_it_is_handed_to(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "https://me:pw@host/mlflow"
    hidden = hide(address)
    assert hidden == "https://***@host/mlflow"
    assert hide(hidden) == hidden
    assert reveal(hidden) == address
    handed = passwords()
    monkeypatch.setattr(addresses, "_known", {})
    with pytest.raises(UserError, match=r"^https://\*\*\*@host/mlflow: the password is not kept .*MLFLOW_TRACKING_URI"):
        reveal(hidden)
    learn(handed)
    assert reveal(hidden) == address


def test_the_environment_has_a_password_of_the_same_address_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:pw@host/mlflow")
    assert reveal("https://***@host/mlflow") == "https://me:pw@host/mlflow"
    with pytest.raises(UserError, match="not kept"):
        reveal("https://***@elsewhere/mlflow")
    assert reveal("https://elsewhere/mlflow") == "https://elsewhere/mlflow"
