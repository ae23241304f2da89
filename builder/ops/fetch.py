"""ADD of a URL: the file behind it, kept as a blob of the store and validated with its server on every build.

A `--checksum` that was fetched before needs no server. Otherwise the server is asked with what it called its last
answer (ETag, or a Last-Modified old enough to be a strong validator, RFC 9110 section 8.8), and the digest of the bytes
is what counts. Sends credentials, of a URL or of a secret for its host, to that host only and prints them nowhere.
Knows no Dockerfile. Source: Dockerfile reference, ADD (HTTP_AUTH_HEADER_<host> and HTTP_AUTH_TOKEN_<host>).
"""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from builder.errors import BuildError
from builder.ops.content import write_all
from builder.plan import HttpSourceOp
from builder.sandbox.fsops import Directory
from cache.digest import Digest, sha256_hex
from cache.errors import CacheError
from cache.namedtuple import NamedTuple

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from builder.git.access import SecretSource
    from cache.store import Store

TIMEOUT_SECONDS = 60
_CHUNK = 1 << 20
_STRONG_AFTER_SECONDS = 60


class Fetched(NamedTuple):
    """What a URL gave: the sha256 of its bytes, which are a blob of the store, and its Last-Modified (0 if none)."""

    digest: Digest
    mtime_ns: int


class _Answer(NamedTuple):
    """What is remembered of a server's answer: how to ask whether it still holds, and what it was."""

    header: str
    validator: str
    fetched: Fetched


def fetch_digest(op: HttpSourceOp, store: Store, secrets: SecretSource | None = None) -> Fetched:
    """Fetch a URL, or find that what the store has is still right; the bytes are in `store.blobs` afterwards.

    Raises BuildError when the server cannot be reached or refuses, for bytes that are not what `checksum` names, and
    for a secret for the host that cannot be read.
    """
    with _reported(op.url):
        expected = Digest.parse(op.checksum) if op.checksum else None
        known = _recall(op.url, store)
        if expected is not None and known is not None and known.fetched.digest == expected:
            return known.fetched
        fetched = _ask(op.url, known, store, _authorization(op.url, secrets))
    if expected is not None and fetched.digest != expected:
        raise BuildError(
            f"{redacted(op.url)}: digest mismatch: got {fetched.digest}, expected {expected}",
            hint="if the file was meant to change, put its new digest into --checksum",
        )
    return fetched


def http_key(op: HttpSourceOp, fetched: Fetched) -> dict[str, Any]:
    """What the cache key of the fetched root is made of. With `--checksum` the time does not count (BuildKit)."""
    key: dict[str, Any] = {"kind": "http", "filename": op.filename, "digest": str(fetched.digest)}
    return key if op.checksum else key | {"mtime_ns": fetched.mtime_ns}


def materialise(op: HttpSourceOp, fetched: Fetched, store: Store, dest_dir: str) -> None:
    """Write the fetched file into an empty root directory: mode 0600, root's, with the server's time."""
    if op.filename in ("", ".", "..") or "/" in op.filename:
        raise BuildError(f'{redacted(op.url)}: "{op.filename}" cannot be the name of a file')
    with _reported(op.url), Directory(os.open(dest_dir, os.O_RDONLY | os.O_DIRECTORY)) as directory:
        fd = directory.create(op.filename)
        try:
            with store.blobs.open(fetched.digest) as blob:
                while chunk := blob.read(_CHUNK):
                    write_all(fd, chunk)
            os.fchmod(fd, stat.S_IRUSR | stat.S_IWUSR)
            os.utime(fd, ns=(fetched.mtime_ns, fetched.mtime_ns))
        finally:
            os.close(fd)


def redacted(url: str) -> str:
    """The URL without the user name and password it may hold."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _authorization(url: str, secrets: SecretSource | None) -> str:
    """The header that a secret gives for the URL's host, "" for none; a token counts before a whole header."""
    host = urlsplit(url).netloc.rpartition("@")[2]
    name, _, port = host.rpartition(":")
    host = (name if name and (port.isdecimal() or not port) else host).removeprefix("[").removesuffix("]")
    for prefix, scheme in (("HTTP_AUTH_TOKEN_", "Bearer "), ("HTTP_AUTH_HEADER_", "")):
        secret = secrets.read(prefix + host) if secrets is not None else None
        if secret is None:
            continue
        try:
            header = scheme + secret.decode("latin-1").rstrip("\r\n")
        except ValueError as error:
            raise BuildError(f'secret "{prefix}{host}" cannot be a header') from error
        if any(ord(character) < 0x20 or ord(character) == 0x7F for character in header):
            raise BuildError(f'secret "{prefix}{host}" is not one line, so it cannot be a header')
        return header
    return ""


