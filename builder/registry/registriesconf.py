"""containers' registries.conf: which registry stands behind a name, its mirrors, what is insecure or blocked.

    $CONTAINERS_REGISTRIES_CONF, else ~/.config/containers/registries.conf, else /etc/containers/registries.conf
    /etc/containers/registries.conf.d/*.conf, ~/.config/containers/registries.conf.d/*.conf   (not beside a named file)

The files are merged in that order: a later `[[registry]]` of the same prefix, a later alias, a later list count. Only
the second version of the format is read. Source: containers-registries.conf(5), containers-registries.conf.d(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from builder.errors import BuildError
from cache.namedtuple import NamedTuple

_PULL_FROM = ("all", "digest-only", "tag-only")
_OLD = "registries"
"""The table that the first version of the format is known by."""


class Mirror(NamedTuple):
    """Another place for the same images: `location` is `host[:port][/path]`."""

    location: str
    insecure: bool = False
    pull_from: str = "all"


class RegistryEntry(NamedTuple):
    """What the configuration says of all names that begin with `prefix`."""

    prefix: str
    location: str
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()


class RegistriesConf(NamedTuple):
    """The whole configuration."""

    entries: tuple[RegistryEntry, ...] = ()
    unqualified: tuple[str, ...] = ()
    aliases: Mapping[str, str] = {}

    def entry_for(self, name: str) -> RegistryEntry | None:
        """The entry with the longest prefix of `host[:port]/path`, None when no entry is about it."""
        matching = [entry for entry in self.entries if matched(entry.prefix, name) is not None]
        return max(matching, key=lambda entry: len(entry.prefix), default=None)


def matched(prefix: str, name: str) -> str | None:
    """The part of a name that a prefix covers (`*.` stands for any subdomain), None when it covers nothing."""
    if prefix.startswith("*."):
        host = name.partition("/")[0]
        return host if host.partition(":")[0].endswith(prefix[1:]) or host.endswith(prefix[1:]) else None
    if name == prefix or (name.startswith(prefix) and name[len(prefix)] in "/:@"):
        return prefix if "/" in prefix or name[len(prefix) : len(prefix) + 1] != ":" else None
    return None


def read_registries_conf(environ: Mapping[str, str]) -> RegistriesConf:
    """The configuration of this user on this machine; no file is an empty one. BuildError for a malformed file."""
    conf = RegistriesConf()
    for path in _files(environ):
        conf = _merged(conf, _read(path))
    return conf


def _files(environ: Mapping[str, str]) -> list[str]:
    named = environ.get("CONTAINERS_REGISTRIES_CONF")
    if named:
        return [named]
    home = environ.get("HOME") or ""
    own = environ.get("XDG_CONFIG_HOME") or (os.path.join(home, ".config") if home else "")
    roots = ["/etc/containers", *([os.path.join(own, "containers")] if own else [])]
    main = [path for root in roots if os.path.exists(path := os.path.join(root, "registries.conf"))]
    found = main[-1:]
    for root in roots:
        directory = os.path.join(root, "registries.conf.d")
        try:
            found += [os.path.join(directory, name) for name in sorted(os.listdir(directory)) if name.endswith(".conf")]
        except OSError:
            continue
    return found


def _read(path: str) -> RegistriesConf:
    import tomllib

    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
        return _conf(document)
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {(error.strerror or '').lower()}") from error
    except ValueError as error:  # tomllib's error is one
        raise BuildError(f"{path} is not valid: {error}", hint="see containers-registries.conf(5)") from error


def _conf(document: dict[str, Any]) -> RegistriesConf:
    if isinstance(document.get(_OLD), dict):
        raise ValueError("it has the first version of the format, expected [[registry]] tables")
    return RegistriesConf(
        tuple([_entry(table) for table in _tables(document, "registry")]),
        tuple(_texts(document.get("unqualified-search-registries", []), "unqualified-search-registries")),
        dict(_alias(name, value) for name, value in document.get("aliases", {}).items()),
    )


def _entry(table: dict[str, Any]) -> RegistryEntry:
    location, prefix = _location(table), table.get("prefix") or table.get("location") or ""
    if not isinstance(prefix, str) or not prefix:
        raise ValueError("a [[registry]] needs a location or a prefix")
    if prefix.startswith("*.") and not location:
        location = ""
    elif not location:
        location = prefix
    by_digest = "digest-only" if table.get("mirror-by-digest-only") is True else "all"
    mirrors = [_mirror(mirror, by_digest) for mirror in _tables(table, "mirror")]
    return RegistryEntry(
        prefix.rstrip("/"), location, table.get("insecure") is True, table.get("blocked") is True, tuple(mirrors)
    )


def _mirror(table: dict[str, Any], default: str) -> Mirror:
    location, pull_from = _location(table), table.get("pull-from-mirror") or default
    if not location:
        raise ValueError("a [[registry.mirror]] needs a location")
    if pull_from not in _PULL_FROM:
        raise ValueError(f"pull-from-mirror is {pull_from!r}, expected one of {', '.join(_PULL_FROM)}")
    return Mirror(location, table.get("insecure") is True, pull_from)


def _location(table: dict[str, Any]) -> str:
    location = table.get("location") or ""
    if not isinstance(location, str) or "://" in location:
        raise ValueError(f"location {location!r} is not host[:port][/path]")
    return location.rstrip("/")


def _tables(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    tables = document.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError(f"{key} is not a list of tables")
    return tables


def _texts(values: Any, key: str) -> Iterable[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{key} is not a list of texts")
    return values


def _alias(name: str, value: Any) -> tuple[str, str]:
    if not isinstance(value, str):
        raise ValueError(f"alias {name!r} is not text")
    return name, value


def _merged(below: RegistriesConf, above: RegistriesConf) -> RegistriesConf:
    taken = {entry.prefix for entry in above.entries}
    kept = [entry for entry in below.entries if entry.prefix not in taken]
    aliases = {name: value for name, value in {**below.aliases, **above.aliases}.items() if value}
    return RegistriesConf((*kept, *above.entries), above.unqualified or below.unqualified, aliases)
