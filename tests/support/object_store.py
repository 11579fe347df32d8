"""An S3 server in this process, as real as moto's: everything goes through HTTP and pyarrow's client."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pyarrow import fs

if TYPE_CHECKING:
    from moto.server import ThreadedMotoServer

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True)
class ObjectStore:
    """A bucket, empty at first, and the caches of the machines that use it."""

    endpoint: str
    bucket: str
    folder: Path
    patch: pytest.MonkeyPatch

    def uri(self, path: str = "runs", bucket: str | None = None) -> str:
        return f"s3://{bucket or self.bucket}/{path}?endpoint_override={self.endpoint}&scheme=http&region=us-east-1"

    def move_to(self, machine: str) -> Path:
        """From now on this process works on another machine: with another cache, which is returned."""
        self.patch.setenv("ZSKT_CACHE", str(self.folder / machine))
        return self.folder / machine

    def names(self) -> list[str]:
        """Of all objects in the bucket."""
        found = self._filesystem().get_file_info(fs.FileSelector(self.bucket, recursive=True))
        return sorted(info.path.removeprefix(f"{self.bucket}/") for info in found if info.is_file)

    def files(self) -> dict[str, bytes]:
        """Everything in the bucket, which nobody changes meanwhile."""
        return {name: self._read(f"{self.bucket}/{name}") for name in self.names()}

    def _read(self, path: str) -> bytes:
        with self._filesystem().open_input_stream(path) as stream:
            return bytes(stream.read())

    def _filesystem(self) -> fs.S3FileSystem:
        return fs.S3FileSystem(endpoint_override=self.endpoint, scheme="http", region="us-east-1")


def start_server() -> "tuple[ThreadedMotoServer, str]":
    """The server, to be stopped, and its host:port."""
    from moto.server import ThreadedMotoServer  # a second that only these tests pay

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line for every request
    host, port = server.get_host_and_port()
    return server, f"{host}:{port}"


def make_bucket(endpoint: str, name: str) -> None:
    filesystem = fs.S3FileSystem(
        endpoint_override=endpoint, scheme="http", region="us-east-1", allow_bucket_creation=True
    )
    filesystem.create_dir(name)
