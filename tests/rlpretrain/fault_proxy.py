"""A real HTTP proxy on loopback that stands before an S3 server, and by a seed breaks what passes through it.

It also keeps a list of the requests that reached the server, which shows what a transfer that was started again sends anew.
"""

import http.client
import random
import socket
import socketserver
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

ERROR = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>injected</Message></Error>'
KINDS = ("500", "503", "reset", "reset-after", "truncate", "stall", "flip-response", "flip-request")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class FaultProxy(socketserver.ThreadingTCPServer):
    """Context manager. ``rate``: the share of requests that something happens to."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, upstream: str, seed: int = 0, rate: float = 0.0, kinds: tuple[str, ...] = KINDS, stall: float = 1.5
    ) -> None:
        self.upstream, self.rate, self.kinds, self.stall = urlsplit(upstream), rate, kinds, stall
        self.faults: Counter[str] = Counter()
        self.passed: list[tuple[str, str]] = []
        self.connections = 0  # that are open
        self.delay = 0.0  # seconds before each request
        self.skew: str | None = None  # a Date to refuse every request with
        self.rewrite = lambda body: body  # what a server with bad intentions would answer
        self._random, self._lock = random.Random(seed), threading.Lock()
        self._deck: list[str] = []
        super().__init__(("127.0.0.1", 0), _Connection)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def draw(self, method: str, body: bytes) -> tuple[str | None, float]:
        """What happens to the next request, and where in its body. Every kind has its turn, at random."""
        with self._lock:
            where = self._random.random()
            if self._random.random() >= self.rate:
                return None, where
            if not self._deck:
                self._deck = self._random.sample(self.kinds, len(self.kinds))
            unfit = () if body else ("flip-request",)
            unfit += ("truncate", "stall", "flip-response") if method not in ("GET", "POST") else ()
            kind = next((kind for kind in self._deck if kind not in unfit), None)
            if kind is not None:
                self._deck.remove(kind)
                self.faults[kind] += 1
            return kind, where

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no matter."""


class _Connection(socketserver.StreamRequestHandler):
    server: FaultProxy
    disable_nagle_algorithm = True

    def handle(self) -> None:
        self._count(1)
        try:
            while self._one():
                pass
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        with self.server._lock:
            self.server.connections += more

    def _one(self) -> bool:
        """Pass one request on; whether the connection lives."""
        line = self.rfile.readline()
        if not line:
            return False
        method, target, _ = line.decode("latin-1").split()
        headers = list(http.client.parse_headers(self.rfile).items())
        by_name = {name.lower(): value for name, value in headers}
        if by_name.get("expect") == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self.rfile.read(int(by_name.get("content-length", 0)))
        time.sleep(self.server.delay)
        if self.server.skew is not None:
            self._reply(
                method, Answer(403, [("Date", self.server.skew)], ERROR.format(code="RequestTimeTooSkewed").encode())
            )
            return True
        kind, where = self.server.draw(method, body)
        if kind in ("500", "503", "reset"):
            return self._refuse(method, kind)
        answer = self._ask(method, target, headers, flipped(body, where) if kind == "flip-request" else body)
        if kind == "reset-after":
            return self._reset()
        if kind in ("truncate", "stall"):
            self._reply(method, answer, part=where)
            time.sleep(self.server.stall if kind == "stall" else 0)
            return False
        if kind == "flip-response":
            answer = Answer(answer.status, answer.headers, flipped(answer.body, where))
        self._reply(method, answer)
        return True

    def _ask(self, method: str, target: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        with self.server._lock:
            self.server.passed.append((method, target))
        upstream = self.server.upstream
        connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=60)
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                if name.lower() not in ("expect", "connection"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            content = self.server.rewrite(response.read())
        finally:
            connection.close()
        dropped = ("transfer-encoding", "connection")
        return Answer(
            response.status, [pair for pair in response.getheaders() if pair[0].lower() not in dropped], content
        )

    def _refuse(self, method: str, kind: str) -> bool:
        if kind == "reset":
            return self._reset()
        code = "SlowDown" if kind == "503" else "InternalError"
        self._reply(method, Answer(int(kind), [("Content-Type", "application/xml")], ERROR.format(code=code).encode()))
        return True

    def _reply(self, method: str, answer: Answer, part: float = 1.0) -> None:
        headers = [pair for pair in answer.headers if method == "HEAD" or pair[0].lower() != "content-length"]
        if method != "HEAD" and answer.status not in (204, 304):
            headers.append(("Content-Length", str(len(answer.body))))
        head = (
            f"HTTP/1.1 {answer.status} Answer\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n"
        )
        body = b"" if method == "HEAD" else answer.body[: int(len(answer.body) * part)]
        self.wfile.write(head.encode("latin-1") + body)
        self.wfile.flush()

    def _reset(self) -> bool:
        """Close with RST, not with FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        return False


def flipped(body: bytes, where: float) -> bytes:
    """``body`` with one bit turned round."""
    bit = int(where * len(body) * 8)
    changed = bytearray(body)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
