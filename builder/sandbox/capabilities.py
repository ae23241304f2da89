"""Linux capabilities by name (capabilities(7)), and the sets that containers get. Runs under `python -I -S`."""

from __future__ import annotations

from collections.abc import Iterable

from builder.errors import BuildError

_BITS = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""

NAMES = tuple(f"CAP_{name}" for name in _BITS.split())
"""In the order of their bits."""

DEFAULT = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)
"""What Docker and BuildKit give to root in a container."""


def mask_of(names: Iterable[str]) -> int:
    """The bits of the named capabilities; raises BuildError for a name that Linux does not have."""
    mask = 0
    for name in names:
        if name not in NAMES:
            raise BuildError(f'unknown capability "{name}"', hint="capabilities(7) lists them")
        mask |= 1 << NAMES.index(name)
    return mask


def permitted() -> int:
    """The permitted set of this process, as a mask (proc_pid_status(5))."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapPrm:"):
                return int(line[7:], 16)
    return 0
