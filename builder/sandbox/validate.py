"""The one gate in front of every process: is this spec well formed, and was everything in it granted?

Whoever asks, RUN, the debug shell or `run`, goes through `check`; a spec that wants more than its caller was granted is
refused here, whatever let it through before (CVE-2024-23653). Knows no command line.
"""

from __future__ import annotations

from builder.entitlements import DEVICE, HOST_NETWORK, INSECURE, allows
from builder.errors import BuildError
from builder.sandbox.capabilities import DEFAULT, mask_of
from builder.sandbox.spec import ProcessSpec

_MAX_HOSTNAME = 64


def check(spec: ProcessSpec, granted: frozenset[str]) -> None:
    """Raises BuildError for a spec that no process could satisfy, or that wants what was not granted."""
    _check_form(spec)
    for wanted, why in _wanted(spec):
        if not allows(granted, wanted):
            raise BuildError(f"{why} is not allowed", hint=f"grant it with --allow {wanted}")


def _wanted(spec: ProcessSpec) -> list[tuple[str, str]]:
    """The entitlements that a spec needs, with what for."""
    found = []
    if spec.insecure:
        found.append((INSECURE, INSECURE))
    elif not spec.seccomp:
        found.append((INSECURE, "seccomp=unconfined"))
    elif mask_of(spec.capabilities) & ~mask_of(DEFAULT):
        found.append((INSECURE, "a capability that is not Docker's default"))
    if spec.network == "host":
        found.append((HOST_NETWORK, HOST_NETWORK))
    found += [(f"{DEVICE}={device.entitlement}", f'device "{device.entitlement}"') for device in spec.devices]
    return found


def _check_form(spec: ProcessSpec) -> None:
    if not spec.argv:
        raise BuildError("a command needs a program")
    if any("\0" in text for text in (*spec.argv, *spec.env, spec.cwd, spec.user)):
        raise BuildError("a command, its variables and its directory cannot have zero bytes")
    if len(spec.hostname) > _MAX_HOSTNAME or any(c in spec.hostname for c in "\0\n \t/"):
        raise BuildError(f'hostname "{spec.hostname}" is not valid')
