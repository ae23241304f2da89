"""Whether the store is what it says: everything that is recorded is there and whole, and nothing lies about.

Two kinds of findings. *Damage* is what no crash of ours leaves: it makes builds fail or be done again. *Leftovers* are
what killed processes leave, and what nothing refers to any more: they only take space, and the next build or `prune`
sweeps most of them. A repair removes what is wrong, so that it is made anew; it never invents. Other builds may run
meanwhile, a pruner may not. Knows no image.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from cache.digest import Digest
from cache.diskuse import Meter
from cache.errors import CacheError
from cache.forget import forget
from cache.holding import Roots
from cache.namedtuple import NamedTuple
from cache.prune import Outside
from cache.removal import remove_at, remove_tree
from cache.trees import ROOT_MODE

if TYPE_CHECKING:
    from cache.store import Store

DAMAGE = "damage"
LEFTOVER = "leftover"
_CHUNK = 1 << 20
_ROOMS = ("blobs", "blobs/sha256", "snapshots", "run", "run/locks", "run/leases", "run/tmp")


class Finding(NamedTuple):
    """One thing that is not right; `size` is what it takes on the disk in bytes, for nothing."""

    severity: str
    subject: str
    message: str
    size: int = 0
    repair: Callable[[], object] | None = None


def check(store: Store, outside: Outside) -> Iterator[Finding]:
    """Every finding, as it is found. CacheError when the store cannot be read."""
    from cache.check_layers import check_chains, check_layers, check_tables

    yield from _check_database(store)
    yield from _check_rooms(store)
    yield from _check_run(store)
    yield from _check_directories(store)
    yield from check_layers(store)
    yield from check_chains(store)
    yield from check_tables(store)
    yield from _check_blobs(store, outside)
    yield from _check_cache_mounts(store)


def _check_database(store: Store) -> Iterator[Finding]:
    for (text,) in store.database.rows("PRAGMA integrity_check(10)"):
        if text != "ok":
            yield Finding(DAMAGE, "index.db", f"{text}; remove it, the next build makes what is missing anew")


def _check_rooms(store: Store) -> Iterator[Finding]:
    """Directories are there, and for nobody but their owner."""
    owner = os.stat(store.root).st_uid
    for name in ("", *_ROOMS):
        path = os.path.join(store.root, name)
        try:
            status = os.stat(path)
        except FileNotFoundError:
            yield Finding(DAMAGE, name, "the directory is missing", repair=partial(os.makedirs, path, 0o700))
            continue
        if status.st_mode & 0o077:
            message = f"mode {status.st_mode & 0o777:04o} lets others in, expected 0700"
            yield Finding(DAMAGE, name or ".", message, repair=partial(os.chmod, path, 0o700))
        if status.st_uid != owner:
            message = f"belongs to user {status.st_uid}, expected {owner}"
            yield Finding(DAMAGE, name or ".", message, repair=partial(os.chown, path, owner, -1))
    yield from _check_empty(store.snapshots.empty_dir)


def _check_empty(path: str) -> Iterator[Finding]:
    subject = "snapshots/empty"
    if not os.path.isdir(path):
        yield Finding(DAMAGE, subject, "the directory is missing", repair=partial(_make_empty, path))
        return
    if os.listdir(path):
        yield Finding(DAMAGE, subject, "is not empty", repair=partial(_make_empty, path))
    if os.stat(path).st_mode & 0o7777 != ROOT_MODE:
        yield Finding(DAMAGE, subject, f"its mode is not {ROOT_MODE:04o}", repair=partial(os.chmod, path, ROOT_MODE))


def _make_empty(path: str) -> None:
    remove_tree(path)
    os.mkdir(path)
    os.chmod(path, ROOT_MODE)


def _check_run(store: Store) -> Iterator[Finding]:
    """Leases and temporary files of processes that are gone, and locks that nobody holds."""
    locks, meter = store.locks, Meter.of(store.root)
    names = sorted(os.listdir(locks.temporary_dir))
    dead = locks.dead_leases()
    live = locks.live_leases(remove=False)
    for name in names:
        if name.partition(".")[0] not in live:
            path = os.path.join(locks.temporary_dir, name)
            message = "temporary file of a process that is gone"
            yield Finding(LEFTOVER, f"run/tmp/{name}", message, meter.size(path), partial(_remove, path))
    for name in dead:
        yield Finding(LEFTOVER, f"run/leases/{name}", "its process is gone", repair=locks.live_leases)
    known = {mount.lock_name for mount in store.cache_mounts.walk()}
    idle = locks.idle(known)
    if idle:
        message = f"{len(idle)} locks that nobody holds"
        yield Finding(LEFTOVER, "run/locks", message, sum(map(meter.size, idle)), partial(locks.remove_idle, idle))


def _remove(path: str) -> None:
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_at(fd, name)
    finally:
        os.close(fd)


def _check_directories(store: Store) -> Iterator[Finding]:
    """Directories of snapshots that no row owns, and rows of what will never be finished."""
    directory, meter = os.path.join(store.root, "snapshots"), Meter.of(store.root)
    listed = sorted(os.listdir(directory))  # before the rows: what is being made has its row first
    rows = {str(row[0]): row for row in store.database.rows("SELECT id, state, lease FROM layers")}
    unfinished = {name: row for name, row in rows.items() if row[1] != "ready"}
    live = store.locks.live_leases(remove=False) if unfinished else set()
    for name in sorted(unfinished, key=int):
        if unfinished[name][2] not in live:
            size = meter.size(os.path.join(directory, name))
            yield Finding(LEFTOVER, f"snapshots/{name}", "was never finished or half removed", size, store.sweep)
    for name in listed:
        if name != "empty" and name not in rows:
            path = os.path.join(directory, name)
            yield Finding(
                LEFTOVER, f"snapshots/{name}", "belongs to no layer", meter.size(path), partial(_remove, path)
            )


def _check_blobs(store: Store, outside: Outside) -> Iterator[Finding]:
    """Every blob is what its name says, and something refers to it."""
    directory, meter = os.path.join(store.root, "blobs", "sha256"), Meter.of(store.root)
    listed = sorted(os.listdir(directory))
    needed = _referred(store, outside) | store.locks.live_notes()
    for name in listed:
        path, subject = os.path.join(directory, name), f"blobs/sha256/{name}"
        if not re.fullmatch("[0-9a-f]{64}", name):
            yield Finding(DAMAGE, subject, "is not a blob", meter.size(path), partial(_remove, path))
            continue
        digest = Digest.of_hex(name)
        actual = _digest_of(path)
        if actual is None:
            continue
        if actual != digest:
            message = f"is corrupt: its bytes have the digest {actual}"
            yield Finding(DAMAGE, subject, message, meter.size(path), partial(store.blobs.delete, digest))
        elif digest not in needed and not outside.is_document(digest):
            repair = partial(forget, store, outside.roots, (), (digest,))
            yield Finding(LEFTOVER, subject, "nothing refers to it", meter.size(path), repair)


def _referred(store: Store, outside: Outside) -> set[str]:
    roots: Roots = outside.roots()
    found = {*roots.blobs, *outside.fetched()}
    found.update(row[0] for row in store.database.rows("SELECT blob_digest FROM layers WHERE state = 'ready'"))
    made = "SELECT digest FROM layer_blobs WHERE diff_id IN (SELECT diff_id FROM layers WHERE state = 'ready')"
    found.update(row[0] for row in store.database.rows(made))
    return found


def _digest_of(path: str) -> Digest | None:
    """The digest of a file's bytes, None when it is gone; of what cannot be read, that of nothing."""
    try:
        with open(path, "rb", buffering=0) as file:
            return Digest.of_hex(hashlib.file_digest(file, "sha256").hexdigest())
    except FileNotFoundError:
        return None
    except OSError:
        return Digest.of_hex(hashlib.sha256().hexdigest())


def _check_cache_mounts(store: Store) -> Iterator[Finding]:
    meter = Meter.of(store.root)
    for path in store.cache_mounts.leftovers():
        subject = os.path.relpath(path, store.root)
        yield Finding(LEFTOVER, subject, "half filled or half removed", meter.size(path), store.cache_mounts.sweep)
    there = {(mount.digest, mount.number) for mount in store.cache_mounts.walk()}
    for digest, number in store.database.rows("SELECT digest, number FROM cache_mounts"):
        if (digest, number) not in there:
            sql = "DELETE FROM cache_mounts WHERE digest = ? AND number = ?"
            repair = partial(store.database.write, sql, (digest, number))
            yield Finding(LEFTOVER, f"cache-mounts/{digest}/{number}", "is recorded, but gone", repair=repair)


def repair(finding: Finding) -> bool:
    """Carry a finding's repair out; whether there was one and it succeeded."""
    if finding.repair is None:
        return False
    try:
        finding.repair()
    except (CacheError, OSError):
        return False
    return True
