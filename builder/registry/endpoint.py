"""Where an image's name leads: the registries to ask, in order, and the repository's path there.

Docker Hub is the one registry that is known by name, since the rules of short names are its own: `docker.io` answers at
another host. Everything else is what the name says and what registries.conf makes of it.
"""

from __future__ import annotations

from builder.errors import BuildError
from builder.registry.proxies import is_loopback
from builder.registry.registriesconf import RegistriesConf, RegistryEntry, matched
from cache.namedtuple import NamedTuple
from grammar.errors import DockerfileError
from grammar.reference import DEFAULT_DOMAIN, Reference, parse_reference

_DOCKER_HUB_HOST = "registry-1.docker.io"


class Endpoint(NamedTuple):
    """A repository on a registry. `domain` is the registry's name for credentials, `host` where it answers."""

    domain: str
    repository: str
    insecure: bool = False
    """Whether plain HTTP, or TLS with a certificate that nobody vouches for, will do."""

    @property
    def host(self) -> str:
        """`host[:port]` to connect to, and the name of its directory of certificates."""
        return _DOCKER_HUB_HOST if self.domain == DEFAULT_DOMAIN else self.domain

    @property
    def may_be_plain(self) -> bool:
        """Whether plain HTTP will do when the server does not speak TLS. Loopback cannot be listened to by others."""
        return self.insecure or is_loopback(split_host(self.host))

    def __str__(self) -> str:
        return f"{self.domain}/{self.repository}"


class Source(NamedTuple):
    """A place to pull an image from: where, and what to ask for there, a tag or a digest."""

    endpoint: Endpoint
    reference: str


def split_host(host: str) -> str:
    """A host without its port and without the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def own_endpoint(reference: Reference, conf: RegistriesConf) -> Endpoint:
    """Where to push to: the registry itself, no mirror. BuildError when it is blocked."""
    entry = _entry(reference, conf)
    location = reference.name if entry is None else _relocated(reference.name, entry.prefix, entry.location)
    return _endpoint(location, insecure=entry is not None and entry.insecure)


def pull_sources(text: str, conf: RegistriesConf) -> list[Source]:
    """The places to pull an image from, mirrors first. BuildError for a name that is none, or is blocked."""
    found: list[Source] = []
    for reference in candidates(text, conf):
        found += _sources(reference, conf)
    return found


def candidates(text: str, conf: RegistriesConf) -> list[Reference]:
    """What a name may mean, completed: itself, or a short one's alias, or it in each of the search registries."""
    try:
        reference = parse_reference(text).pinned()
        if not _is_short(text):
            return [reference]
        name = text.partition("@")[0].partition(":")[0]
        if name in conf.aliases:
            aliased = parse_reference(conf.aliases[name])
            return [aliased._replace(tag=reference.tag, digest=reference.digest)]
        return [_in_registry(registry, text) for registry in conf.unqualified] or [reference]
    except DockerfileError as error:
        raise BuildError(error.message, hint=error.hint) from error


def _is_short(text: str) -> bool:
    """Whether a name says no registry."""
    first, slash, _ = text.partition("/")
    return not slash or not ("." in first or ":" in first or first == "localhost" or first.lower() != first)


def _in_registry(registry: str, text: str) -> Reference:
    return parse_reference(f"{registry}/{text}").pinned()


def _sources(reference: Reference, conf: RegistriesConf) -> list[Source]:
    wanted = reference.digest or reference.tag
    entry = _entry(reference, conf)
    if entry is None:
        return [Source(_endpoint(reference.name), wanted)]
    refused = "tag-only" if reference.digest else "digest-only"
    sources = [
        Source(_endpoint(_relocated(reference.name, entry.prefix, mirror.location), insecure=mirror.insecure), wanted)
        for mirror in entry.mirrors
        if mirror.pull_from != refused
    ]
    return [*sources, Source(own_endpoint(reference, conf), wanted)]


def _entry(reference: Reference, conf: RegistriesConf) -> RegistryEntry | None:
    entry = conf.entry_for(reference.name)
    if entry is not None and entry.blocked:
        raise BuildError(f"{reference.domain} is blocked", hint=f"registries.conf says so of {entry.prefix}")
    return entry


def _relocated(name: str, prefix: str, location: str) -> str:
    """A name with the part that the prefix covers replaced by the location ("" keeps it)."""
    covered = matched(prefix, name)
    return location + name[len(covered) :] if covered and location else name


def _endpoint(name: str, *, insecure: bool = False) -> Endpoint:
    domain, _, path = name.partition("/")
    return Endpoint(domain, path, insecure)
