"""Who we are to a registry: what docker's and podman's configuration files say, and their credential helpers.

    $REGISTRY_AUTH_FILE
    $DOCKER_CONFIG/config.json                 else ~/.docker/config.json
    $XDG_RUNTIME_DIR/containers/auth.json      else /run/containers/UID/auth.json
    $XDG_CONFIG_HOME/containers/auth.json      else ~/.config/containers/auth.json

The first file that knows a registry counts. Keys of `auths` are hosts, with or without a scheme, or (podman) a host
with the beginning of a repository's path. Source: docker login reference; containers-auth.json(5).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from builder.errors import BuildError
from cache.namedtuple import NamedTuple
from grammar.reference import DEFAULT_DOMAIN

DOCKER_HUB_KEY = "https://index.docker.io/v1/"
"""What Docker calls its registry in configuration files."""
_LIMIT = 4 << 20
_TOKEN_USER = "<token>"  # noqa: S105 - the name that helpers give to identity tokens


class Credentials:
    """A user name with a password, or an identity token (OAuth 2 refresh token). Printing it shows neither."""

    __slots__ = ("identity_token", "password", "user")

    def __init__(self, user: str = "", password: str = "", identity_token: str = "") -> None:
        self.user = user
        self.password = password
        self.identity_token = identity_token


class ConfigFile(NamedTuple):
    """One configuration file: where it is and what it says."""

    path: str
    document: dict[str, Any]

    def helper(self, server: str) -> str:
        """The name of the helper for a registry, "" for none."""
        helpers = self.document.get("credHelpers")
        named = helpers.get(server) if isinstance(helpers, dict) else None
        return str(named or self.document.get("credsStore") or "")


def config_paths(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The files that may have credentials, in the order in which they count; there or not."""
    home = environ.get("HOME") or os.path.expanduser("~")
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}"
    own = environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    paths = (
        environ.get("REGISTRY_AUTH_FILE") or "",
        docker_config_path(environ),
        os.path.join(runtime, "containers/auth.json" if environ.get("XDG_RUNTIME_DIR") else "auth.json"),
        os.path.join(own, "containers/auth.json"),
    )
    return tuple([path for path in paths if path])


def docker_config_path(environ: Mapping[str, str]) -> str:
    """Where `docker login` writes."""
    home = environ.get("HOME") or os.path.expanduser("~")
    return os.path.join(environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker"), "config.json")


def read_config(path: str) -> ConfigFile | None:
    """A configuration file, None when there is none. BuildError when it is malformed; its text is not shown."""
    try:
        with open(path, "rb") as file:
            raw = file.read(_LIMIT)
        document = json.loads(raw) if raw.strip() else {}
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {(error.strerror or '').lower()}") from error
    except (ValueError, RecursionError) as error:
        raise BuildError(f"{path} is not valid JSON", hint="mend it, or log in anew after removing it") from error
    if not isinstance(document, dict):
        raise BuildError(f"{path} is not a JSON object")
    return ConfigFile(path, document)


def find_credentials(domain: str, path: str, environ: Mapping[str, str]) -> Credentials | None:
    """The credentials for a registry (`host[:port]`) and a repository's path in it, None for none.

    BuildError for a file that cannot be used, DeniedError when a helper fails.
    """
    for config_path in config_paths(environ):
        config = read_config(config_path)
        found = _of_file(config, domain, path) if config is not None else None
        if found is not None:
            return found
    return None


def server_key(domain: str) -> str:
    """What configuration files and helpers call a registry."""
    return DOCKER_HUB_KEY if domain == DEFAULT_DOMAIN else domain


def _of_file(config: ConfigFile, domain: str, path: str) -> Credentials | None:
    helper = config.helper(domain) or config.helper(server_key(domain))
    if helper:
        found = _of_helper(helper, domain)
        if found is not None:
            return found
    auths = config.document.get("auths")
    if not isinstance(auths, dict):
        return None
    known = {plain_key(str(key)): value for key, value in auths.items()}
    for key in _keys(domain, path):
        entry = known.get(key)
        if isinstance(entry, dict) and (found := _of_entry(entry, key, config.path)) is not None:
            return found
    return None


def _of_helper(helper: str, domain: str) -> Credentials | None:
    from builder.registry import helpers

    pair = helpers.get(helper, server_key(domain))
    if pair is None:
        return None
    user, secret = pair
    return Credentials(identity_token=secret) if user == _TOKEN_USER else Credentials(user, secret)


def _keys(domain: str, path: str) -> Iterator[str]:
    """The keys that may stand for a repository, the most telling first."""
    parts = path.split("/") if path else []
    for count in range(len(parts), 0, -1):
        yield "/".join((domain, *parts[:count]))
    yield domain
    if domain == DEFAULT_DOMAIN:
        yield "index.docker.io"


def plain_key(key: str) -> str:
    """A key of `auths` without the scheme, and then without the version, that old clients put around the host."""
    if "://" in key:
        key = key.partition("://")[2].partition("/")[0]
    return key.rstrip("/")


def _of_entry(entry: dict[str, Any], key: str, path: str) -> Credentials | None:
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Credentials(identity_token=token)
    encoded = entry.get("auth")
    if isinstance(encoded, str) and encoded:
        try:
            decoded = base64.b64decode(encoded, validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise BuildError(f"{path}: the entry for {key} is damaged", hint=f"pybuild login {key}") from error
        user, colon, password = decoded.partition(":")
        return Credentials(user, password.rstrip("\0")) if colon else None
    name, secret = entry.get("username"), entry.get("password")
    return Credentials(name, secret) if isinstance(name, str) and isinstance(secret, str) and name else None
