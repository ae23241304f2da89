"""Requests to one registry until one holds: authorization, patience, redirects.

What fails in passing is tried again: a broken connection, 408, 429 and 5xx, after the time that the server asks for or
a growing one with some chance in it. A redirect to another host gets no Authorization, one from TLS to plain HTTP is
refused. Knows the rules of HTTP, not those of images.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection, Mapping
from urllib.parse import urljoin, urlsplit

from builder.registry.auth import Authorizer, Scopes
from builder.registry.credentials import Credentials
from builder.registry.endpoint import Endpoint
from builder.registry.errors import (
    DeniedError,
    NotFoundError,
    RegistryError,
    UnreachableError,
    describe_answer,
    shown,
)
from builder.registry.transport import Body, Reply, Request, Transport, TransportError, host_of
from cache.blobs import Readable
from cache.namedtuple import NamedTuple

ATTEMPTS = 6
LONGEST_WAIT = 120.0
"""Seconds that a server may ask to wait for; longer, and the user is told instead."""
ERROR_LIMIT = 64 << 10
_FIRST_WAIT = 0.2
_REDIRECTS = 5
_PROBES = 3
"""Attempts where there is little hope."""
_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))
_DEFAULT_PORTS = {"https": ":443", "http": ":80"}
_MOVED = frozenset((301, 302, 303, 307, 308))


class Call(NamedTuple):
    """A request to make: `target` is a path below `/v2/` or a URL that the registry gave."""

    method: str
    target: str
    scopes: Scopes = frozenset()
    headers: Mapping[str, str] = {}
    body: bytes | Callable[[], Readable] | None = None
    """Bytes, or what opens the stream anew for every try."""
    expected: Collection[int] = (200,)
    attempts: int = ATTEMPTS


class Session:
    """The exchanges with one registry. Any thread may use it."""

    def __init__(
        self, endpoint: Endpoint, transport: Transport, find_credentials: Callable[[], Credentials | None]
    ) -> None:
        self.endpoint = endpoint
        self.transport = transport
        self.authorizer = Authorizer(endpoint.domain, find_credentials, self._ask_token_server)
        self._scheme = ""
        self._lock = threading.Lock()

    def call(self, call: Call) -> Reply:
        """The answer to a call, with a status that it expects. RegistryError for any other, and when there is none."""
        base = self.base_url()
        url = urljoin(f"{base}/v2/", call.target.lstrip("/")) if "://" not in call.target else call.target
        patience = Patience(self.transport, call.attempts)
        is_challenged = False
        while True:
            own = origin(url) == origin(base)
            sent = self.authorizer.header(call.scopes) if own else None
            try:
                reply = self._follow(call, url, sent)
            except TransportError as error:
                patience.after_error(error)
                continue
            if reply.status in call.expected:
                return reply
            # Of the registry itself only: another host, to which it redirects, could name a token server of its own.
            if reply.status == 401 and origin(reply.url) == origin(base) and not is_challenged:
                try:
                    is_challenged = self.authorizer.learn(reply, call.scopes, sent)
                except BaseException:
                    reply.close()
                    raise
                if is_challenged:
                    reply.close()
                    continue
            if reply.status not in _PASSING or not patience.after_answer(reply):
                raise self.error(reply, call)
            is_challenged = False

    def base_url(self) -> str:
        """`https://host[:port]`, or with http where that will do and TLS is not spoken."""
        with self._lock:
            if not self._scheme:
                self._scheme = self._find_scheme() if self.endpoint.may_be_plain else "https"
        return f"{self._scheme}://{self.endpoint.host}"

    def _find_scheme(self) -> str:
        """TLS is tried first, as docker does it; only a server that does not speak it at all is asked in clear text."""
        patience = Patience(self.transport, _PROBES)
        while True:
            try:
                self._probe("https")
                return "https"
            except TransportError as error:
                if error.is_plain and self._probe("http") != 400:  # what TLS servers say to clear text
                    return "http"
                patience.after_error(error)

    def _probe(self, scheme: str) -> int:
        request = Request("GET", f"{scheme}://{self.endpoint.host}/v2/", verify=not self.endpoint.insecure)
        reply = self.transport.send(request)
        reply.close()
        return reply.status

    def _follow(self, call: Call, url: str, authorization: str | None) -> Reply:
        """Send, and go where the answer says; a body is opened anew for every exchange."""
        for _ in range(_REDIRECTS + 1):
            headers = dict(call.headers)
            if authorization is not None:
                headers["Authorization"] = authorization
            body: Body = call.body() if callable(call.body) else call.body
            request = Request(call.method, url, headers, body, verify=not self.endpoint.insecure)
            reply = self.transport.send(request)
            target = reply.headers.get("Location")
            if reply.status not in _MOVED or reply.status in call.expected or not target:
                return reply
            reply.close()
            moved = urljoin(url, target)
            check_redirect(url, moved)
            if origin(moved) != origin(url):
                authorization = None
            url = moved
        raise RegistryError(f"{self.endpoint.host}: more than {_REDIRECTS} redirects")

    def _ask_token_server(self, request: Request) -> Reply:
        request = request._replace(verify=not self.endpoint.insecure)
        patience = Patience(self.transport, ATTEMPTS)
        while True:
            try:
                reply = self.transport.send(request)
            except TransportError as error:
                patience.after_error(error)
                continue
            if reply.status not in _PASSING or not patience.after_answer(reply):
                return reply

    def fetch(self, call: Call, limit: int) -> tuple[Reply, bytes]:
        """The answer to a call with its whole body, at most `limit` bytes; one that breaks off is asked for again."""
        patience = Patience(self.transport, call.attempts)
        while True:
            reply = self.call(call)
            try:
                return reply, reply.content(limit)
            except TransportError as error:
                reply.close()
                patience.after_error(error)

    def error(self, reply: Reply, call: Call) -> RegistryError:
        """The error for an answer that was not expected."""
        try:
            body = reply.content(ERROR_LIMIT)
        except RegistryError:
            body = b""
        what = f"{self.endpoint.host}: {call.method} {shown(call.target.partition('?')[0]) or '/v2/'}"
        if "://" in call.target:
            what = f"{self.endpoint.host}: {call.method} to {host_of(call.target)}"
        error = self._kind(reply, f"{what}: {describe_answer(reply.status, reply.reason, body)}")
        error.status, error.wait = reply.status, retry_after(reply)
        return error

    def _kind(self, reply: Reply, message: str) -> RegistryError:
        if reply.status in (401, 403):
            return DeniedError(message, hint=self._login_hint())
        if reply.status == 404:
            return NotFoundError(message)
        if reply.status in _PASSING:
            return UnreachableError(message, hint=_waiting_hint(reply))
        return RegistryError(message)

    def _login_hint(self) -> str:
        if self.authorizer.has_credentials:
            return "the credentials that are configured do not allow it"
        return f"pybuild login {self.endpoint.domain}"


class Patience:
    """How often, and how long in between."""

    def __init__(self, transport: Transport, attempts: int) -> None:
        self._transport = transport
        self._attempts = attempts
        self._made = 0

    def renew(self) -> None:
        """There was progress: begin to count anew."""
        self._made = 0

    def after_error(self, error: RegistryError) -> None:
        """Wait for the next try, as long as the server asks; raises the error when there is none."""
        self._transport.check()
        self._made += 1
        attempts = self._attempts
        if isinstance(error, TransportError) and (error.is_final or error.is_refused):
            attempts = 1 if error.is_final else min(attempts, _PROBES)
        if self._made >= attempts or (error.wait or 0.0) > LONGEST_WAIT:
            raise error
        self._transport.sleep(self._wait() if error.wait is None else error.wait)

    def after_answer(self, reply: Reply) -> bool:
        """Wait for the next try as long as the server asks, and close the answer; False when there is none."""
        self._made += 1
        asked = retry_after(reply)
        if self._made >= self._attempts or (asked is not None and asked > LONGEST_WAIT):
            return False
        reply.close()
        self._transport.sleep(self._wait() if asked is None else asked)
        return True

    def _wait(self) -> float:
        growing: float = _FIRST_WAIT * 2.0 ** (self._made - 1)
        return growing * random.uniform(0.75, 1.25)  # noqa: S311 - it spreads clients


def check_redirect(url: str, moved: str) -> None:
    """Refuse to go from TLS to clear text, or out of HTTP. RegistryError."""
    scheme = urlsplit(moved).scheme
    if scheme not in ("http", "https") or (scheme == "http" and url.startswith("https:")):
        raise RegistryError(f"{host_of(url)} leads to {shown(scheme)}://{host_of(moved)}, which is not safe")


def retry_after(reply: Reply) -> float | None:
    """Seconds to wait by the Retry-After header (RFC 9110 section 10.2.3), None when it says nothing."""
    text = reply.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    if not text:
        return None
    import time
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _waiting_hint(reply: Reply) -> str | None:
    asked = retry_after(reply)
    if asked is not None and asked > LONGEST_WAIT:
        return f"the registry asks to wait {asked:.0f} s"
    return "try again later" if reply.status != 429 else "too many requests: wait, or log in for a higher limit"


def origin(url: str) -> str:
    """Scheme, host and port of a URL: what credentials belong to."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].lower()
    return f"{parts.scheme}://{host.removesuffix(_DEFAULT_PORTS.get(parts.scheme, ' '))}"
