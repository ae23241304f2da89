"""Which snapshotter a store can use: what was asked for, or the first that works there.

Overlayfs is tried once for each boot, namespace and store, with what builds need of it: an upper directory on the
store's own filesystem, deletions, and directories that hide what is below.
"""

from __future__ import annotations

import errno
import os

from builder.errors import SandboxError
from builder.sandbox.idmap import is_initial
from builder.sandbox.snapshotter import OVERLAY, Snapshotter
from cache import merged
from cache.errors import from_os_error, os_errors
from cache.namedtuple import NamedTuple
from cache.store import Store, read_boot_id

AUTO = "auto"
NAMES = (AUTO, "overlay", "fuse", "native")

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class Choice(NamedTuple):
    """A snapshotter, and why it is not the one that everybody would rather have."""

    snapshotter: Snapshotter
    reason: str = ""


def choose(wanted: str, store: Store) -> Choice:
    """The snapshotter of that name for a store. Raises SandboxError when it was asked for and lacks something."""
    if wanted == "overlay":
        return Choice(OVERLAY)
    reason = "" if wanted != AUTO else _why_no_overlay(store)
    if wanted == AUTO and not reason:
        return Choice(OVERLAY)
    if wanted in (AUTO, "fuse"):
        from builder.snapshotters.fuse import Fuse, why_unusable

        lacking = why_unusable()
        if not lacking:
            return Choice(Fuse(store.snapshots.scratch), reason)
        if wanted == "fuse":
            raise SandboxError(f"snapshotter fuse: {lacking}", hint="--snapshotter native needs nothing")
        reason = f"{reason}; {lacking}"
    from builder.snapshotters.native import Native

    return Choice(Native(store.snapshots.scratch), reason)


def _why_no_overlay(store: Store) -> str:
    """What overlayfs lacks here, "" for nothing; asked once for each boot."""
    key = f"overlay:{read_boot_id()}:{'machine' if is_initial() else 'user'}"
    known = store.memo.get(key)
    if known is not None:
        return known.decode("utf-8", "replace")
    with store.snapshots.scratch() as place:
        found = _try_overlay(place)
    store.memo.put(key, found.encode("utf-8", "replace"))
    return found


def _try_overlay(place: str) -> str:
    upper_dir = f"{place}/upper"
    with os_errors(place):
        for name in ("lower", "lower/directory", "upper", "work"):
            os.mkdir(f"{place}/{name}", 0o755)
    try:
        with OVERLAY.opened((f"{place}/lower",), upper_dir, f"{place}/work") as fd:
            os.rmdir("directory", dir_fd=fd)
            if not merged.is_whiteout(os.lstat(f"{upper_dir}/directory")):
                return "overlayfs marks no deletions"
            os.mkdir("directory", 0o755, dir_fd=fd)
            if not merged.is_opaque(f"{upper_dir}/directory"):
                return "overlayfs cannot keep extended attributes"
    except SandboxError as error:
        cause = error.__cause__
        return _reason(cause, place) if isinstance(cause, OSError) else str(error)
    except OSError as error:
        return _reason(error, place)
    return ""


def _reason(error: OSError, place: str) -> str:
    """What overlayfs said; a disk that fails says nothing about overlayfs, and is a CacheError."""
    if error.errno in _OF_THE_DISK:
        raise from_os_error(error, place) from error
    return f"overlayfs: {os.strerror(error.errno or 0).lower()}"