def _ask(url: str, known: _Answer | None, store: Store, authorization: str) -> Fetched:
    from urllib.error import HTTPError

    try:
        response = _opener(authorization).open(_request(url, known, authorization), timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        if error.code == 304 and known is not None:
            return known.fetched
        raise BuildError(
            f"{redacted(url)}: the server answered {error.code} {error.reason}", hint=_hint(error.code, url)
        ) from None
    with response:
        fetched = _download(response, url, store)
        _remember(url, response, fetched, store)
    return fetched


def _hint(status: int, url: str) -> str | None:
    if status not in (401, 403):
        return None
    host = urlsplit(redacted(url)).hostname
    return f"if it wants a token, give one with --secret id=HTTP_AUTH_TOKEN_{host},env=VARIABLE"


def _download(response: HTTPResponse, url: str, store: Store) -> Fetched:
    with store.blobs.writer() as writer:
        while chunk := response.read(_CHUNK):
            writer.write(chunk)
        length = response.headers.get("Content-Length", "")
        if length.isascii() and length.isdigit() and int(length) != writer.size:
            raise BuildError(
                f"{redacted(url)}: the answer broke off: expected {length} bytes, got {writer.size}",
                hint="try again",
            )
    modified = _seconds(response.headers.get("Last-Modified"))
    return Fetched(writer.digest, (modified or 0) * 10**9)


def _request(url: str, known: _Answer | None, authorization: str) -> Any:
    from urllib.request import Request

    parts = urlsplit(url)
    credentials, _, host = parts.netloc.rpartition("@")
    headers = {"User-Agent": "pybuild", "Accept": "*/*", "Accept-Encoding": "identity"}
    if known is not None and known.validator:
        headers[known.header] = known.validator
    path, query = (quote(part, safe="%/:=&?~+!$,;'@()*[]") for part in (parts.path, parts.query))
    address = urlunsplit((parts.scheme, host, path, query, ""))
    request = Request(address, headers=headers)  # noqa: S310 (the opener knows http and https alone)
    if credentials and not authorization:
        authorization = "Basic " + base64.b64encode(unquote(credentials).encode()).decode("ascii")
    if authorization:
        # Unredirected: what is meant for this host must not reach the one that it redirects to.
        request.add_unredirected_header("Authorization", authorization)
    return request


def _opener(authorization: str) -> Any:
    """An opener for http and https alone, with the proxies of the environment and at most ten redirects.

    A redirect within the same origin keeps the header that a secret gave.
    """
    from urllib import request

    class Redirects(request.HTTPRedirectHandler):
        def redirect_request(self, old: Any, *answer: Any) -> Any:
            new = super().redirect_request(old, *answer)
            if new is None or not (authorization and old.has_header("Authorization")):
                return new
            if urlsplit(old.full_url)[:2] == urlsplit(new.full_url)[:2]:
                new.add_unredirected_header("Authorization", authorization)
            return new

    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.UnknownHandler(),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        Redirects(),
        request.HTTPErrorProcessor(),
        request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


MEMO_PREFIX = "http:"


def remembered(store: Store) -> Iterator[Digest]:
    """The blobs that were fetched from URLs and are used again while the server says that they hold."""
    for _, source in store.memo.walk(MEMO_PREFIX):
        yield Digest.parse(json.loads(source)[2])


def _memo_key(url: str) -> str:
    return MEMO_PREFIX + sha256_hex(url.encode("utf-8", "surrogateescape"))


def _recall(url: str, store: Store) -> _Answer | None:
    """The last answer for a URL, None when there was none or its bytes are gone."""
    source = store.memo.get(_memo_key(url))
    if source is None:
        return None
    header, validator, digest, mtime_ns = json.loads(source)
    fetched = Fetched(Digest.parse(digest), mtime_ns)
    return _Answer(header, validator, fetched) if store.blobs.size(fetched.digest) is not None else None


def _remember(url: str, response: HTTPResponse, fetched: Fetched, store: Store) -> None:
    etag = response.headers.get("ETag", "")
    modified, date = response.headers.get("Last-Modified", ""), _seconds(response.headers.get("Date"))
    header, validator = "If-None-Match", etag
    if not etag:
        is_strong = date is not None and date - (_seconds(modified) or date) >= _STRONG_AFTER_SECONDS
        header, validator = "If-Modified-Since", modified if is_strong else ""
    answer = (header, validator, fetched.digest, fetched.mtime_ns)
    store.memo.put(_memo_key(url), json.dumps(answer).encode("ascii"))


def _seconds(http_date: str | None) -> int | None:
    """An HTTP date as seconds since the epoch, None if there is none or it cannot be read."""
    from email.utils import parsedate_to_datetime

    try:
        return int(parsedate_to_datetime(http_date or "").timestamp())
    except (ValueError, OverflowError):
        return None


@contextmanager
def _reported(url: str) -> Iterator[None]:
    """Turn what the network, the store or a malformed URL raises into a BuildError without the URL's secrets."""
    from http.client import HTTPException, InvalidURL

    try:
        yield
    except (InvalidURL, ValueError) as error:
        raise BuildError(f"{redacted(url)}: not a valid URL") from error
    except CacheError as error:
        raise BuildError(f"{redacted(url)}: {error}", hint=error.hint) from error
    except HTTPException as error:
        raise BuildError(f"{redacted(url)}: the server's answer cannot be read: {error!r}") from error
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        reason = (getattr(reason, "strerror", None) or str(reason)).lower()
        raise BuildError(f"{redacted(url)}: {reason}", hint="check the address, the network and the proxy") from error
