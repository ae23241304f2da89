"""Registries behind an HTTP proxy: in clear text, and through a tunnel that sees nothing."""

from __future__ import annotations

import base64
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import BaseRequestHandler
from urllib.parse import urlsplit

import pytest

from builder.registry.client import RegistryClient
from builder.registry.errors import RegistryError, UnreachableError
from tests.registries import Authority, registry, serving

HOST = "registry.test"
"""A name that only the proxy can resolve."""


class ForwardProxy:
    """A proxy for one host, which is at `backend`; it may want a password."""

    def __init__(self, backend: str, password: str = "") -> None:
        self.backend = backend
        self.password = password
        self.port = 0
        self.requests: list[tuple[str, str]] = []


class _Handler(BaseHTTPRequestHandler):
    proxy: ForwardProxy

    def do_CONNECT(self) -> None:
        if not self._is_allowed():
            return
        host, _, port = self.proxy.backend.partition(":")
        with socket.create_connection((host, int(port)), 10) as backend:
            self.send_response_only(200)
            self.end_headers()
            back = threading.Thread(target=_pump, args=(backend, self.connection), daemon=True)
            back.start()
            _pump(self.connection, backend)
            back.join(10)
        self.close_connection = True

    def _forward(self) -> None:
        if not self._is_allowed():
            return
        parts = urlsplit(self.path)
        backend = HTTPConnection(self.proxy.backend, timeout=10)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {key: value for key, value in self.headers.items() if not key.lower().startswith("proxy-")}
        backend.request(self.command, f"{parts.path}?{parts.query}", body, headers)
        answer = backend.getresponse()
        content = answer.read()
        self.send_response_only(answer.status)
        for key, value in answer.headers.items():
            if key.lower() not in ("connection", "content-length"):
                self.send_header(key, value)
        length = answer.headers["Content-Length"] if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(content)
        backend.close()

    def _is_allowed(self) -> bool:
        self.proxy.requests.append((self.command, self.path))
        wanted = base64.b64encode(self.proxy.password.encode()).decode()
        if not self.proxy.password or self.headers.get("Proxy-Authorization") == f"Basic {wanted}":
            return True
        self.send_response_only(407)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False

    def log_message(self, *_: object) -> None:
        pass


for _method in ("GET", "HEAD", "PUT", "POST", "PATCH"):
    setattr(_Handler, f"do_{_method}", _Handler._forward)


def _pump(source: socket.socket, dest: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(1 << 16):
            dest.sendall(chunk)
    with suppress(OSError):
        dest.shutdown(socket.SHUT_WR)


@contextmanager
def forward_proxy(backend: str, password: str = "") -> Iterator[ForwardProxy]:
    proxy = ForwardProxy(backend, password)
    with serving(type("Handler", (_Handler,), {"proxy": proxy})) as port:
        proxy.port = port
        yield proxy


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "CONTAINERS_REGISTRIES_CONF": os.devnull}


def push_something(environ: dict[str, str], *, insecure: bool = False) -> None:
    with RegistryClient(environ, insecure=insecure) as client:
        repository = client.repository(f"{HOST}/a", may_push=True)
        blob = repository.upload_bytes(os.urandom(2 << 20), "application/octet-stream")
        assert len(repository.read_blob(blob)) == 2 << 20


def test_through_a_tunnel(tmp_path: Path, environ: dict[str, str]) -> None:
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.issue("server", names=f"DNS:{HOST}")
    directory = tmp_path / ".config/containers/certs.d" / HOST
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_bytes(authority.certificate.read_bytes())
    tls = {"certificate": str(certificate), "key": str(key)}
    with registry(tmp_path / "r", tls=tls) as running, forward_proxy(running.address, "user:secret") as proxy:
        push_something({**environ, "HTTPS_PROXY": f"http://user:secret@127.0.0.1:{proxy.port}"})
        assert {method for method, _ in proxy.requests} == {"CONNECT"}
        with pytest.raises(UnreachableError, match="the proxy fails"):
            push_something({**environ, "https_proxy": f"127.0.0.1:{proxy.port}"})
        with pytest.raises(UnreachableError, match="cannot be resolved"):
            push_something({**environ, "HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}", "NO_PROXY": ".test"})


def test_in_clear_text(tmp_path: Path, environ: dict[str, str]) -> None:
    with registry(tmp_path / "r") as running, forward_proxy(running.address) as proxy:
        address = f"http://127.0.0.1:{proxy.port}"
        push_something({**environ, "HTTPS_PROXY": address, "HTTP_PROXY": address}, insecure=True)
        assert ("GET", f"http://{HOST}/v2/") in proxy.requests
        with pytest.raises(UnreachableError, match="TLS"):  # not without being told to
            push_something({**environ, "HTTPS_PROXY": address, "HTTP_PROXY": address})


def test_what_is_no_proxy(environ: dict[str, str]) -> None:
    with pytest.raises(RegistryError, match="socks4"):
        push_something({**environ, "HTTPS_PROXY": "socks4://127.0.0.1:1"})
    with pytest.raises(UnreachableError, match="the proxy fails") as raised:
        push_something({**environ, "HTTPS_PROXY": "http://user:geheim@127.0.0.1:1"})
    assert "geheim" not in f"{raised.value}{raised.value.hint}"


class _SocksHandler(BaseRequestHandler):
    """SOCKS 5 (RFC 1928) with user and password (RFC 1929), for CONNECT to a name."""

    backend: str
    names: list[str]

    def handle(self) -> None:
        stream = self.request.makefile("rb")
        stream.read(stream.read(2)[1])
        self.request.sendall(b"\5\2")
        user = stream.read(stream.read(2)[1])
        password = stream.read(stream.read(1)[0])
        self.request.sendall(b"\1\0" if (user, password) == (b"user", b"se:cret") else b"\1\1")
        if stream.read(4) != b"\5\1\0\3":
            return
        self.names.append(stream.read(stream.read(1)[0]).decode())
        stream.read(2)
        host, _, port = self.backend.partition(":")
        with socket.create_connection((host, int(port)), 10) as backend:
            self.request.sendall(b"\5\0\0\1" + bytes(6))
            back = threading.Thread(target=_pump, args=(backend, self.request), daemon=True)
            back.start()
            _pump(self.request, backend)
            back.join(10)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_through_socks(tmp_path: Path, environ: dict[str, str], scheme: str) -> None:
    names: list[str] = []
    with registry(tmp_path / "r") as running:
        handler = type("Handler", (_SocksHandler,), {"backend": running.address, "names": names})
        with serving(handler) as port:
            address = f"127.0.0.1:{port}"
            proxy = f"{scheme}://user:se%3Acret@{address}"
            push_something({**environ, "HTTPS_PROXY": proxy, "HTTP_PROXY": proxy}, insecure=True)
            assert set(names) == {HOST}  # which only the proxy can resolve
            wrong = f"{scheme}://user:geheim@{address}"
            with pytest.raises(UnreachableError, match="SOCKS5 authentication failed") as raised:
                push_something({**environ, "HTTPS_PROXY": wrong, "HTTP_PROXY": wrong}, insecure=True)
            assert "geheim" not in f"{raised.value}{raised.value.hint}"
    with pytest.raises(UnreachableError, match="connection refused"):
        push_something({**environ, "HTTPS_PROXY": f"{scheme}://127.0.0.1:1"})
