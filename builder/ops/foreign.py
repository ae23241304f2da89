"""Programs for another architecture than this machine's: whether the kernel has a handler for them.

Source: Documentation/admin-guide/binfmt-misc.rst; ELF's e_machine (elf(5)). Reads only.
"""

from __future__ import annotations

import contextlib
import os

from builder.image.platform import host_platform
from cache.namedtuple import NamedTuple
from grammar.errors import DockerfileError
from grammar.platforms import Platform, matches, parse_platform

BINFMT_DIR = "/proc/sys/fs/binfmt_misc"
_MACHINES = {
    "386": 3, "amd64": 62, "arm": 40, "arm64": 183, "loong64": 258, "mips64": 8, "mips64le": 8, "ppc64": 21,
    "ppc64le": 21, "riscv64": 243, "s390x": 22,
}  # fmt: skip
_BIG_ENDIAN = ("mips64", "ppc64", "s390x")
_ELF = b"\x7fELF"
_INSTALL = "let QEMU run it: apt-get install qemu-user-static, which registers itself with binfmt_misc"


class Handler(NamedTuple):
    """An interpreter that the kernel starts for programs of one architecture."""

    name: str
    interpreter: str
    is_open: bool
    """Whether it was opened when it was registered (flag F): it need not be in the image then."""


def foreign(platform: str) -> str:
    """This machine's platform when programs for `platform` need a handler on it, "" when they do not."""
    host = host_platform()
    own = parse_platform(host, Platform("linux", ""))
    try:
        return "" if not platform or matches(own, parse_platform(platform, own)) else host
    except DockerfileError:
        return ""


def find_handler(platform: str, binfmt_dir: str = BINFMT_DIR) -> Handler | None:
    """The handler for programs of a platform; None when there is none, or none can be seen."""
    architecture = platform.split("/")[1]
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(binfmt_dir)):
            if name in ("register", "status"):
                continue
            with open(os.path.join(binfmt_dir, name), encoding="utf-8", errors="surrogateescape") as file:
                handler = _handler(name, file.read().splitlines(), architecture)
            if handler is not None:
                return handler
    return None


def _handler(name: str, lines: list[str], architecture: str) -> Handler | None:
    rows = dict(line.partition(" ")[::2] for line in lines)
    magic = bytes.fromhex(rows.get("magic", ""))
    machine = _MACHINES.get(architecture)
    is_big = architecture in _BIG_ENDIAN
    if "enabled" not in rows or rows.get("offset") != "0" or machine is None:
        return None
    if magic[:4] != _ELF or magic[5:6] != (b"\2" if is_big else b"\1"):
        return None
    if magic[18:20] != machine.to_bytes(2, "big" if is_big else "little"):
        return None
    return Handler(name, rows.get("interpreter", ""), "F" in rows.get("flags:", ""))


def advice(platform: str, binfmt_dir: str = BINFMT_DIR) -> str | None:
    """What to do when programs of a foreign platform do not run; None when it is not the handler's fault."""
    handler = find_handler(platform, binfmt_dir)
    if handler is None:
        return _INSTALL
    if not handler.is_open:
        return f"binfmt_misc has {handler.name} without the flag F: {handler.interpreter} is looked for in the image"
    return None
