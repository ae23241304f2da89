"""Which of several images suits a platform.

Platforms are written `os/architecture[/variant]`, as the command line and the OCI image index have them; here they
stay text.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grammar.platforms import Platform

_MACHINES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "i386": "386",
    "i686": "386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "loongarch64": "loong64",
}


def host_platform() -> str:
    """Return the platform of this machine, e.g. `linux/amd64`."""
    machine = os.uname().machine
    return f"linux/{_MACHINES.get(machine, machine)}"


def platform_value(platform: str) -> Platform:
    """Return the parts of a complete platform, e.g. of `linux/arm/v7`."""
    from grammar.platforms import Platform

    return Platform(*_parts(platform))


def platform_of(document: dict[str, Any]) -> str:
    """Return the platform that a descriptor's `platform` or an image config states, "" when it states none."""
    parts = [document.get(key) or "" for key in ("os", "architecture", "variant")]
    return "/".join(str(part) for part in parts if part) if parts[0] and parts[1] else ""


def platform_document(platform: str) -> dict[str, str]:
    """Return the `platform` object of a descriptor, keys in Go's order."""
    system, architecture, variant = _parts(platform)
    document = {"architecture": architecture, "os": system}
    return {**document, "variant": variant} if variant else document


def choose(platforms: Iterable[str], wanted: str) -> int | None:
    """Return the index of the nearest of `platforms` that runs on `wanted`, the first of equals; None if none does."""
    from grammar.platforms import Platform, best_first

    candidates = [Platform(*_parts(platform)) for platform in platforms]
    ranked = best_first(Platform(*_parts(wanted)), [candidate for candidate in candidates if candidate.architecture])
    return candidates.index(ranked[0]) if ranked else None


def _parts(platform: str) -> tuple[str, str, str]:
    parts = [*platform.split("/"), "", ""]
    return parts[0], parts[1], parts[2]
