from pathlib import Path

import pytest

from tests.support.object_store import ObjectStore
from zskt_dist.errors import ConfigError
from zskt_dist.runs.locations import absolute, connect, finished_below, is_file, join, split, working_copy

URI = "s3://bucket/runs?endpoint_override=host:9000&scheme=http"


def test_names_are_joined_before_the_query() -> None:
    run = join(URI, "digits", "a")
    assert run == "s3://bucket/runs/digits/a?endpoint_override=host:9000&scheme=http"
    assert split(run) == (join(URI, "digits"), "a")
    assert join("s3://bucket", "a") == "s3://bucket/a"
    assert (join("runs", "digits", "a"), split("runs/digits/a")) == ("runs/digits/a", ("runs/digits", "a"))
    assert (absolute(URI), absolute("/runs")) == (URI, "/runs")


def test_working_copies_keep_the_folders_and_tell_the_stores_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZSKT_CACHE", str(tmp_path))
    run = working_copy(join(URI, "digits", "a"))
    assert run.relative_to(working_copy(URI)) == Path("digits/a")
    assert run.is_relative_to(tmp_path)
    others = [URI.replace("9000", "9001"), "s3://bucket/runs", "gs://bucket/runs", "s3://bucket2/runs", URI]
    assert len({working_copy(other) for other in others}) == len(others)
    monkeypatch.delenv("ZSKT_CACHE")
    assert working_copy(URI).is_relative_to(Path.home() / ".cache" / "zskt_dist")


def test_what_must_not_be_written_down_is_refused() -> None:
    with pytest.raises(ConfigError, match="password") as refused:
        working_copy("s3://key:secret@bucket/runs")
    assert "secret" not in str(refused.value)
    with pytest.raises(ConfigError, match=r"has \. or \.\. in it"):
        working_copy("s3://bucket/../runs")
    working_copy("abfs://container@account.dfs.core.windows.net/runs")


@pytest.mark.parametrize("uri", ["ftp://host/runs", "s3://bucket/runs?regoin=x", "s3:///runs"])
def test_uris_that_pyarrow_does_not_take(uri: str) -> None:
    with pytest.raises(ConfigError) as refused:
        connect(uri)
    assert str(refused.value).startswith(f"runs_dir='{uri}': ")


def test_a_bucket_that_is_not_there(object_store: ObjectStore) -> None:
    with pytest.raises(ConfigError, match="there is no bucket 'none'"):
        connect(object_store.uri(bucket="none"))
    assert not is_file(object_store.uri("runs/none.safetensors"), "teacher.checkpoint")
    assert finished_below(object_store.uri()) == []
