"""--allow: what a build may do beyond what every build may.

Source: docker buildx build reference, --allow; buildx's rule for outputs that delete.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from builder.entitlements import DEVICE, HOST_NETWORK, INSECURE
from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.export.spec import OutputSpec

DELETE = "buildx.local.delete"
_KNOWN = (INSECURE, HOST_NETWORK, DEVICE, DELETE)


def parse_entitlements(values: Iterable[str], network: str) -> frozenset[str]:
    """What is granted; --network=host grants that network. Raises UsageError for what is not known.

    `device` grants every device, `device=NAME` one, or those of a kind: `vendor.com/gpu`.
    """
    granted = {HOST_NETWORK} if network == "host" else set()
    for value in filter(None, values):
        name, equals, _ = value.partition("=")
        if name not in _KNOWN or (equals and name != "device"):
            raise UsageError(f'--allow "{value}" is not known', hint=f"known are {', '.join(_KNOWN)}")
        granted.add(value if name == DEVICE and equals else name)
    return frozenset(granted)


def check_deletes(specs: Iterable[OutputSpec], granted: frozenset[str], cwd: str) -> None:
    """Refuse to empty a directory that is not below the working directory, unless that is granted (UsageError)."""
    here = os.path.realpath(cwd)
    for spec in specs:
        dest = os.path.realpath(os.path.join(here, spec.dest))
        is_below = dest != here and os.path.commonpath((here, dest)) == here
        if spec.delete and not is_below and DELETE not in granted:
            raise UsageError(
                f'output mode=delete for "{spec.dest}" is not allowed: it is not below the working directory',
                hint=f"grant it with --allow {DELETE}",
            )
