"""What a process may have beyond what every process has, by the names that --allow grants (buildx, --allow)."""

from __future__ import annotations

from collections.abc import Container

INSECURE, HOST_NETWORK, DEVICE = "security.insecure", "network.host", "device"
"""`device` is every device, `device=NAME` one, `device=KIND` those of a kind."""

EVERYTHING = frozenset((INSECURE, HOST_NETWORK, DEVICE))


def allows(granted: Container[str], wanted: str) -> bool:
    """Whether entitlements include one."""
    if wanted in granted:
        return True
    name, equals, device = wanted.partition("=")
    kind = device.partition("=")[0]
    return bool(equals) and any(each in granted for each in (name, f"{name}={kind}", f"{name}={kind}=*"))
