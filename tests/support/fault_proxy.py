"""A small HTTP proxy on loopback that fails by a seeded plan: for tests of what talks to a store.

::

    client ──► FaultProxy ──► server        drop      the request never arrives
                                            lose      the request takes effect, the answer is lost
                                            refuse    503 Slow Down, as busy object stores answer
                                            truncate  half of the answer's body, then the end
                                            delay     everything, later
"""

from __future__ import annotations

import http.client
import random
import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Self

Act = Literal["pass", "drop", "lose", "refuse", "truncate", "delay"]

_REFUSAL = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)


@dataclass(frozen=True)
class FaultPlan:
    """How often which fault strikes.

    Parameters
    ----------
    seed : int
        Of the order in which they strike.
    drop, lose, refuse, truncate, delay : float
        Share of the requests that each strikes; together at most 1.
    delay_s : float
        Longest delay in seconds.

    Examples
    --------
    >>> plan = FaultPlan(seed=1, refuse=1.0)
    >>> next(plan.acts())
    'refuse'
    """

    seed: int = 0
    drop: float = 0.0
    lose: float = 0.0
    refuse: float = 0.0
    truncate: float = 0.0
    delay: float = 0.0
    delay_s: float = 0.5

    def __post_init__(self) -> None:
        shares = self.shares()
        if min(shares.values()) < 0 or sum(shares.values()) > 1 + 1e-9:
            msg = f"shares must be at least 0 and sum to at most 1, got {shares}"
            raise ValueError(msg)

    def shares(self) -> dict[Act, float]:
        """Share of each fault."""
        return {
            "drop": self.drop,
            "lose": self.lose,
            "refuse": self.refuse,
            "truncate": self.truncate,
            "delay": self.delay,
        }

    def acts(self) -> Iterator[Act]:
        """What happens to one request after the other, without end."""
        rng = random.Random(self.seed)
        shares = self.shares()
        weights = [*shares.values(), max(0.0, 1 - sum(shares.values()))]
        while True:
            yield rng.choices([*shares, "pass"], weights)[0]


class FaultProxy:
    """A proxy in front of one HTTP server, running until it is closed.

    Parameters
    ----------
    host, port : str, int
        The server.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._lock = threading.Lock()
        self._plan = FaultPlan()
        self._acts = self._plan.acts()
        self._struck: Counter[Act] = Counter()
        self._listener = _Listener(self)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.05,))
        self._thread.daemon = True
        self._thread.start()

    @property
    def url(self) -> str:
        """Where clients connect."""
        host, port = self._listener.socket.getsockname()[:2]
        return f"http://{host}:{port}"

    def follow(self, plan: FaultPlan) -> Counter[Act]:
        """Fail by this plan from now on; return how often each fault struck until now."""
        with self._lock:
            before, self._struck = self._struck, Counter()
            self._plan, self._acts = plan, plan.acts()
        return before

    def close(self) -> None:
        """Stop listening."""
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def answer(self, client: socket.socket, request: Request) -> bool:
        """Answer one request, or fail; whether the connection goes on."""
        with self._lock:
            act, plan = next(self._acts), self._plan
            if act != "pass":
                self._struck[act] += 1
        match act:
            case "drop":
                return False
            case "refuse":
                client.sendall(_head(503, [("Content-Type", "application/xml")], len(_REFUSAL)))
                client.sendall(b"" if request.method == "HEAD" else _REFUSAL)
                return True
            case "delay":
                time.sleep(plan.delay_s * random.Random(request.target).random())
            case "pass" | "lose" | "truncate":
                pass
        head, body = self._ask(request)
        if act == "lose":
            return False
        if act == "truncate" and body:
            client.sendall(head + body[: len(body) // 2])
            return False
        client.sendall(head + body)
        return True

    def _ask(self, request: Request) -> tuple[bytes, bytes]:
        """Pass a request on; head and body of the answer."""
        upstream = http.client.HTTPConnection(*self._server, timeout=60)
        try:
            upstream.putrequest(
                request.method, request.target, skip_host=True, skip_accept_encoding=True
            )
            for name, value in request.headers:
                upstream.putheader(name, value)
            upstream.endheaders(request.body or None)
            answer = upstream.getresponse()
            body = answer.read()
            headers = answer.getheaders()
        finally:
            upstream.close()
        length = len(body)
        if request.method == "HEAD":
            length = int(answer.getheader("Content-Length") or 0)
        return _head(answer.status, headers, length), body


@dataclass(frozen=True)
class Request:
    """One HTTP request, read whole.

    Parameters
    ----------
    method, target : str
        Such as ``GET`` and ``/bucket/key``.
    headers : tuple of (str, str)
        As sent, those of a single hop left out.
    body : bytes
        Decoded where it came in pieces.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Connection)


class _Connection(socketserver.StreamRequestHandler):
    """One connection of a client; several requests may come over it."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        listener = self.server
        if not isinstance(listener, _Listener):
            raise TypeError("a connection belongs to its proxy")
        with suppress(ConnectionError, TimeoutError, http.client.HTTPException):
            while (request := self._read()) is not None:
                if not listener.proxy.answer(self.connection, request):
                    return

    def _read(self) -> Request | None:
        """Next request; None where the client has gone."""
        words = self.rfile.readline().decode("latin-1").split()
        if len(words) != 3:
            return None
        headers = []
        while (line := self.rfile.readline().decode("latin-1").strip()) != "":
            name, _, value = line.partition(":")
            headers.append((name.strip(), value.strip()))
        known = {name.lower(): value for name, value in headers}
        if known.get("expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        in_pieces = known.get("transfer-encoding", "").lower() == "chunked"
        body = self._pieces() if in_pieces else self.rfile.read(int(known.get("content-length", 0)))
        kept = [
            (name, value)
            for name, value in headers
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "expect")
        ]
        if body or words[0] in ("PUT", "POST"):
            kept.append(("Content-Length", str(len(body))))
        return Request(words[0], words[1], tuple(kept), body)

    def _pieces(self) -> bytes:
        """Body that comes in pieces (RFC 9112, section 7.1)."""
        body = bytearray()
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return bytes(body)


def _head(status: int, headers: list[tuple[str, str]], length: int) -> bytes:
    """Status line and headers of an answer of known length."""
    reason = http.client.responses.get(status, "")
    kept = [
        f"{name}: {value}"
        for name, value in headers
        if name.lower() not in ("connection", "transfer-encoding", "content-length")
    ]
    lines = [f"HTTP/1.1 {status} {reason}", *kept, f"Content-Length: {length}", "", ""]
    return "\r\n".join(lines).encode("latin-1")
