"""RUN --mount=type=cache: directories of the store that outlive the build, for one step.

Where they are and who may use them is `cache.cachemounts`'s. A step takes all that it needs before it starts, in one
order for all steps, so that no two wait for each other; an id that it names twice is one directory at two places. The
same id on another base is another directory, as it is in BuildKit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack

from builder.errors import BuildError
from builder.plan import SCRATCH, MountOp
from builder.sandbox.spec import Mount
from builder.worker import Worker
from cache.cachemounts import digest_of
from cache.errors import CacheError
from cache.snapshots import Snapshot


def take_cache_mounts(
    mounts: Sequence[MountOp], inputs: Sequence[Snapshot], worker: Worker, stack: ExitStack, index: int
) -> list[Mount | None]:
    """A Mount for each that is a cache, None for the others; their locks are held until `stack` closes.

    A new directory starts with what the mount's source holds, else empty. Vertex `index` is told to wait when another
    step has one of them.
    """
    mounts = [_named(mount, inputs) for mount in mounts]
    numbers: dict[str, int] = {}
    for mount in sorted((mount for mount in mounts if mount.kind == "cache"), key=_order):
        digest = digest_of(mount.id, worker.domain)
        if digest not in numbers:
            numbers[digest] = _take(mount, worker, stack, index)
            name = f"{mount.id} (trust domain {worker.domain[:12]})" if worker.domain else mount.id
            worker.store.cache_mounts.note_use(digest, numbers[digest], name)
    return [
        _mount(mount, numbers[digest_of(mount.id, worker.domain)], inputs, worker) if mount.kind == "cache" else None
        for mount in mounts
    ]


def _named(mount: MountOp, inputs: Sequence[Snapshot]) -> MountOp:
    """The mount with what a new directory starts with in its id."""
    if mount.kind != "cache" or mount.input == SCRATCH or not inputs[mount.input].chain_id:
        return mount
    return mount._replace(id=f"{mount.id} from {inputs[mount.input].chain_id}{mount.source}")


def _order(mount: MountOp) -> tuple[str, bool, str]:
    """By id; of one id the mount that wants it alone comes first, since it is taken once, then by target."""
    return digest_of(mount.id), mount.sharing != "locked", mount.target


def _take(mount: MountOp, worker: Worker, stack: ExitStack, index: int) -> int:
    def say(_name: str) -> None:
        worker.reporter.waiting(index, f'another step that uses the cache mount "{mount.id}"')

    try:
        return worker.store.cache_mounts.take(digest_of(mount.id, worker.domain), mount.sharing, stack, say)
    except CacheError as error:
        raise BuildError(f'cache mount "{mount.id}": {error}', hint=error.hint) from error


def _mount(mount: MountOp, number: int, inputs: Sequence[Snapshot], worker: Worker) -> Mount:
    digest = digest_of(mount.id, worker.domain)
    with worker.store.cache_mounts.filling(digest, number) as directory:
        if directory is not None:
            is_filled = _import(mount, number, directory, worker)
            source = None if mount.input == SCRATCH or is_filled else inputs[mount.input]
            _fill(directory, mount, source, worker)
    return Mount("bind", mount.target, worker.store.cache_mounts.path(digest, number), mount.read_only, {})


def _import(mount: MountOp, number: int, directory: str, worker: Worker) -> bool:
    """Fill a new directory from a cache elsewhere; whether one had it. Private ones of later steps start anew."""
    if worker.imports is None or worker.domain or number:
        return False
    from builder.cachestore.mounts import fill_mount

    return fill_mount(worker.imports, mount.id, directory)


def _fill(directory: str, mount: MountOp, source: Snapshot | None, worker: Worker) -> None:
    # Whoever asks for an owner or a mode gets a directory of its own, whatever the input holds.
    os.chown(directory, mount.uid, mount.gid)
    os.chmod(directory, 0o755 if mount.mode is None else mount.mode & 0o777)
    if mount.mode is None and source is not None:
        _copy(directory, mount, source, worker)


def _copy(directory: str, mount: MountOp, source: Snapshot, worker: Worker) -> None:
    """Copy what `source` holds at the mount's source path, and that directory's own mode and owner."""
    from builder.ops import fileop
    from builder.plan import CopyAction, FileOp
    from builder.sandbox.fsops import SafeRoot

    copy = CopyAction(1, mount.source, "/", allow_wildcard=False)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with worker.view(source) as tree:
            fileop.apply(FileOp((copy,)), SafeRoot(fd), {1: tree})
            top = fileop.expand(copy, tree)[0].entry
        if top.kind == "d":
            os.fchown(fd, top.uid, top.gid)
            os.fchmod(fd, top.mode if mount.source != "/" else 0o755)
    finally:
        os.close(fd)
