"""Why no control group that has a controller can be made, and what would help. Runs under `python -I -S`."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence

from builder.errors import SandboxError
from builder.sandbox import idmap
from cache.namedtuple import NamedTuple

_SYSTEMD_DIR = "/run/systemd/system"
"""There while systemd is the machine's manager (sd_booted(3))."""


class Refusal(NamedTuple):
    """A group below which nothing can be made: the error, and the controllers that were wanted and that it has not."""

    group_dir: str
    errno: int
    lacking: set[str]
    is_v2: bool


def refused(controllers: Iterable[str], refusals: Sequence[Refusal]) -> SandboxError:
    """What to raise when all these groups refused; the nearest comes first. There is at least one."""
    told = min(refusals, key=_order)
    what = f"no limit on {', '.join(sorted(told.lacking or controllers))} can be set: " if controllers else ""
    where = f"control group {told.group_dir}"
    if _order(told) == _LACKING:
        return SandboxError(f"{what}{where} does not have that controller", hint=_how_to_have(told.lacking))
    if told.errno == errno.EBUSY:
        why = f"{what}{where} holds processes of others, and so has no controllers for groups below it"
        return SandboxError(why, hint=_how_to_own())
    why = f"{what}nothing can be made in {where}: {os.strerror(told.errno).lower()}"
    if told.errno == errno.EROFS:
        hint = "start the container with a writable /sys/fs/cgroup (--privileged gives one), or leave out the limits"
        return SandboxError(why, hint=hint)
    return SandboxError(why, hint=_how_to_own() if told.is_v2 else _MADE_BY_ROOT)


_MADE_BY_ROOT = (
    "cgroup v1 is root's to divide: have a group made and given to you under each controller, and name it with"
    " --cgroup-parent, or leave out the limits"
)
_LACKING = 0
_TELLING = (errno.EBUSY, errno.EROFS, errno.EACCES, errno.EPERM)


def _order(refusal: Refusal) -> int:
    """The one that is nearest to what was wanted says most; a group without the controller would have taken others."""
    if refusal.lacking and refusal.errno in (errno.ENOENT, errno.EINVAL):
        return _LACKING
    return 1 + (_TELLING.index(refusal.errno) if refusal.errno in _TELLING else len(_TELLING))


def _how_to_own() -> str:
    if os.path.isdir(_SYSTEMD_DIR):
        scope = "systemd-run --scope" if idmap.is_initial() else "systemd-run --user --scope"
        return f"run it in a group of its own: {scope} -p Delegate=yes pybuild …, or leave out the limits"
    return "name a group that holds no processes with --cgroup-parent, or leave out the limits"


def _how_to_have(lacking: set[str]) -> str:
    if os.path.isdir(_SYSTEMD_DIR):
        names = " ".join(sorted({"cpu", "memory", "pids", *lacking}))
        return f"have it delegated: systemctl edit user@.service, [Service] Delegate={names}"
    return "start the container with that controller, or leave out the limit"
