"""Caches in a directory: an OCI image layout (OCI image-spec, image-layout.md), with a tag for each cache.

    DIR/index.json             a tag and the manifest it means, replaced as a whole under a lock on DIR
    DIR/blobs/sha256/<hex>     manifests, indexes of caches, layers; they appear whole

A directory may come from anybody: only regular files in real directories are opened, whatever the names lead to.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from builder.cachestore.options import CacheSpec
from builder.cachestore.place import Found
from builder.errors import BuildError
from builder.export.file import output_error, replaced_file
from builder.image.document import MAX_DOCUMENT_SIZE
from builder.image.layout import INDEX_FILE, LAYOUT_CONTENT, LAYOUT_FILE, Layout, parse_index, verified
from builder.image.manifest import Index, Manifest, encode_manifest, parse_manifest
from builder.image.select import REF_NAME
from cache.blobs import Readable
from cache.descriptor import MEDIA_MANIFEST, Descriptor
from cache.digest import Digest, sha256_bytes
from cache.dirfds import OPEN_DIRECTORY
from cache.exchange import MAX_SIZE
from cache.store import Store

DEFAULT_TAG = "latest"
_CHUNK = 1 << 20
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def _open_plain(directory: str, *names: str) -> BinaryIO:
    """A regular file below a directory, reached through real directories only. OSError otherwise."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names[:-1]:
            below = os.open(name, OPEN_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
        file_fd = os.open(names[-1], _OPEN_FILE, dir_fd=fd)
    finally:
        os.close(fd)
    if not stat.S_ISREG(os.fstat(file_fd).st_mode):
        os.close(file_fd)
        raise OSError(errno.EINVAL, "not a regular file", "/".join(names))
    return open(file_fd, "rb", buffering=0)


class _Directory(Layout):
    """A layout that nobody vouches for."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        with self._errors(INDEX_FILE), _open_plain(directory, INDEX_FILE) as file:
            raw = file.read(MAX_DOCUMENT_SIZE + 1)
        self.index = parse_index(raw, os.path.join(directory, INDEX_FILE))

    def open_blob(self, digest: Digest) -> BinaryIO:
        """See Layout."""
        with self._errors(f"blob {digest}"):
            return _open_plain(self.directory, "blobs", digest.algorithm, digest.hex)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise BuildError(f"cache {self.directory!r}: {what} cannot be read: {reason}") from error


class LocalSource:
    """See CacheSource."""

    repository = ""

    def __init__(self, spec: CacheSpec, cwd: str, platform: str) -> None:
        self._directory = os.path.normpath(os.path.join(cwd, spec.attributes["src"]))
        self._wanted = spec.attributes.get("digest") or spec.attributes.get("tag", DEFAULT_TAG)
        self._platform = platform

    def read(self) -> Found | None:
        """See CacheSource. A directory without an index, and an index without the tag, hold no cache yet."""
        if not os.path.lexists(os.path.join(self._directory, INDEX_FILE)):
            return None
        layout = _Directory(self._directory)
        if not self._wanted.startswith("sha256:") and not _tagged(layout.index, self._wanted):
            return None
        selected = layout.find(self._wanted, self._platform)
        config = selected.manifest.config
        with layout.open_blob(config.digest) as file:
            raw = b"".join(iter(lambda: file.read(_CHUNK), b"")) if config.size <= MAX_SIZE else b""
        return Found(selected.manifest, verified(raw, config, self._directory))

    @contextmanager
    def open(self, blob: Descriptor) -> Iterator[Readable]:
        """See CacheSource."""
        with _Directory(self._directory).open_blob(blob.digest) as file:
            yield file

    def note(self, store: Store, blobs: Iterable[Digest]) -> None:
        """See CacheSource."""

    def close(self) -> None:
        """See CacheSource."""


def _tagged(index: Index, tag: str) -> list[Descriptor]:
    return [entry for entry in index.manifests if (entry.annotations or {}).get(REF_NAME) == tag]


class LocalTarget:
    """See CacheTarget."""

    parallel = 4

    def __init__(self, spec: CacheSpec, cwd: str) -> None:
        self._directory = os.path.normpath(os.path.join(cwd, spec.attributes["dest"]))
        self._tag = spec.attributes.get("tag", DEFAULT_TAG)
        self._resets = spec.flag("reset")

    def present(self) -> tuple[Digest, frozenset[Digest]]:
        """See CacheTarget. Looking for a file costs less than remembering it."""
        if self._resets:
            return Digest(""), frozenset()
        entries = _tagged(self._index(), self._tag)
        return entries[0].digest if len(entries) == 1 else Digest(""), frozenset()

    def send(self, blob: Descriptor, opening: Callable[[], Readable], mount_from: Iterable[str]) -> bool:
        """See CacheTarget."""
        path = self._blob_path(blob.digest)
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode) and status.st_size == blob.size:
                return False
        self._make_directories()
        stream = opening()
        with replaced_file(path) as sink:
            while chunk := stream.read(_CHUNK):
                sink.write(chunk)
        return True

    def publish(self, manifest_raw: bytes, config_raw: bytes) -> None:
        """See CacheTarget."""
        self._make_directories()
        entry = Descriptor(MEDIA_MANIFEST, sha256_bytes(manifest_raw), len(manifest_raw), {REF_NAME: self._tag})
        for raw in (config_raw, manifest_raw):
            self._write(self._blob_path(sha256_bytes(raw)), raw)
        with self._lock():
            kept = [] if self._resets else list(self._index().manifests)
            kept = [other for other in kept if (other.annotations or {}).get(REF_NAME) != self._tag]
            self._write(os.path.join(self._directory, LAYOUT_FILE), LAYOUT_CONTENT)
            self._write(os.path.join(self._directory, INDEX_FILE), encode_manifest(Index((*kept, entry))))
            if self._resets:
                self._sweep(entry, manifest_raw)

    def close(self) -> None:
        """See CacheTarget."""

    def _index(self) -> Index:
        if not os.path.lexists(os.path.join(self._directory, INDEX_FILE)):
            return Index(())
        return _Directory(self._directory).index

    def _sweep(self, entry: Descriptor, manifest_raw: bytes) -> None:
        """Remove every blob that the one cache does not name (reset=true)."""
        manifest = parse_manifest(manifest_raw)
        assert isinstance(manifest, Manifest)
        kept = {each.digest.hex for each in (entry, manifest.config, *manifest.layers)}
        blobs_dir = os.path.join(self._directory, "blobs", "sha256")
        for name in os.listdir(blobs_dir):
            if name not in kept:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(blobs_dir, name))

    def _blob_path(self, digest: Digest) -> str:
        return os.path.join(self._directory, "blobs", "sha256", digest.hex)

    def _make_directories(self) -> None:
        try:
            os.makedirs(os.path.join(self._directory, "blobs", "sha256"), exist_ok=True)
        except OSError as error:
            raise output_error(self._directory, error) from error

    @staticmethod
    def _write(path: str, raw: bytes) -> None:
        with replaced_file(path) as sink:
            sink.write(raw)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Alone among those that change the index."""
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)
