"""An image's blobs and documents to a registry: blobs side by side, each once, then manifests, and last what has a tag.

Whoever sees the tag can get everything under it. What the registry has is not sent; what a neighbouring repository has
is mounted. Blobs come from the store and may still be made while others go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType

from builder.registry.neighbours import neighbours, remember
from builder.registry.repository import Repository
from builder.registry.tasks import Tasks
from builder.registry.transfers import OnTransfer, Progress, silent
from builder.registry.upload import Uploaded
from cache.blobs import BlobReader, Readable
from cache.descriptor import Descriptor
from cache.digest import Digest, sha256_bytes
from cache.namedtuple import NamedTuple
from cache.store import Store


class Document(NamedTuple):
    """A manifest or an index to push, and the tags that it gets; none: it is found by its digest."""

    media_type: str
    raw: bytes
    tags: tuple[str, ...] = ()


class Pusher:
    """One push to one repository. A context manager: leaving it waits for the blobs."""

    def __init__(
        self, store: Store, repository: Repository, *, cancel: Callable[[], None], on_transfer: OnTransfer = silent
    ) -> None:
        self._store = store
        self.open: Callable[[Descriptor], Readable] = self._open
        """Opens the blobs; those of the store unless it is set."""
        self._repository = repository
        self._on_transfer = on_transfer
        self._tasks = Tasks(cancel=cancel)
        self._neighbours = neighbours(store, repository.endpoint)
        self._begun: set[Digest] = set()
        self.uploaded: dict[Digest, Uploaded] = {}
        """What became of each blob."""

    def blob(self, blob: Descriptor) -> None:
        """Begin to bring a blob of the store there, unless that has begun. Raises what stopped another one."""
        if blob.digest not in self._begun:
            self._begun.add(blob.digest)
            self._tasks.add(partial(self._upload, blob))

    def bytes(self, raw: bytes, media_type: str) -> None:
        """The same for a small blob in memory."""
        digest = sha256_bytes(raw)
        if digest not in self._begun:
            self._begun.add(digest)
            self._tasks.add(partial(self._repository.upload_bytes, raw, media_type))

    def _upload(self, blob: Descriptor) -> None:
        progress = Progress(self._on_transfer, blob.digest, blob.size)
        done = self._repository.upload(
            blob,
            partial(self.open, blob),
            mount_from=self._neighbours.get(blob.digest, ()),
            on_sent=progress.add,
        )
        if done.how == "sent":
            progress.end()
        self.uploaded[blob.digest] = done

    def _open(self, blob: Descriptor) -> BlobReader:
        return self._store.blobs.open(blob.digest)

    def __enter__(self) -> Pusher:
        self._tasks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tasks.__exit__(kind, error, trace)
        remember(self._store, self._repository.endpoint, self.uploaded)


def push_documents(repository: Repository, documents: Sequence[Document]) -> None:
    """Put manifests there whose blobs are there, those that refer to others after them. RegistryError. Idempotent."""
    for document in documents:
        for tag in document.tags or ("",):
            repository.put_manifest(document.raw, document.media_type, tag)
