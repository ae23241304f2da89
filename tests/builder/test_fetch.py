"""Fetching a URL: what is kept, when the server is asked again, and what no error may say."""

from __future__ import annotations

import hashlib
import stat
import threading
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from builder.errors import BuildError
from builder.ops.fetch import fetch_digest, http_key, materialise, redacted
from builder.plan import HttpSourceOp
from cache.store import Store

MTIME = 1_400_000_000


class Served:
    """A server on loopback: answers by path, and what it was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []

    def answer(self, path: str, body: bytes = b"", *, status: int = 200, **headers: str) -> str:
        """Serve `body` at `path` with headers (underscores for hyphens); returns the URL."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        self.answers[path] = (status, named, body)
        return self.url + path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = {key.lower(): value for key, value in self.headers.items()}
            served.requests.append((self.path, asked))
            status, headers, body = served.answers.get(self.path, (404, {}, b"no"))
            if headers.get("ETag") and asked.get("if-none-match") == headers["ETag"]:
                status, body = 304, b""
            if headers.get("Last-Modified") and asked.get("if-modified-since") == headers["Last-Modified"]:
                status, body = 304, b""
            self.send_response_only(status)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Served(f"http://127.0.0.1:{httpd.server_port}")
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    yield served
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "store")) as opened:
        yield opened


def http(url: str, checksum: str = "", filename: str = "f") -> HttpSourceOp:
    return HttpSourceOp(url, filename, checksum)


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def test_a_file_is_kept_and_written_as_root_only(server: Served, store: Store, tmp_path: Path) -> None:
    op = http(server.answer("/f", b"remote\n", Last_Modified=formatdate(MTIME, usegmt=True)))
    fetched = fetch_digest(op, store)
    assert fetched == (digest_of(b"remote\n"), MTIME * 10**9)
    (tmp_path / "root").mkdir()
    materialise(op, fetched, store, str(tmp_path / "root"))
    written = tmp_path / "root/f"
    assert written.read_bytes() == b"remote\n"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert written.stat().st_mtime == MTIME


@pytest.mark.parametrize("modified", [None, "yesterday"])
def test_without_a_readable_time_it_is_the_epoch(server: Served, store: Store, modified: str | None) -> None:
    headers = {"Last_Modified": modified} if modified else {}
    assert fetch_digest(http(server.answer("/f", b"x", **headers)), store).mtime_ns == 0


def test_an_etag_spares_the_second_download(server: Served, store: Store) -> None:
    op = http(server.answer("/f", b"one", ETag='"1"', Last_Modified=formatdate(MTIME, usegmt=True)))
    first = fetch_digest(op, store)
    assert fetch_digest(op, store) == first
    assert server.requests[1][1]["if-none-match"] == '"1"'
    server.answer("/f", b"two", ETag='"2"')
    assert fetch_digest(op, store).digest == digest_of(b"two")


def test_an_old_last_modified_validates_and_a_young_one_does_not(server: Served, store: Store) -> None:
    def fetch_twice(path: str, age: int) -> dict[str, str]:
        date = {"Date": formatdate(MTIME + age, usegmt=True), "Last_Modified": formatdate(MTIME, usegmt=True)}
        op = http(server.answer(path, b"x", **date))
        assert fetch_digest(op, store) == fetch_digest(op, store)
        return server.requests[-1][1]

    assert "if-modified-since" in fetch_twice("/old", 3600)
    assert "if-modified-since" not in fetch_twice("/young", 1)


def test_nothing_is_asked_conditionally_when_the_bytes_are_gone(server: Served, store: Store) -> None:
    op = http(server.answer("/f", b"x", ETag='"1"'))
    store.blobs.delete(fetch_digest(op, store).digest)
    fetch_digest(op, store)
    assert "if-none-match" not in server.requests[1][1]


def test_a_checksum_fetched_before_needs_no_server(server: Served, store: Store) -> None:
    op = http(server.answer("/f", b"x"), digest_of(b"x"))
    first = fetch_digest(op, store)
    server.answers.clear()
    assert fetch_digest(op, store) == first
    assert len(server.requests) == 1


