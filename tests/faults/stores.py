"""Where images and results of the seeds lie: folders, or a bucket behind a proxy that can fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.faults.bench import wait_until

if TYPE_CHECKING:
    from engine.store.location import Location
    from tests.support.fault_proxy import FaultProxy

BUCKET = "tilewright-faults"

#: moto's server of S3, with atomic conditional puts.
SERVER = Path(__file__).parents[1] / "support" / "s3_server.py"

#: Credentials that moto takes; nothing secret.
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True)
class Shelf:
    """The place of one seed.

    Parameters
    ----------
    place : Location
        A folder, or a prefix of a bucket.
    proxy : FaultProxy or None
        What stands between the engine and the bucket, where the bucket is our own.
    disk : SmallDisk or None
        The disk that holds it, where it can be filled.
    """

    place: Location
    proxy: FaultProxy | None = None
    disk: SmallDisk | None = None

    def copy(self, source: Path, target: Location) -> None:
        """Bring the files of a folder to a place on this shelf; those that are equal stay."""
        for path in sorted(source.rglob("*")):
            if path.is_file():
                place, data = target / path.relative_to(source).as_posix(), path.read_bytes()
                if not place.is_file() or place.read_bytes() != data:
                    place.write_bytes(data)

    def clear(self) -> None:
        """Remove everything."""
        self.place.remove()


class ObjectStore:
    """An S3 server on loopback, ended with the block.

    Parameters
    ----------
    folder : Path
        Takes its log.
    """

    def __init__(self, folder: Path) -> None:
        self._log = folder / "store.log"
        self.port = 0

    def __enter__(self) -> Self:
        self.port = _free_port()
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                [sys.executable, str(SERVER), "-H", "127.0.0.1", "-p", str(self.port)],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until(self._answers, f"an S3 server, see {self._log}")
            self._make_bucket()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._server.kill()
        self._server.wait(10)

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://127.0.0.1:{self.port}"

    @staticmethod
    def environment(endpoint: str) -> dict[str, str]:
        """What a process needs to reach the bucket through an endpoint."""
        return {**_CREDENTIALS, "AWS_ENDPOINT_URL_S3": endpoint}

    def _answers(self) -> bool:
        import socket

        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _make_bucket(self) -> None:
        import boto3  # type: ignore[import-untyped] # of the tests alone

        client = boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1",
            aws_access_key_id="test", aws_secret_access_key="test",
        )  # fmt: skip
        client.create_bucket(Bucket=BUCKET)


class SmallDisk:
    """A disk of some megabytes that can be filled and emptied; needs the right to mount.

    Parameters
    ----------
    folder : Path
        Where it is mounted.
    """

    SIZE_MIB = 48

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        options = ["-t", "tmpfs", "-o", f"size={self.SIZE_MIB}m", "tmpfs", str(self.folder)]
        subprocess.run(["mount", *options], check=True, capture_output=True)
        return self

    def __exit__(self, *error: object) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=False, capture_output=True)

    def fill(self) -> None:
        """Leave no byte free, as a neighbour on the same disk does."""
        ballast = os.open(self.folder / "ballast", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (2**20, 2**12):
                try:
                    while True:
                        os.write(ballast, bytes(size))
                except OSError:
                    continue
        finally:
            os.close(ballast)

    def empty(self) -> None:
        """Make space again."""
        (self.folder / "ballast").unlink(missing_ok=True)

    @classmethod
    def possible(cls) -> bool:
        """Whether this user may mount one."""
        if shutil.which("mount") is None:
            return False
        with tempfile.TemporaryDirectory() as folder:
            try:
                with cls(Path(folder) / "disk"):
                    return True
            except (subprocess.CalledProcessError, OSError):
                return False


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
