"""Git repositories made on the spot, and servers on loopback that give them out: smart HTTP, dumb HTTP, plain files."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT_TIME = 1_500_000_000
_IDENTITY = {
    "PATH": os.environ["PATH"],
    "HOME": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.com",
}


class GitRepository:
    """A repository with a work tree; each commit is a second younger than the one before."""

    def __init__(self, path: Path, *options: str) -> None:
        self.path = path
        self._time = COMMIT_TIME
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main", *options)

    def git(self, *words: str, stdin: bytes = b"") -> str:
        """Run git in it; returns what it printed."""
        dates = {"GIT_AUTHOR_DATE": f"{self._time} +0000", "GIT_COMMITTER_DATE": f"{self._time} +0000"}
        settings = ["-c", "protocol.file.allow=always"]
        done = subprocess.run(
            ["git", *settings, *words],
            cwd=self.path,
            env=_IDENTITY | dates,
            input=stdin,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def write(self, **files: str) -> None:
        """Write files into the work tree; `a__b` is `a/b`."""
        for name, text in files.items():
            path = self.path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def commit(self, **files: str) -> str:
        """Commit the work tree with files written before; returns the commit's name."""
        self.write(**files)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=c")
        self._time += 1
        return self.git("rev-parse", "HEAD")

    def graft(self, commit: str) -> None:
        """Make a commit that was built by hand the tip of `main`."""
        self.git("update-ref", "refs/heads/main", commit)

    def tree_of(self, *entries: tuple[str, str, str]) -> str:
        """A tree object of (mode, object, name) rows, without git's checks; returns its name."""
        raw = b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(sha) for mode, sha, name in entries)
        return self.git("hash-object", "-t", "tree", "-w", "--stdin", "--literally", stdin=raw)

    def blob(self, text: str) -> str:
        """A blob object; returns its name."""
        return self.git("hash-object", "-w", "--stdin", stdin=text.encode())


class Server:
    """Requests answered from a directory: `/smart/x.git` by git's http-backend, `/files/…` as files.

    `files` are further answers by path. With `password` every request needs `user:password`.
    """

    def __init__(self, root: Path, port: int) -> None:
        self.root = root
        self.port = port
        self.password = ""
        self.speaks_v2 = True
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, str] = {}
        """What answers that are files carry besides."""
        self.redirects: dict[str, str] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def smart(self, repository: GitRepository, user: str = "") -> str:
        """The URL of a repository by smart HTTP."""
        self._publish(repository)
        return f"{self.url.replace('//', f'//{user}@') if user else self.url}/smart/{repository.path.name}.git"

    def dumb(self, repository: GitRepository) -> str:
        """The URL of a repository as plain files."""
        self._publish(repository)
        return f"{self.url}/files/{repository.path.name}.git"

    def _publish(self, repository: GitRepository) -> None:
        bare = self.root / f"{repository.path.name}.git"
        if not bare.exists():
            bare.symlink_to(repository.path / ".git")
        repository.git("update-server-info")

    def file(self, path: str, content: bytes) -> str:
        """Serve bytes at a path; returns the URL."""
        self.files[path] = content
        return self.url + path


class _Handler(BaseHTTPRequestHandler):
    served: Server

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            self._answer(b"".join(self._chunks()))
        else:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _answer(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        self.served.requests.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
        target = self.served.redirects.get(path)
        if target is not None:
            return self._send(302, {"Location": target + (f"?{query}" if query else "")}, b"")
        wanted = self.served.password
        given = self.headers.get("Authorization", "").rpartition(" ")[2]
        if wanted and given != base64.b64encode(wanted.encode()).decode():
            return self._send(401, {"WWW-Authenticate": "Basic realm=x"}, b"")
        if path in self.served.files:
            return self._send(200, self.served.headers, self.served.files[path])
        if path.startswith("/smart/"):
            return self._backend(path.removeprefix("/smart"), query, body)
        return self._file(path.removeprefix("/files"))

    def _file(self, path: str) -> None:
        try:
            self._send(200, {}, (self.served.root / path.lstrip("/")).read_bytes())
        except OSError:
            self._send(404, {}, b"")

    def _backend(self, path: str, query: str, body: bytes) -> None:
        """CGI (RFC 3875) with git http-backend."""
        env = {
            **_IDENTITY,
            "GIT_PROJECT_ROOT": str(self.served.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        if self.served.speaks_v2:
            env["GIT_PROTOCOL"] = self.headers.get("Git-Protocol", "")
        done = subprocess.run(["git", "http-backend"], env=env, input=body, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if line)
        self._send(int(headers.pop("Status", "200 OK").split()[0]), headers, content)

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(root: Path) -> Iterator[Server]:
    """A server on a free port of the loopback interface."""
    root.mkdir(exist_ok=True)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {}))
    httpd.daemon_threads = True
    served = Server(root, httpd.server_port)
    httpd.RequestHandlerClass.served = served  # type: ignore[attr-defined]
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield served
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
