"""A proxy in front of a registry that counts what passes, and does on demand what networks and servers do at their
worst: cut connections, answer with errors, be slow, send wrong bytes, redirect elsewhere."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler
from typing import NamedTuple, TypeAlias

from tests.registries import Registry, serving

_CHUNK = 1 << 16
_OWN = {"connection", "transfer-encoding", "content-length", "keep-alive"}


class Passed(NamedTuple):
    """One exchange: sizes are bytes of bodies as they passed."""

    method: str
    path: str
    headers: dict[str, str]
    status: int
    sent: int
    received: int


class Fault(NamedTuple):
    """What to do to one exchange. Nothing set lets it pass."""

    status: int = 0
    """Answer so, without asking the registry."""
    headers: Mapping[str, str] = {}
    cut_answer: int | None = None
    """End the connection after so many bytes of the answer's body."""
    is_reset: bool = False
    """End it without a goodbye: what is on its way gets lost as well."""
    cut_request: int | None = None
    """Reset it after so many bytes of the request's body."""
    end_request: int | None = None
    """Give the registry so many bytes of the request's body as if that were all of it."""
    flip_request: bool = False
    """Change one byte of the request's body."""
    end_answer: int | None = None
    """End the body after so many bytes as if that were all of it."""
    flip: bool = False
    """Change one byte of the answer's body."""
    delay: float = 0.0
    lose_answer: bool = False
    """Let the registry do its work, then reset the connection."""
    ignore_range: bool = False
    hold: threading.Event | None = None
    """Say nothing before it is set."""


Rule: TypeAlias = Callable[[str, str], "Fault | None"]
"""Method and path of a request -> what to do."""


class FaultProxy:
    """See the module. `rule` is asked for every request, one at a time."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.port = 0
        self.rule: Rule = lambda _method, _path: None
        self.exchanges: list[Passed] = []
        self.under_way = 0
        self.lock = threading.Condition()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def name(self, path: str) -> str:
        """The name of an image behind it."""
        return f"{self.address}/{path}"

    @property
    def passed(self) -> list[Passed]:
        """All exchanges; one whose client is satisfied already is waited for."""
        with self.lock:
            assert self.lock.wait_for(lambda: self.under_way == 0, 20)
            return list(self.exchanges)

    def forget(self) -> None:
        """Count from now on."""
        assert self.passed is not None
        self.exchanges.clear()

    def sent(self, *methods: str) -> int:
        """Bytes that went to the registry in bodies."""
        return sum(each.sent for each in self.passed if not methods or each.method in methods)

    def received(self, part: str = "") -> int:
        """Bytes that came from the registry in bodies, of paths with that part."""
        return sum(each.received for each in self.passed if part in each.path and each.method == "GET")

    def once(self, method: str, part: str, *faults: Fault) -> None:
        """Let these faults befall, one each, the next requests of a method whose path has that part."""
        left = list(faults)

        def rule(verb: str, path: str) -> Fault | None:
            return left.pop(0) if left and verb == method and part in path else None

        self.rule = rule


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultProxy
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        with self.proxy.lock:
            fault = self.proxy.rule(self.command, self.path) or Fault()
            self.proxy.under_way += 1
        self._counts = [0, 0]
        status = 0
        try:
            time.sleep(fault.delay)
            if fault.hold is not None:
                fault.hold.wait(60)
            if fault.status:
                status = fault.status
                self._plain(fault)
            else:
                status = self._forward(fault)
        except (ConnectionError, BrokenPipeError):
            self.close_connection = True
        finally:
            headers = {key.lower(): value for key, value in self.headers.items()}
            with self.proxy.lock:
                self.proxy.exchanges.append(Passed(self.command, self.path, headers, status, *self._counts))
                self.proxy.under_way -= 1
                self.proxy.lock.notify_all()

    def _plain(self, fault: Fault) -> None:
        for chunk in self._request_body(None):
            del chunk
        self.send_response_only(fault.status)
        for key, value in {**fault.headers, "Content-Length": "0"}.items():
            self.send_header(key, value)
        self.end_headers()

    def _forward(self, fault: Fault) -> int:
        backend = HTTPConnection(self.proxy.backend, timeout=30)
        try:
            backend.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for key, value in self._headers(fault):
                backend.putheader(key, value)
            backend.endheaders()
            self._send(backend, fault)
            answer = backend.getresponse()
            if fault.lose_answer:
                answer.read()
                self._reset()
            return self._answer(answer, fault)
        finally:
            backend.close()

    def _headers(self, fault: Fault) -> Iterator[tuple[str, str]]:
        left_out = ("connection", "range" if fault.ignore_range else "")
        for key, value in self.headers.items():
            if key.lower() == "content-length" and fault.end_request is not None:
                yield key, str(min(int(value), fault.end_request))
            elif key.lower() not in left_out:
                yield key, value

    def _send(self, backend: HTTPConnection, fault: Fault) -> None:
        begin = 0
        for chunk in self._request_body(fault.cut_request):
            spoilt = bytes([chunk[0] ^ 1]) + chunk[1:] if fault.flip_request and not begin else chunk
            backend.send(spoilt if fault.end_request is None else spoilt[: max(0, fault.end_request - begin)])
            begin += len(chunk)

    def _request_body(self, cut: int | None) -> Iterator[bytes]:
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            if cut is not None and self._counts[0] >= cut:
                self._reset()
            chunk = self.rfile.read(min(left, _CHUNK if cut is None else max(1, min(_CHUNK, cut - self._counts[0]))))
            if not chunk:
                raise ConnectionResetError
            left -= len(chunk)
            self._counts[0] += len(chunk)
            yield chunk

    def _answer(self, answer: HTTPResponse, fault: Fault) -> int:
        length = int(answer.headers.get("Content-Length") or 0)
        ended = length if fault.end_answer is None else min(length, fault.end_answer)
        self.send_response_only(answer.status, answer.reason)
        for key, value in answer.headers.items():
            if key.lower() not in _OWN:
                self.send_header(key, value)
        self.send_header("Content-Length", str(ended))
        self.end_headers()
        if self.command == "HEAD":
            return answer.status
        left = ended
        while left and (chunk := answer.read(min(left, _CHUNK))):
            if fault.flip:
                chunk, fault = bytes([chunk[0] ^ 1]) + chunk[1:], fault._replace(flip=False)
            if fault.cut_answer is not None and self._counts[1] + len(chunk) >= fault.cut_answer:
                self.wfile.write(chunk[: fault.cut_answer - self._counts[1]])
                self._counts[1] = fault.cut_answer
                self.wfile.flush()
                if fault.is_reset:
                    self._reset()
                raise ConnectionResetError
            self.wfile.write(chunk)
            self._counts[1] += len(chunk)
            left -= len(chunk)
        return answer.status

    def _reset(self) -> None:
        """End the connection without a goodbye."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        raise ConnectionResetError

    def log_message(self, *_: object) -> None:
        pass

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):
            return


for _method in ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"):
    setattr(_Handler, f"do_{_method}", _Handler._any)


@contextmanager
def fault_proxy(registry: Registry) -> Iterator[FaultProxy]:
    """A proxy in front of a plain registry, on a free port of the loopback interface."""
    proxy = FaultProxy(registry.address)
    with serving(type("Handler", (_Handler,), {"proxy": proxy})) as port:
        proxy.port = port
        yield proxy
