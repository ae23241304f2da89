"""How we say to a registry who we are: Basic, or tokens that its token server gives for a scope.

A token is kept for as long as it lives and for what it was given for. Credentials go to the registry that they belong
to and to the token server that this registry names, to nobody else; neither they nor tokens appear in a message.
Source: distribution, Token Authentication Specification and OAuth2 Token Authentication.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias
from urllib.parse import urlencode, urlsplit

from builder.registry.challenge import Challenge, parse_challenges
from builder.registry.credentials import Credentials
from builder.registry.errors import DeniedError, RegistryError, describe_answer
from builder.registry.proxies import is_loopback
from builder.registry.transport import Reply, Request
from cache.namedtuple import NamedTuple

_CLIENT_ID = "pybuild"
_LIMIT = 1 << 20
_SECONDS = 60.0
"""How long a token lives when nobody says."""
_MARGIN = 10.0
_JUST_NOW = 5.0


class Scope(NamedTuple):
    """What may be done with one repository: `pull`, `push`."""

    repository: str
    actions: frozenset[str]

    def __str__(self) -> str:
        return f"repository:{self.repository}:{','.join(sorted(self.actions))}"


Scopes: TypeAlias = "frozenset[Scope]"


class Ask(Protocol):
    """Sends a request, with the patience of a session; any status is an answer."""

    def __call__(self, request: Request, /) -> Reply:
        """The answer."""


class _Token(NamedTuple):
    text: str
    issued: float
    expires: float


class Authorizer:
    """The authorization for one registry. Any thread may use it; one at a time asks for tokens."""

    def __init__(
        self, host: str, find: Callable[[], Credentials | None], ask: Ask, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._host = host
        self._find = find
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        self._credentials: Credentials | None = None
        self._is_found = False
        self._scheme = ""
        self._bearer: Challenge | None = None
        self._tokens: dict[Scopes, _Token] = {}

    @property
    def has_credentials(self) -> bool:
        """Whether there is anything to log in with."""
        return self._who() is not None

    def header(self, scopes: Scopes) -> str | None:
        """The Authorization to send, None for none: the registry has not asked for any yet."""
        with self._lock:
            if self._scheme == "basic":
                return self._basic()
            if self._bearer is None:
                return None
            token = self._tokens.get(scopes)
            if token is None or token.expires < self._clock():
                token = self._fetch(self._bearer, scopes)
            return f"Bearer {token.text}"

    def learn(self, reply: Reply, scopes: Scopes, sent: str | None) -> bool:
        """Take in a 401. Whether another try makes sense: there is an authorization now that was not sent.

        DeniedError when the token server refuses.
        """
        asked = parse_challenges(reply.headers.get("WWW-Authenticate", ""))
        challenges = {each.scheme: each for each in reversed(asked)}
        with self._lock:
            if "bearer" in challenges and challenges["bearer"].parameters.get("realm"):
                self._scheme, self._bearer = "bearer", challenges["bearer"]
                token = self._tokens.get(scopes)
                if token is not None and sent != f"Bearer {token.text}":
                    return True  # another thread got one meanwhile
                if token is not None and self._clock() - token.issued < _JUST_NOW:
                    return False  # a new one would be worth as little
                self._check_realm(reply.url, self._bearer)
                self._fetch(self._bearer, scopes)
                return True
            if "basic" in challenges:
                self._scheme = "basic"
                authorization = self._basic()
                return authorization is not None and authorization != sent
        return False

    def _who(self) -> Credentials | None:
        if not self._is_found:
            self._credentials, self._is_found = self._find(), True
        return self._credentials

    def _basic(self) -> str | None:
        who = self._who()
        return _basic(who) if who is not None and not who.identity_token else None

    def _check_realm(self, registry_url: str, challenge: Challenge) -> None:
        """A registry that is spoken to over TLS must not have the credentials sent in clear text."""
        realm = urlsplit(challenge.parameters["realm"])
        is_clear = realm.scheme == "http" and registry_url.startswith("https:")
        is_safe = not is_clear or is_loopback(realm.hostname or "")
        if realm.scheme not in ("http", "https") or not realm.hostname or not is_safe:
            raise DeniedError(f"{self._host} names a token server that is not safe to ask: {realm.netloc or 'none'}")

    def _fetch(self, challenge: Challenge, scopes: Scopes) -> _Token:
        reply = self._ask(self._token_request(challenge, scopes))
        body = reply.content(_LIMIT)
        if reply.status in (400, 401, 403):
            hint = f"log in again: pybuild login {self._host}" if self._who() else f"pybuild login {self._host}"
            said = describe_answer(reply.status, reply.reason, body)
            raise DeniedError(f"{self._host}: the token server refuses: {said}", hint=hint)
        if reply.status != 200:
            said = describe_answer(reply.status, reply.reason, body)
            raise RegistryError(f"{self._host}: the token server answered {said}")
        token = _parse_token(body, self._clock())
        if token is None:
            raise RegistryError(f"{self._host}: the token server's answer has no token")
        self._tokens[scopes] = token
        return token

    def _token_request(self, challenge: Challenge, scopes: Scopes) -> Request:
        realm = challenge.parameters["realm"]
        fields = [("service", challenge.parameters["service"])] if challenge.parameters.get("service") else []
        wanted = sorted(str(scope) for scope in scopes) or challenge.parameters.get("scope", "").split()
        who = self._who()
        if who is not None and who.identity_token:
            fields += [
                ("grant_type", "refresh_token"),
                ("refresh_token", who.identity_token),
                ("client_id", _CLIENT_ID),
            ]
            fields += [("scope", " ".join(wanted))] if wanted else []
            body = urlencode(fields).encode()
            return Request("POST", realm, {"Content-Type": "application/x-www-form-urlencoded"}, body)
        fields += [("scope", scope) for scope in wanted]
        headers = {}
        if who is not None:
            fields.append(("account", who.user))
            headers["Authorization"] = _basic(who)
        query = urlencode(fields)
        return Request("GET", f"{realm}{'&' if '?' in realm else '?'}{query}" if query else realm, headers)


def scope(repository: str, actions: Iterable[str] = ("pull",)) -> Scopes:
    """The scopes of work on one repository."""
    return frozenset((Scope(repository, frozenset(actions)),))


def _basic(who: Credentials) -> str:
    return "Basic " + base64.b64encode(f"{who.user}:{who.password}".encode()).decode("ascii")


def _parse_token(body: bytes, now: float) -> _Token | None:
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    text = document.get("token") or document.get("access_token")
    if not isinstance(text, str) or not text.isprintable() or not text.isascii():
        return None
    seconds = document.get("expires_in")
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 < seconds < 1e9
    return _Token(text, now, now + (float(seconds) if is_number else _SECONDS) - _MARGIN)  # type: ignore[arg-type]
