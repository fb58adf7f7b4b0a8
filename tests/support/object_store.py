"""Object stores and web servers on this machine, for tests: moto's S3, and plain HTTP."""

import http.server
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import boto3
import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
"""Any will do for moto."""


@contextmanager
def moto_server(host: str = "127.0.0.1") -> Iterator[str]:
    """Run moto's server of S3 in a process of its own; gives its address."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    address = f"http://{host}:{port}"
    script = str(Path(__file__).with_name("s3_server.py"))
    command = [sys.executable, script, "-H", host, "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_for(address, server)
            yield address
        finally:
            server.kill()


def _wait_for(address: str, server: "subprocess.Popen[bytes]") -> None:
    """Return once the server answers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/moto-api/", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    msg = f"no answer from {address}"
    raise TimeoutError(msg)


def s3_client(address: str) -> "boto3.client":
    """boto3's client, to look at buckets with other eyes than the engine's."""
    return boto3.client(
        "s3",
        endpoint_url=address,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )


def point_at(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Set the environment of this process so that ``s3://`` means the server at an address."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_SKIP_SIGNATURE"):
        monkeypatch.delenv(name, raising=False)
    own = {
        "AWS_ENDPOINT_URL": address,
        "AWS_CONFIG_FILE": str(tmp_path / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "no-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in {**KEYS, **own}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Address of an S3 server, one for all tests."""
    with moto_server() as address:
        yield address


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """URL of a new bucket, which the environment of this process reaches."""
    point_at(s3_server, monkeypatch, tmp_path)
    name = f"test-{uuid.uuid4().hex[:12]}"
    s3_client(s3_server).create_bucket(Bucket=name)
    return f"s3://{name}"


Answer = tuple[int, dict[str, str], bytes]
Server = Callable[[str, str, Mapping[str, str]], Answer | None]


@contextmanager
def web_server(answer: Server) -> Iterator[str]:
    """Run a web server that answers by a function of method, path and headers.

    None drops the connection. The length is that of the body unless the headers say another, as
    those of a server that breaks off would.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def _reply(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found = answer(self.command, unquote(self.path), self.headers)
            if found is None:
                self.close_connection = True
                return
            status, headers, body = found
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _reply

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def serve_folder(folder: Path) -> Server:
    """Answers of a usual web server for the files of a folder."""

    def answer(method: str, path: str, headers: Mapping[str, str]) -> Answer:
        file = folder / path.strip("/")
        if file.is_dir():
            return 200, {"Content-Type": "text/html"}, b"<html>a listing for people</html>"
        if not file.is_file():
            return 404, {}, b"none"
        data = file.read_bytes()
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", headers.get("Range", ""))
        if asked is None or method == "HEAD":
            return 200, {}, data
        first = int(asked[1]) if asked[1] else max(len(data) - int(asked[2]), 0)
        last = min(int(asked[2]), len(data) - 1) if asked[1] and asked[2] else len(data) - 1
        span = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
        return 206, span, data[first : last + 1]

    return answer
