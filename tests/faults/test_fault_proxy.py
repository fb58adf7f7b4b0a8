"""The proxy passes everything through unharmed, and fails as its plan says."""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from tests.support.fault_proxy import FaultPlan, FaultProxy

BODY = bytes(range(256)) * 40


class Echo(BaseHTTPRequestHandler):
    """Keeps what is put, gives it back, and counts what arrives."""

    protocol_version = "HTTP/1.1"
    kept: dict[str, bytes]
    seen: Counter[str]

    def do_PUT(self) -> None:
        self.seen["PUT"] += 1
        self.kept[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b"")

    def do_GET(self) -> None:
        self.seen["GET"] += 1
        found = self.kept.get(self.path)
        self._answer(404 if found is None else 200, found or b"")

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Kept", "yes")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    handler = type("Fresh", (Echo,), {"kept": {}, "seen": Counter()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join(5)


@pytest.fixture
def proxy(server: ThreadingHTTPServer) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", server.server_port) as found:
        yield found


def connect(proxy: FaultProxy) -> http.client.HTTPConnection:
    found = urlsplit(proxy.url)
    assert found.hostname is not None
    return http.client.HTTPConnection(found.hostname, found.port, timeout=10)


def ask(proxy: FaultProxy, method: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = connect(proxy)
    try:
        connection.request(method, "/a", body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_everything_passes(proxy: FaultProxy) -> None:
    assert ask(proxy, "GET") == (404, b"")
    assert ask(proxy, "PUT", BODY) == (200, b"")
    assert ask(proxy, "GET") == (200, BODY)
    assert ask(proxy, "PUT", b"") == (200, b"")
    assert ask(proxy, "GET") == (200, b"")


def test_one_connection_serves_several_requests(proxy: FaultProxy) -> None:
    connection = connect(proxy)
    try:
        connection.request(
            "PUT",
            "/a",
            iter([BODY, BODY]),
            encode_chunked=True,
            headers={"Transfer-Encoding": "chunked"},
        )
        connection.getresponse().read()
        connection.request("HEAD", "/a")
        answer = connection.getresponse()
        assert answer.read() == b""
        assert answer.getheader("Content-Length") == str(2 * len(BODY))
        assert answer.getheader("X-Kept") == "yes"
        connection.request("GET", "/a")
        assert connection.getresponse().read() == 2 * BODY
    finally:
        connection.close()


def test_refused(proxy: FaultProxy, server: ThreadingHTTPServer) -> None:
    proxy.follow(FaultPlan(refuse=1.0))
    status, body = ask(proxy, "PUT", BODY)
    assert status == 503
    assert b"SlowDown" in body
    assert server.RequestHandlerClass.seen == {}  # type: ignore[attr-defined]
    assert proxy.follow(FaultPlan()) == {"refuse": 1}
    assert ask(proxy, "GET") == (404, b"")


def test_dropped_has_no_effect_and_lost_has(proxy: FaultProxy) -> None:
    proxy.follow(FaultPlan(drop=1.0))
    with pytest.raises(http.client.RemoteDisconnected):
        ask(proxy, "PUT", BODY)
    proxy.follow(FaultPlan())
    assert ask(proxy, "GET") == (404, b"")
    proxy.follow(FaultPlan(lose=1.0))
    with pytest.raises(http.client.RemoteDisconnected):
        ask(proxy, "PUT", BODY)
    proxy.follow(FaultPlan())
    assert ask(proxy, "GET") == (200, BODY)


def test_truncated(proxy: FaultProxy) -> None:
    ask(proxy, "PUT", BODY)
    proxy.follow(FaultPlan(truncate=1.0))
    with pytest.raises(http.client.IncompleteRead) as found:
        ask(proxy, "GET")
    assert found.value.partial == BODY[: len(BODY) // 2]


def test_delayed(proxy: FaultProxy) -> None:
    ask(proxy, "PUT", BODY)
    proxy.follow(FaultPlan(delay=1.0, delay_s=0.5))
    started = time.monotonic()
    assert ask(proxy, "GET") == (200, BODY)
    assert time.monotonic() - started > 0.02


def test_a_plan_is_the_same_every_time_and_keeps_its_shares() -> None:
    plan = FaultPlan(seed=5, drop=0.1, lose=0.1, refuse=0.2, truncate=0.1, delay=0.1)
    first, second = ([next(acts) for _ in range(2000)] for acts in (plan.acts(), plan.acts()))
    assert first == second
    counts = Counter(first)
    assert 300 < counts["refuse"] < 500
    assert 700 < counts["pass"] < 900


@pytest.mark.parametrize("shares", [{"drop": -0.1}, {"drop": 0.6, "refuse": 0.5}])
def test_shares_that_cannot_be(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="sum to at most 1"):
        FaultPlan(**shares)  # type: ignore[arg-type]
