"""The door to registries: names in, repositories out. One client per command.

    with RegistryClient(environ) as client:
        repository = client.repository("registry.example/app", may_push=True)
        if not repository.has_blob(digest): repository.upload(descriptor, open_stream)
        repository.put_manifest(raw, media_type, "latest")
        with repository.open_blob(descriptor) as stream: …

Wires configuration, credentials and connections together; the parts do not know each other.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from types import TracebackType

from builder.errors import BuildError
from builder.registry.credentials import Credentials, find_credentials
from builder.registry.endpoint import Endpoint, own_endpoint, pull_sources
from builder.registry.errors import DeniedError
from builder.registry.registriesconf import RegistriesConf, read_registries_conf
from builder.registry.repository import Repository
from builder.registry.session import Session
from builder.registry.transport import Transport
from cache.namedtuple import NamedTuple
from grammar.errors import DockerfileError
from grammar.reference import Reference, parse_reference


class Place(NamedTuple):
    """Where an image may be had: a repository, and the tag or digest to ask it for."""

    repository: Repository
    reference: str


class RegistryClient:
    """See the module. Any thread may use it. `insecure` lets every registry be spoken to without TLS, or with a
    certificate that nobody vouches for."""

    def __init__(self, environ: Mapping[str, str], *, insecure: bool = False) -> None:
        self._environ = environ
        self._insecure = insecure
        self._transport = Transport(environ)
        self._lock = threading.Lock()
        self._conf: RegistriesConf | None = None
        self._sessions: dict[Endpoint, Session] = {}

    def repository(self, name: str, *, may_push: bool = False) -> Repository:
        """The repository of `[registry/]path`, whatever tag or digest is in the name. BuildError for a name that is
        none, and for a registry that the configuration blocks. Nothing is sent yet."""
        return self._open(own_endpoint(_reference(name), self._configuration()), may_push)

    def places(self, name: str) -> list[Place]:
        """Where to pull an image from, in the order in which to try: mirrors, then the registry; of a short name what
        the configuration says. BuildError as `repository`."""
        sources = pull_sources(name, self._configuration())
        return [Place(self._open(source.endpoint, False), source.reference) for source in sources]

    def ping(self, domain: str, credentials: Credentials | None) -> str:
        """Log in with these credentials; the URL that let them in. DeniedError, UnreachableError."""
        from builder.registry.session import Call

        endpoint = Endpoint(domain, "", self._insecure)
        session = Session(endpoint, self._transport, lambda: credentials)
        try:
            session.call(Call("GET", "")).close()
        except DeniedError as error:
            raise DeniedError(f"{domain} does not take these credentials ({error})") from error
        return session.base_url()

    def cancel(self) -> None:
        """End every exchange, in all threads. Idempotent."""
        self._transport.cancel()

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._transport.close()

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _configuration(self) -> RegistriesConf:
        with self._lock:
            if self._conf is None:
                self._conf = read_registries_conf(self._environ)
            return self._conf

    def _open(self, endpoint: Endpoint, may_push: bool) -> Repository:
        if self._insecure:
            endpoint = endpoint._replace(insecure=True)
        with self._lock:
            if endpoint not in self._sessions:
                find = partial(find_credentials, endpoint.domain, endpoint.repository, self._environ)
                self._sessions[endpoint] = Session(endpoint, self._transport, find)
            return Repository(self._sessions[endpoint], may_push=may_push)


def _reference(name: str) -> Reference:
    try:
        return parse_reference(name)
    except DockerfileError as error:
        raise BuildError(error.message, hint=error.hint) from error