def test_a_wrong_checksum_names_both_digests(server: Served, store: Store) -> None:
    with pytest.raises(BuildError) as caught:
        fetch_digest(http(server.answer("/f", b"x"), digest_of(b"y")), store)
    assert digest_of(b"y") in str(caught.value)
    assert digest_of(b"x") in str(caught.value)


def test_a_changed_file_is_not_hidden_by_its_checksum(server: Served, store: Store) -> None:
    url = server.answer("/f", b"x")
    fetch_digest(http(url, digest_of(b"x")), store)
    with pytest.raises(BuildError, match="digest mismatch"):
        fetch_digest(http(url, digest_of(b"z")), store)


def test_the_key_holds_content_name_and_time(server: Served, store: Store) -> None:
    url = server.answer("/f", b"x", Last_Modified=formatdate(MTIME, usegmt=True))
    fetched = fetch_digest(http(url), store)
    key = http_key(http(url), fetched)
    assert url not in str(key)
    assert key != http_key(http(url), fetched._replace(mtime_ns=0))
    assert key != http_key(http(url, filename="g"), fetched)
    pinned = http(url, digest_of(b"x"))
    assert http_key(pinned, fetched) == http_key(pinned, fetched._replace(mtime_ns=0))


@pytest.mark.parametrize(("status", "words"), [(404, "404"), (500, "500"), (403, "403")])
def test_a_refusal_says_which(server: Served, store: Store, status: int, words: str) -> None:
    with pytest.raises(BuildError, match=f"the server answered {words}"):
        fetch_digest(http(server.answer("/f", status=status)), store)


def test_an_unconditional_304_is_a_refusal(server: Served, store: Store) -> None:
    with pytest.raises(BuildError, match="304"):
        fetch_digest(http(server.answer("/f", status=304)), store)


def test_redirects_are_followed_ten_times(server: Served, store: Store) -> None:
    for number in range(15):
        server.answer(f"/{number}", status=302, Location=f"/{number + 1}")
    server.answer("/9", b"end")
    assert fetch_digest(http(server.url + "/0"), store).digest == digest_of(b"end")
    server.answer("/9", status=302, Location="/10")
    with pytest.raises(BuildError, match="302"):
        fetch_digest(http(server.url + "/0"), store)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/"])
def test_a_redirect_to_something_else_is_refused(server: Served, store: Store, target: str) -> None:
    with pytest.raises(BuildError):
        fetch_digest(http(server.answer("/f", status=302, Location=target)), store)


def test_a_broken_off_answer_is_an_error_and_nothing_is_kept(server: Served, store: Store) -> None:
    with pytest.raises(BuildError, match="broke off"):
        fetch_digest(http(server.answer("/f", b"half", Content_Length="8")), store)
    assert list(store.blobs.walk()) == []


def test_credentials_go_to_their_host_only(server: Served, store: Store) -> None:
    server.answer("/f", status=302, Location="/g")
    server.answer("/g", b"x")
    fetch_digest(http(server.url.replace("//", "//user:p%40ss@") + "/f"), store)
    assert server.requests[0][1]["authorization"] == "Basic dXNlcjpwQHNz"
    assert "authorization" not in server.requests[1][1]


class Secrets:
    """Secrets by name, for `fetch_digest`."""

    def __init__(self, **given: str) -> None:
        self.ssh: dict[str, str] = {}
        self._given = {name.replace("LOOPBACK", "127.0.0.1"): value.encode() for name, value in given.items()}

    def read(self, secret_id: str) -> bytes | None:
        return self._given.get(secret_id)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"HTTP_AUTH_TOKEN_LOOPBACK": "s3cret\n"}, "Bearer s3cret"),
        ({"HTTP_AUTH_HEADER_LOOPBACK": "Digest s3cret"}, "Digest s3cret"),
        ({"HTTP_AUTH_HEADER_LOOPBACK": "Digest x", "HTTP_AUTH_TOKEN_LOOPBACK": "s3cret"}, "Bearer s3cret"),
        ({"HTTP_AUTH_TOKEN_localhost": "s3cret", "HTTP_AUTH_TOKEN": "s3cret"}, None),
    ],
)
def test_a_secret_for_the_host_is_sent(server: Served, store: Store, given: dict[str, str], sent: str | None) -> None:
    fetch_digest(http(server.answer("/f", b"x")), store, Secrets(**given))
    assert server.requests[0][1].get("authorization") == sent
    assert not any(b"s3cret" in path.read_bytes() for path in Path(store.root).rglob("*") if path.is_file())


