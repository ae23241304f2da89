"""Which proxy a URL goes through, by the environment: HTTP_PROXY, HTTPS_PROXY, NO_PROXY, in either case.

The rules are those of Go's net/http, since that is what docker's and podman's users know: loopback is never proxied, a
domain in NO_PROXY covers those below it, addresses may be given as networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address


def proxy_for(url: str, environ: Mapping[str, str]) -> str | None:
    """The URL of the proxy for `url`, None to connect directly."""
    parts = urlsplit(url)
    proxy = _variable(environ, f"{parts.scheme}_proxy")
    host, port = parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    if not proxy or is_loopback(host) or _is_excluded(host, port, _variable(environ, "no_proxy")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name) or environ.get(name.upper()) or ""


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and bool(address.is_loopback)


def _is_excluded(host: str, port: int, no_proxy: str) -> bool:
    entries = [entry.strip().lower() for entry in no_proxy.split(",") if entry.strip()]
    return any(entry == "*" or _matches(host.lower(), port, entry) for entry in entries)


def _matches(host: str, port: int, entry: str) -> bool:
    import ipaddress

    address = _address(host)
    if address is not None and "/" in entry:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, colon, wanted = entry.rpartition(":")
    if colon and wanted.isdecimal() and not (":" in name and not name.endswith("]")):
        if int(wanted) != port:
            return False
        entry = name
    entry = entry.strip("[]").removeprefix("*")
    if address is not None:
        return _address(entry) == address
    return host.endswith(entry) if entry.startswith(".") else host == entry or host.endswith(f".{entry}")


def _address(host: str) -> IPv4Address | IPv6Address | None:
    import ipaddress

    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
