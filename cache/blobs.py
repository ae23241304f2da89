"""Content-addressed files that never change.

    blobs/sha256/<hex>    one blob, named by the sha256 of its bytes

A blob is written to `run/tmp`, hashed on the way, synced and renamed: it is whole or not there. Readers verify: the
last read of `open` fails when the bytes are not the ones that the name promises. Knows nothing of what blobs mean.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import BinaryIO, Protocol

from cache.atomic import AtomicFile
from cache.digest import Digest, new_sha256, sha256_bytes
from cache.errors import BlobCorruptError, BlobMissingError, os_errors
from cache.locks import Locks
from cache.uses import Uses

_CHUNK = 1 << 20


class Readable(Protocol):
    """What a stream has to offer to be read."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the end."""


class BlobWriter:
    """One blob while it is written; `digest` and `size` are final when its block has ended."""

    def __init__(self, file: AtomicFile) -> None:
        import hashlib

        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, chunk: bytes | bytearray | memoryview) -> int:
        """Append `chunk`, all of it."""
        self._hash.update(chunk)
        self._file.write(chunk)
        self.size += len(chunk)
        return len(chunk)

    @property
    def digest(self) -> Digest:
        """The digest of what was written so far."""
        return Digest.of_hex(self._hash.hexdigest())


class BlobReader:
    """A blob's bytes, verified: BlobCorruptError comes instead of the end when they are not what the digest names."""

    def __init__(self, raw: io.FileIO, digest: Digest) -> None:
        self._raw = raw
        self._digest = digest
        self._hash = new_sha256(os.fstat(raw.fileno()).st_size)

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes (all that are left when negative), none at the verified end."""
        with os_errors(f"blob {self._digest}"):
            chunk = (self._raw.read(size) if size >= 0 else self._raw.readall()) or b""
        self._hash.update(chunk)
        if size < 0 or (not chunk and size):
            self._verify()
        return chunk

    def _verify(self) -> None:
        actual = Digest.of_hex(self._hash.hexdigest())
        if actual != self._digest:
            message = f"blob {self._digest} is corrupt: its bytes have the digest {actual}"
            raise BlobCorruptError(message, hint=f"remove {os.fsdecode(self._raw.name)} and get the image again")

    def close(self) -> None:
        """Close the file. What was not read was not verified."""
        self._raw.close()

    def __enter__(self) -> BlobReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BlobStore:
    """The blobs of one store. Putting is idempotent; any thread may use it."""

    def __init__(self, root: str, locks: Locks, uses: Uses) -> None:
        self._dir = os.path.join(root, "blobs", "sha256")
        self._locks = locks
        self._uses = uses

    @contextlib.contextmanager
    def writer(self, expected: Digest | None = None) -> Iterator[BlobWriter]:
        """A writer whose bytes become a blob when the block ends well; BlobCorruptError if they are not `expected`."""
        with AtomicFile(self._locks.temporary_path()) as file:
            writer = BlobWriter(file)
            yield writer
            digest = writer.digest
            if expected is not None and digest != expected:
                raise BlobCorruptError(f"content does not match its digest: expected {expected}, got {digest}")
            if self.size(digest) == writer.size:
                file.discard()
            file.path = self.path(digest)

    def put(self, chunks: Iterable[bytes] | BinaryIO, *, expected: Digest | None = None) -> tuple[Digest, int]:
        """Store the concatenated chunks, or all of a stream; its digest and size in bytes."""
        with self.writer(expected) as writer:
            for chunk in _chunks(chunks):
                writer.write(chunk)
        return writer.digest, writer.size

    def put_bytes(self, content: bytes) -> Digest:
        """Store `content`; its digest."""
        digest = sha256_bytes(content)
        return digest if self.size(digest) == len(content) else self.put((content,))[0]

    def open(self, digest: Digest) -> BlobReader:
        """A reader that verifies at the end; BlobMissingError when the blob is not there."""
        self._uses.hold((digest,))
        try:
            return BlobReader(io.FileIO(self.path(digest)), digest)
        except FileNotFoundError as error:
            raise BlobMissingError(f"blob {digest} is not in the store") from error

    def read(self, digest: Digest, limit: int = 4 << 20) -> bytes:
        """The whole blob, verified; BlobCorruptError also when it is longer than `limit` bytes."""
        size = self.size(digest)
        if size is not None and size > limit:
            raise BlobCorruptError(f"blob {digest} has {size} bytes: expected at most {limit}")
        with self.open(digest) as reader:
            return reader.read()

    def path(self, digest: Digest) -> str:
        """Where the blob lies, or would."""
        return os.path.join(self._dir, digest[7:])

    def size(self, digest: Digest) -> int | None:
        """The blob's length in bytes, None when it is not there. One that is there stays while this process lives."""
        self._uses.hold((digest,))
        return self.peek(digest)

    def peek(self, digest: Digest) -> int | None:
        """The same without a promise: for blobs of a layer that is in use, and for looking around."""
        try:
            return os.stat(self.path(digest)).st_size
        except OSError:
            return None

    def peek_bytes(self, digest: Digest, limit: int = 4 << 20) -> bytes | None:
        """At most `limit` bytes of a blob, neither verified nor held; None when it is not there."""
        try:
            with open(self.path(digest), "rb") as file:
                return file.read(limit)
        except OSError:
            return None

    def delete(self, digest: Digest) -> int:
        """Remove the blob; the number of bytes that it had. Idempotent."""
        size = self.peek(digest) or 0
        with os_errors(self.path(digest)), contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(digest))
        return size

    def walk(self) -> Iterator[tuple[Digest, int]]:
        """Every blob with its size in bytes, in no order."""
        with os_errors(self._dir), os.scandir(self._dir) as entries:
            for entry in entries:
                if len(entry.name) == 64:
                    yield Digest.of_hex(entry.name), entry.stat(follow_symlinks=False).st_size


def _chunks(source: Iterable[bytes] | BinaryIO) -> Iterator[bytes]:
    if isinstance(source, Iterable) and not hasattr(source, "read"):
        yield from source
        return
    while chunk := source.read(_CHUNK):
        yield chunk