def test_a_secret_stays_with_its_origin(server: Served, store: Store) -> None:
    other = server.url.replace("127.0.0.1", "localhost")
    server.answer("/a", status=302, Location="/b")
    server.answer("/b", status=307, Location=f"{other}/c")
    server.answer("/c", status=302, Location=f"{server.url}/d")
    server.answer("/d", b"x")
    fetch_digest(http(server.url + "/a"), store, Secrets(HTTP_AUTH_TOKEN_LOOPBACK="s3cret"))
    sent = {path: headers.get("authorization") for path, headers in server.requests}
    assert sent == {"/a": "Bearer s3cret", "/b": "Bearer s3cret", "/c": None, "/d": None}


def test_a_secret_of_several_lines_is_no_header(server: Served, store: Store) -> None:
    with pytest.raises(BuildError, match="is not one line") as caught:
        fetch_digest(http(server.answer("/f", b"x")), store, Secrets(HTTP_AUTH_HEADER_LOOPBACK="a: s3cret\r\nX: y"))
    assert "s3cret" not in str(caught.value)
    assert server.requests == []


def test_a_refusal_for_want_of_a_token_says_how_to_give_one(server: Served, store: Store) -> None:
    with pytest.raises(BuildError, match="the server answered 401") as caught:
        fetch_digest(http(server.answer("/f", status=401)), store)
    assert "HTTP_AUTH_TOKEN_127.0.0.1" in str(caught.value.hint)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:s3cret@127.0.0.1:1/f",
        "http://user:s3cret@127.0.0.1:port/f",
        "http://user:s3cret@[::1/f",
        "http://user:s3cret@no such host/f",
        "https://user:s3cret@127.0.0.1:1/f",
    ],
)
def test_no_error_shows_a_password(store: Store, url: str) -> None:
    with pytest.raises(BuildError) as caught:
        fetch_digest(http(url), store)
    shown = str(caught.value) + str(caught.value.hint)
    assert "s3cret" not in shown
    assert "/f" in shown


def test_no_password_lies_in_the_store(server: Served, store: Store, tmp_path: Path) -> None:
    server.answer("/f", b"x", ETag='"1"')
    fetch_digest(http(server.url.replace("//", "//user:s3cret@") + "/f"), store)
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert files
    assert not any(b"s3cret" in path.read_bytes() for path in files)


def test_redacted_leaves_the_rest() -> None:
    assert redacted("https://a:b@host:8/p?q#f") == "https://host:8/p?q#f"
    assert redacted("https://host/p@q") == "https://host/p@q"


def test_paths_with_blanks_and_letters_beyond_ascii(server: Served, store: Store) -> None:
    server.answer("/a%20b/%C3%BC", b"x")
    assert fetch_digest(http(server.url + "/a b/ü"), store).digest == digest_of(b"x")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x"])
def test_a_name_cannot_leave_the_root(server: Served, store: Store, tmp_path: Path, name: str) -> None:
    op = http(server.answer("/f", b"x"), filename=name)
    fetched = fetch_digest(op, store)
    with pytest.raises(BuildError, match="cannot be the name"):
        materialise(op, fetched, store, str(tmp_path))


def test_a_link_planted_in_the_root_is_not_written_through(server: Served, store: Store, tmp_path: Path) -> None:
    op = http(server.answer("/f", b"x"))
    fetched = fetch_digest(op, store)
    (tmp_path / "canary").write_text("alive")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/f").symlink_to(tmp_path / "canary")
    with pytest.raises(BuildError):
        materialise(op, fetched, store, str(tmp_path / "root"))
    assert (tmp_path / "canary").read_text() == "alive"
