"""The door to the privileges that a sandbox needs: root today, a user namespace of one's own where that is possible."""

from __future__ import annotations

import os

from builder.errors import SandboxError
from builder.sandbox import capabilities

_NEEDED = ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_MKNOD")


def check_privileges() -> None:
    """Raise SandboxError unless this process may make namespaces and mounts."""
    if os.geteuid() != 0:
        raise SandboxError("running a step needs root", hint="run pybuild as root, for example with sudo")
    permitted = capabilities.permitted()
    missing = [name for name in _NEEDED if not permitted & capabilities.mask_of((name,))]
    if missing:
        raise SandboxError(
            f"running a step needs {', '.join(missing)}, which root does not have here",
            hint="inside a container, start that container with --privileged",
        )
