"""Real registries on loopback: Debian's docker-registry, plain, with passwords, with TLS, with a token server.

What is started is stopped, and lies in pytest's temporary directories. Ports are chosen by the kernel.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.conftest import require

USER, PASSWORD = "builder", "pass:word with blanks"
_STARTUP_SECONDS = 20.0
_LISTENING = re.compile(r"listening on (127\.0\.0\.1:\d+)")


class Registry:
    """A running registry: its address, and the directory that holds what it stores."""

    def __init__(self, address: str, storage: Path) -> None:
        self.address = address
        self.storage = storage

    def name(self, path: str) -> str:
        """The name of an image on it."""
        return f"{self.address}/{path}"

    def blobs(self) -> set[str]:
        """The digests that it holds."""
        return {f"sha256:{path.parent.name}" for path in self.storage.glob("docker/registry/v2/blobs/sha256/*/*/data")}


@contextmanager
def registry(directory: Path, **sections: Any) -> Iterator[Registry]:
    """A registry with further sections of configuration, e.g. `auth`; `tls` goes into its `http`."""
    program = shutil.which("docker-registry")
    require(program is not None, "docker-registry is not installed")
    assert program is not None
    directory.mkdir(parents=True, exist_ok=True)
    storage = directory / "storage"
    tls = sections.pop("tls", None)
    configuration = {
        "version": "0.1",
        "log": {"level": "info", "formatter": "text", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:0", "secret": "s", **({"tls": tls} if tls else {})},
        **sections,
    }
    (directory / "config.yml").write_text(json.dumps(configuration))  # YAML reads JSON
    environ = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    log_path = directory / "log"
    with open(log_path, "wb") as log:
        server = subprocess.Popen(
            [program, "serve", str(directory / "config.yml")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**environ, "OTEL_TRACES_EXPORTER": "none"},
        )
    try:
        yield Registry(_address(server, log_path), storage)
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _address(server: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _STARTUP_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        found = _LISTENING.search(log.read_text())
        if found:
            return found[1]
        time.sleep(0.05)
    raise AssertionError("docker-registry does not start:\n" + log.read_text()[-2000:])


def htpasswd(directory: Path) -> dict[str, Any]:
    """The `auth` section of a registry that wants USER and PASSWORD."""
    require(shutil.which("htpasswd") is not None, "apache2-utils is not installed")
    directory.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["htpasswd", "-Bbn", USER, PASSWORD], capture_output=True, text=True, check=True)
    (directory / "htpasswd").write_text(done.stdout)
    return {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}


class Authority:
    """A certificate authority that was made for the test, and what it vouches for."""

    def __init__(self, directory: Path) -> None:
        require(shutil.which("openssl") is not None, "openssl is not installed")
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.certificate = directory / "ca.crt"
        self._key = directory / "ca.key"
        self._openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test authority"),
            *("-addext", "basicConstraints=critical,CA:TRUE"),
            *("-keyout", str(self._key), "-out", str(self.certificate)),
        )

    def issue(
        self, name: str, usage: str = "serverAuth", names: str = "IP:127.0.0.1,DNS:localhost"
    ) -> tuple[Path, Path]:
        """A certificate for these names, and its key."""
        key, request, certificate = (self.directory / f"{name}.{end}" for end in ("key", "csr", "crt"))
        extensions = self.directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={names}\nextendedKeyUsage={usage}\n")
        self._openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", str(key), "-out", str(request)),
        )
        self._openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key)),
            *("-CAcreateserial", "-days", "2", "-extfile", str(extensions), "-out", str(certificate)),
        )
        return certificate, key

    @staticmethod
    def _openssl(*words: str) -> None:
        done = subprocess.run(["openssl", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


class TokenServer:
    """A token server as registries name them: Basic or a refresh token in, a signed token for a scope out."""

    service = "test-registry"
    issuer = "test-issuer"

    def __init__(self, directory: Path) -> None:
        authority = Authority(directory)
        self.certificate, self._key = authority.issue("token")
        self.bundle = authority.certificate
        self.port = 0
        self.identity_token = secrets.token_hex(16)
        self.seconds = 300
        self.requests: list[tuple[str, str, dict[str, list[str]]]] = []
        """Method, Authorization and fields of every request."""
        self.failures: list[int] = []
        """Statuses to answer with before anything else is done."""

    @property
    def auth(self) -> dict[str, Any]:
        """The `auth` section of a registry that trusts this server."""
        realm = f"http://127.0.0.1:{self.port}/token"
        fields = {"realm": realm, "service": self.service, "issuer": self.issuer, "rootcertbundle": str(self.bundle)}
        return {"token": fields}

    def answer(self, method: str, authorization: str, fields: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        """The status and the document for a request."""
        self.requests.append((method, authorization, fields))
        if self.failures:
            return self.failures.pop(0), {}
        is_known = self._is_known(method, authorization, fields)
        if is_known is False:
            return 401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]}
        scopes = [word for text in fields.get("scope", []) for word in text.split()]
        access = [self._access(scope, known=bool(is_known)) for scope in scopes]
        return 200, {"token": self._sign([each for each in access if each]), "expires_in": self.seconds}

    def _is_known(self, method: str, authorization: str, fields: dict[str, list[str]]) -> bool | None:
        """None for nobody in particular."""
        if method == "POST":
            return fields.get("refresh_token") == [self.identity_token]
        if not authorization:
            return None
        return authorization == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    @staticmethod
    def _access(scope: str, *, known: bool) -> dict[str, Any] | None:
        kind, name, actions = scope.split(":")
        allowed = [each for each in actions.split(",") if known or (each == "pull" and name.startswith("public/"))]
        return {"type": kind, "name": name, "actions": allowed} if allowed else None

    def _sign(self, access: list[dict[str, Any]]) -> str:
        now = int(time.time())
        der = subprocess.run(
            ["openssl", "x509", "-in", str(self.certificate), "-outform", "DER"], capture_output=True, check=True
        ).stdout
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        claims = {
            **{"iss": self.issuer, "aud": self.service, "sub": USER, "jti": secrets.token_hex(8)},
            **{"nbf": now - 10, "iat": now, "exp": now + 300, "access": access},
        }
        text = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        signature = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", str(self._key)],
            input=text.encode(),
            capture_output=True,
            check=True,
        ).stdout
        return f"{text}.{_base64url(signature)}"


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


class _TokenHandler(BaseHTTPRequestHandler):
    tokens: TokenServer

    def do_GET(self) -> None:
        self._answer(parse_qs(urlsplit(self.path).query))

    def do_POST(self) -> None:
        self._answer(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))

    def _answer(self, fields: dict[str, list[str]]) -> None:
        status, document = self.tokens.answer(self.command, self.headers.get("Authorization", ""), fields)
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def token_server(directory: Path) -> Iterator[TokenServer]:
    """A token server on a free port of the loopback interface."""
    tokens = TokenServer(directory)
    handler = type("Handler", (_TokenHandler,), {"tokens": tokens})
    with serving(handler) as port:
        tokens.port = port
        yield tokens


@contextmanager
def serving(handler: type[BaseRequestHandler]) -> Iterator[int]:
    """A server with this handler on a free port of the loopback interface; yields the port."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    httpd.daemon_threads = True
    httpd.block_on_close = False
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield httpd.server_port
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
