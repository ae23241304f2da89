"""RUN --mount=type=cache: a directory of the store that outlives the build, by id and sharing mode.

    <root>/cache-mounts/<sha256 of id>/0/     the shared directory, and the first private one
    <root>/cache-mounts/<sha256 of id>/N/     further private ones, for steps that run at the same time

A step holds its directory by a lock of the store: shared by `shared` ones, alone otherwise. The id is never a path.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack

from builder.errors import BuildError
from builder.plan import MountOp
from builder.sandbox.spec import Mount
from builder.worker import Worker
from cache.removal import remove_tree
from cache.snapshots import Snapshot

_PRIVATE_AT_MOST = 64


def cache_mount(mount: MountOp, source: Snapshot | None, worker: Worker, stack: ExitStack) -> Mount:
    """The mount for one step; its lock is held until `stack` closes.

    A new directory starts with what `source` holds at the mount's source path, else empty.
    """
    digest = hashlib.sha256(os.fsencode(mount.id)).hexdigest()
    base = os.path.join(worker.store.root, "cache-mounts", digest)
    number = _take(mount, digest, worker, stack)
    directory = os.path.join(base, str(number))
    with worker.store.locks.exclusive(f"cache-mount-fill:{digest}"):
        if not os.path.isdir(directory):
            _create(directory, mount, source, worker)
    return Mount("bind", mount.target, directory, mount.read_only, {})


def _take(mount: MountOp, digest: str, worker: Worker, stack: ExitStack) -> int:
    """Lock a directory as the sharing mode says; returns its number."""
    locks = worker.store.locks
    name = f"cache-mount:{digest}"
    if mount.sharing == "locked":
        stack.enter_context(locks.exclusive(f"{name}:0"))
    elif mount.sharing != "private":
        stack.enter_context(locks.shared(f"{name}:0"))
    else:
        for number in range(_PRIVATE_AT_MOST):
            if stack.enter_context(locks.try_exclusive(f"{name}:{number}")):
                return number
        raise BuildError(f'cache mount "{mount.id}" is in use by {_PRIVATE_AT_MOST} steps')
    return 0


def _create(directory: str, mount: MountOp, source: Snapshot | None, worker: Worker) -> None:
    """Make the directory complete beside its place, then rename: a killed build leaves no half-filled cache."""
    from builder.ops import fileop
    from builder.plan import CopyAction, FileOp
    from builder.sandbox.fsops import SafeRoot

    filling = directory + ".new"
    if os.path.lexists(filling):
        remove_tree(filling)
    os.makedirs(filling)
    fd = os.open(filling, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if source is not None:
            copy = CopyAction(1, mount.source, "/", allow_wildcard=False)
            with worker.view(source) as tree:
                fileop.apply(FileOp((copy,)), SafeRoot(fd), {1: tree})
        os.fchown(fd, mount.uid, mount.gid)
        os.fchmod(fd, 0o755 if mount.mode is None else mount.mode & 0o777)
    finally:
        os.close(fd)
    os.rename(filling, directory)
