"""Own certificate authorities and client certificates of registries, where docker and podman keep them.

    /etc/docker/certs.d/HOST[:PORT]/       *.crt  authorities, beside those of the system
    /etc/containers/certs.d/HOST[:PORT]/   *.cert and *.key  a client certificate and its key
    ~/.config/containers/certs.d/HOST[:PORT]/

Source: containers-certs.d(5); docker's documentation of certificates. Knows files and the ssl module, no protocol.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from builder.registry.errors import RegistryError
from cache.namedtuple import NamedTuple

if TYPE_CHECKING:
    import ssl

_SYSTEM_DIRS = ("/etc/containers/certs.d", "/etc/docker/certs.d")


class TlsFiles(NamedTuple):
    """What a host's connection is checked with: authorities, and pairs of client certificate and key."""

    authorities: tuple[str, ...] = ()
    clients: tuple[tuple[str, str], ...] = ()


def certificate_dirs(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The directories with a directory for each host, those of the user first."""
    home = environ.get("HOME") or ""
    user = environ.get("XDG_CONFIG_HOME") or (os.path.join(home, ".config") if home else "")
    own = (os.path.join(user, "containers/certs.d"), os.path.join(user, "docker/certs.d")) if user else ()
    return (*own, *_SYSTEM_DIRS)


def tls_files(host: str, directories: tuple[str, ...]) -> TlsFiles:
    """The files for `HOST[:PORT]`. RegistryError for a certificate without its key, or the other way round."""
    authorities: list[str] = []
    clients: list[tuple[str, str]] = []
    for directory in directories:
        path = os.path.join(directory, host)
        try:
            names = sorted(os.listdir(path))
        except OSError:
            continue
        authorities += [os.path.join(path, name) for name in names if name.endswith(".crt")]
        clients += [_pair(path, name, names) for name in names if name.endswith((".cert", ".key"))]
    return TlsFiles(tuple(authorities), tuple(dict.fromkeys(clients)))


def _pair(directory: str, name: str, names: list[str]) -> tuple[str, str]:
    stem = name.rpartition(".")[0]
    for needed in (f"{stem}.cert", f"{stem}.key"):
        if needed not in names:
            hint = "a client certificate is NAME.cert with NAME.key; an authority's certificate is called NAME.crt"
            raise RegistryError(f"{directory}: {name} is there without {needed}", hint=hint)
    return os.path.join(directory, f"{stem}.cert"), os.path.join(directory, f"{stem}.key")


def tls_context(files: TlsFiles, *, verify: bool) -> ssl.SSLContext:
    """A client's context with the system's authorities and the files'. RegistryError when one cannot be read."""
    import ssl

    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for path in files.authorities:
        with _reading(path):
            context.load_verify_locations(path)
    for certificate, key in files.clients:
        with _reading(certificate):
            context.load_cert_chain(certificate, key, password=_no_password)
    return context


@contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # ssl.SSLError is one
        reason = (error.strerror or str(error)).lower()
        raise RegistryError(f"{path} cannot be used for TLS: {reason}") from error


def _no_password() -> str:
    """OpenSSL would ask on the terminal."""
    return ""
