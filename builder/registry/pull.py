"""Layers from a registry into the store: several at a time, each unpacked while it still comes.

Bytes go to a file of the store as they arrive, where another thread follows them with decompression and unpacking; a
killed pull goes on from there. A layer that the store has, as a tree or as a blob, is not asked for. Memory is a few
chunks for each transfer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Protocol

from builder.image.config import diff_ids
from builder.image.register import register
from builder.image.stored import StoredImage
from builder.registry.errors import CancelledError, RegistryError, WrongContentError
from builder.registry.neighbours import remember
from builder.registry.repository import Repository
from builder.registry.tasks import Tasks, run_tasks
from builder.registry.transfers import OnTransfer, Progress, silent
from cache.descriptor import Descriptor
from cache.digest import Digest
from cache.errors import LayerError
from cache.namedtuple import NamedTuple
from cache.partial import PartialBlob
from cache.snapshot import EMPTY, Snapshot, chain_id
from cache.store import Store

_CHUNK = 1 << 20
_TRIES = 3
"""Of a blob that comes whole, but with the wrong digest."""


class ClosingReadable(Protocol):
    """A stream that is closed after it was read."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the verified end."""

    def close(self) -> None:
        """Done with it."""


class Source(NamedTuple):
    """Where layers come from: repositories, in the order in which they are asked, and what ends all of it."""

    repositories: Sequence[Repository]
    cancel: Callable[[], None]
    on_transfer: OnTransfer = silent


class Download:
    """One blob on its way into the store. `run` brings it, `open` reads it meanwhile."""

    def __init__(self, store: Store, blob: Descriptor, source: Source) -> None:
        self.blob = blob
        self._store = store
        self._source = source
        self._partial: PartialBlob | None = None
        self.repository: Repository | None = None
        """Where it came from, None when it was there."""
        self._error: BaseException | None = None
        self._begun = threading.Event()
        self._ended = threading.Event()

    def run(self) -> None:
        """Fetch the blob, unless it is there. RegistryError, CacheError."""
        try:
            with self._store.partial_blobs.fetching(self.blob.digest, self.blob.size) as partial_blob:
                if partial_blob is not None:
                    self._partial = partial_blob
                    self._begun.set()
                    self._fetch(partial_blob)
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._ended.set()
            self._begun.set()

    def open(self) -> ClosingReadable:
        """The blob's bytes as they come; close it. Waits until it has begun. What `run` raises comes out here, too."""
        self._begun.wait()
        following = self._partial.follow() if self._partial is not None else None
        return following or self.open_whole()

    def open_whole(self) -> ClosingReadable:
        """The same once all of it is there."""
        self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._store.blobs.open(self.blob.digest)

    def _fetch(self, partial_blob: PartialBlob) -> None:
        progress = Progress(self._source.on_transfer, self.blob.digest, self.blob.size)
        progress.add(partial_blob.size)
        for number, repository in enumerate(self._source.repositories):
            try:
                self._fetch_from(repository, partial_blob, progress)
                return
            except CancelledError:
                raise
            except RegistryError:
                if number == len(self._source.repositories) - 1:
                    raise

    def _fetch_from(self, repository: Repository, partial_blob: PartialBlob, progress: Progress) -> None:
        """What was there before may be wrong, or an answer: it is thrown away, and tried again from the start."""
        for number in range(_TRIES):
            try:
                with repository.open_blob(self.blob, offset=partial_blob.size, content=partial_blob.content) as stream:
                    while chunk := stream.read(_CHUNK):
                        partial_blob.write(chunk)
                        progress.add(len(chunk))
                self._store.partial_blobs.publish(partial_blob)
                self.repository = repository
                return
            except WrongContentError:
                partial_blob.restart()
                progress.reset()
                if number == _TRIES - 1:
                    raise


def pull_layers(store: Store, image: StoredImage, source: Source) -> Snapshot:
    """Bring an image's layers into the store, unpacked; its snapshot. Its documents are there.

    RegistryError, CacheError. Idempotent; layers that were complete when a pull was killed are not fetched again.
    """
    store.partial_blobs.sweep()
    layers = list(zip(diff_ids(image.config), image.manifest.layers, strict=True))
    chains = _chains([diff_id for diff_id, _ in layers])
    known = store.snapshots.get_many(chains)
    present = max((number + 1 for number, name in enumerate(chains) if name in known), default=0)
    snapshot = known[chains[present - 1]] if present else EMPTY
    downloads = {blob.digest: Download(store, blob, source) for _, blob in layers[present:]}
    with Tasks([each.run for each in downloads.values()], cancel=source.cancel):
        for diff_id, blob in layers[present:]:
            snapshot = _unpack(store, snapshot, diff_id, downloads[blob.digest])
    _remember(store, downloads.values())
    return snapshot


def pull_image(store: Store, image: StoredImage, source: Source) -> StoredImage:
    """The same with the blobs of all layers, even those whose trees are there: an image that can be pushed and saved as
    it came. It is registered, but has no name."""
    pull_layers(store, image, source)
    missing = [blob for blob in image.manifest.layers if store.blobs.size(blob.digest) != blob.size]
    downloads = [Download(store, blob, source) for blob in {blob.digest: blob for blob in missing}.values()]
    run_tasks([each.run for each in downloads], cancel=source.cancel)
    _remember(store, downloads)
    return register(store, image, store.blobs.read(image.manifest_digest), store.blobs.read(image.config_digest))


def _remember(store: Store, downloads: Collection[Download]) -> None:
    """Where the blobs came from, so that a push to a neighbour there need not send them."""
    for repository in {each.repository for each in downloads if each.repository is not None}:
        fetched = [each.blob.digest for each in downloads if each.repository is repository]
        remember(store, repository.endpoint, fetched)


def _unpack(store: Store, parent: Snapshot, diff_id: Digest, download: Download) -> Snapshot:
    try:
        with _Opened(download.open) as stream:
            return store.snapshots.unpack_layer(parent, diff_id, download.blob, stream)
    except LayerError:
        # What was there from before may have been wrong, which shows at the end only. The blob is right by now.
        with _Opened(download.open_whole) as stream:
            return store.snapshots.unpack_layer(parent, diff_id, download.blob, stream)


class _Opened:
    """A download's bytes, opened when somebody reads them: the store may have the layer already."""

    def __init__(self, open_stream: Callable[[], ClosingReadable]) -> None:
        self._open = open_stream
        self._stream: ClosingReadable | None = None

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the verified end."""
        if self._stream is None:
            self._stream = self._open()
        return self._stream.read(size)

    def __enter__(self) -> _Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()


def _chains(layers: Sequence[Digest]) -> list[str]:
    chain, chains = "", []
    for diff_id in layers:
        chain = chain_id(chain, diff_id)
        chains.append(chain)
    return chains
