"""Contexts from elsewhere as snapshots of the store: made once for the same content, found again by their records.

An archive is unpacked as it is read, in bounded memory; nothing in it leaves the snapshot.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from builder.errors import BuildError
from builder.fetcher import Fetcher
from builder.plan import GitSourceOp, HttpSourceOp
from builder.redact import redact
from cache.compression import detect
from cache.errors import CacheError
from cache.keys import key_of, readable
from cache.records import CacheRecord
from cache.snapshots import EMPTY, ActiveSnapshot, Snapshot
from cache.store import Store
from cache.tarreader import is_tar_header

if TYPE_CHECKING:
    from cache.blobs import Readable

HEADER_SIZE = 512
CONTEXT_FILE = "context"
"""What BuildKit calls a file that is a context by itself."""


def looks_like_archive(head: bytes) -> bool:
    """Whether a stream that begins so is a tar, compressed or not."""
    return detect(head) != "none" or is_tar_header(head[:HEADER_SIZE])


def git_snapshot(op: GitSourceOp, fetcher: Fetcher) -> Snapshot:
    """What a reference to a git repository means now. Raises BuildError."""
    with _reported(redact(op.remote)):
        repository = fetcher.repository(op)
        return _kept({"op": "git", **repository.key(), "inputs": []}, repository.materialise, fetcher)


def file_snapshot(url: str, fetcher: Fetcher) -> Snapshot:
    """A root that holds the file behind a URL. Raises BuildError."""
    from builder.ops.fetch import http_key, materialise

    op = HttpSourceOp(url, CONTEXT_FILE, "")
    with _reported(redact(url)):
        fetched = fetcher.file(op)

        def write(active: ActiveSnapshot) -> None:
            materialise(op, fetched, fetcher.store, active.upper_dir)

        return _kept({"op": "http", **http_key(op, fetched), "inputs": []}, write, fetcher)


def archive_snapshot(url: str, fetcher: Fetcher) -> Snapshot | None:
    """What the archive behind a URL holds, None if it is no archive. Raises BuildError."""
    store = fetcher.store
    with _reported(redact(url)):
        fetched = fetcher.file(HttpSourceOp(url, CONTEXT_FILE, ""))
        with store.blobs.open(fetched.digest) as blob:
            if not looks_like_archive(blob.read(HEADER_SIZE)):
                return None

        def write(active: ActiveSnapshot) -> None:
            with store.blobs.open(fetched.digest) as blob:
                _unpack(blob, active.upper_dir, redact(url))

        return _kept({"op": "archive", "digest": str(fetched.digest)}, write, fetcher)


def stream_snapshot(stream: Readable, store: Store) -> Snapshot:
    """What an archive on a stream holds, which is read to its end. Raises BuildError."""
    with _reported("standard input"):
        return _written(lambda active: _unpack(stream, active.upper_dir, "standard input"), store)


def _written(write: Callable[[ActiveSnapshot], None], store: Store) -> Snapshot:
    """A snapshot of what `write` puts into an empty root."""
    active = store.snapshots.prepare(EMPTY)
    try:
        write(active)
        return store.snapshots.commit(active)
    except BaseException:
        store.snapshots.discard(active)
        raise


def _unpack(stream: Readable, dest_dir: str, shown: str) -> None:
    from builder.ops.archive import unpack
    from builder.sandbox.fsops import Directory

    with Directory(os.open(dest_dir, os.O_RDONLY | os.O_DIRECTORY)) as dest:
        unpack(stream, dest, name=shown, owner=None)


def _kept(manifest: dict[str, Any], write: Callable[[ActiveSnapshot], None], fetcher: Fetcher) -> Snapshot:
    """The snapshot of a manifest: the one that is there, else what `write` puts into an empty root."""
    store, key = fetcher.store, key_of(manifest)
    with store.locks.exclusive(key):
        record = store.records.get(key)
        found = store.snapshots.get(record.chain_id) if record is not None else None
        if found is not None:
            store.records.touch((key,))
            return found
        found = _written(write, store)
        record = CacheRecord(key, found.chain_id, readable(manifest), fetcher.clock(), 0.0)
        store.records.put(record, replace=True)
        return found


@contextlib.contextmanager
def _reported(shown: str) -> Iterator[None]:
    """What the store refuses, as a BuildError about the context."""
    try:
        yield
    except CacheError as error:
        raise BuildError(f"context {shown}: {error}", hint=error.hint) from error
