"""Writing down who we are: what `login` adds to a configuration file or gives to its helper, and `logout` takes away.

The file is $REGISTRY_AUTH_FILE, else docker's config.json. It is replaced as a whole, is readable by its owner alone
(0600), and keeps everything else that it says.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any

from builder.errors import BuildError
from builder.registry.credentials import (
    ConfigFile,
    Credentials,
    config_paths,
    docker_config_path,
    plain_key,
    read_config,
    server_key,
)
from grammar.reference import DEFAULT_DOMAIN

_HUB_NAMES = frozenset((DEFAULT_DOMAIN, "index.docker.io", "registry-1.docker.io"))


def registry_domain(text: str) -> str:
    """The registry that a word of the command line means: `host[:port]`, or with a scheme and a path as docker writes
    its own. BuildError for what is no host."""
    import re

    host = text.partition("://")[2] if "://" in text else text
    host = host.partition("/")[0].lower()
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?|\[[0-9a-f:]+\](:[0-9]{1,5})?", host):
        raise BuildError(f'"{text}" is not a registry, expected HOST[:PORT]')
    return DEFAULT_DOMAIN if host in _HUB_NAMES else host


def save_credentials(domain: str, who: Credentials, environ: Mapping[str, str]) -> str:
    """Keep credentials where this user's are kept; what keeps them now, for a message."""
    config = _own_config(environ)
    key = server_key(domain)
    helper = config.helper(domain) or config.helper(key)
    if helper:
        from builder.registry import helpers

        helpers.store(helper, key, user=who.user, secret=who.password)
        _write(config, _with_entry(config, key, {}))
        return f"docker-credential-{helper}"
    encoded = base64.b64encode(f"{who.user}:{who.password}".encode()).decode("ascii")
    _write(config, _with_entry(config, key, {"auth": encoded}))
    return config.path


def remove_credentials(domain: str, environ: Mapping[str, str]) -> list[str]:
    """Forget a registry everywhere; the files and helpers that knew it."""
    removed = []
    for path in config_paths(environ):
        config = read_config(path)
        if config is None:
            continue
        helper = config.helper(domain) or config.helper(server_key(domain))
        auths = config.document.get("auths")
        known = [key for key in auths if _is_of(key, domain)] if isinstance(auths, dict) else []
        if helper and (known or server_key(domain) in _helped(config)):
            from builder.registry import helpers

            helpers.erase(helper, server_key(domain))
        if known:
            kept = {key: entry for key, entry in auths.items() if key not in known}  # type: ignore[union-attr]
            _write(config, {**config.document, "auths": kept})
            removed.append(path)
    return removed


def _helped(config: ConfigFile) -> Mapping[str, Any]:
    helpers = config.document.get("credHelpers")
    return helpers if isinstance(helpers, dict) else {}


def _is_of(key: str, domain: str) -> bool:
    plain = plain_key(key)
    return plain == domain or (domain == DEFAULT_DOMAIN and plain in _HUB_NAMES)


def _own_config(environ: Mapping[str, str]) -> ConfigFile:
    path = environ.get("REGISTRY_AUTH_FILE") or docker_config_path(environ)
    return read_config(path) or ConfigFile(path, {})


def _with_entry(config: ConfigFile, key: str, entry: dict[str, str]) -> dict[str, Any]:
    auths = config.document.get("auths")
    return {**config.document, "auths": {**(auths if isinstance(auths, dict) else {}), key: entry}}


def _write(config: ConfigFile, document: dict[str, Any]) -> None:
    """A link is followed: the file that it names may be shared with others."""
    path = os.path.realpath(config.path)
    temporary = f"{path}.{os.urandom(6).hex()}.tmp"
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "w", encoding="utf-8") as file:
                json.dump(document, file, indent="\t")
                file.flush()
                os.fsync(fd)
            os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise BuildError(f"{config.path} cannot be written: {(error.strerror or '').lower()}") from error
