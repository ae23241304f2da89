"""Image archives: tars of an OCI image layout, or of Docker's `save` format (manifest.json), read as a stream.

A stream is read once, from the start to the end, so every member that may be a blob goes into the blob store before it
is known what refers to it; what nothing refers to is left to `prune`. Names in an archive are keys here, never paths.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from typing import Any

from builder.errors import BuildError
from builder.image.document import MAX_DOCUMENT_SIZE
from builder.image.layout import INDEX_FILE, LAYOUT_FILE
from cache.blobs import BlobStore, Readable
from cache.compression import open_decompressed
from cache.digest import Digest
from cache.errors import LayerError
from cache.namedtuple import NamedTuple
from cache.tarreader import HARDLINK, REGULAR, SYMLINK, TarMember, read_tar

DOCKER_FILE = "manifest.json"
_DOCUMENTS = (INDEX_FILE, LAYOUT_FILE, DOCKER_FILE)
_BLOB_PREFIX = "blobs/sha256/"
_LAYER_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_MAX_LINKS = 8
_MAX_MEMBERS = 100_000


class DockerImage(NamedTuple):
    """One item of `manifest.json`: member names, bottom layer first."""

    config: str
    layers: tuple[str, ...]
    names: tuple[str, ...]


class Archive:
    """What an archive held: its documents in memory, its blobs in the store."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.documents: dict[str, bytes] = {}
        self._blobs: dict[str, tuple[Digest, int]] = {}
        self._links: dict[str, str] = {}

    def add(self, member: TarMember, blobs: BlobStore) -> None:
        """Take in one member."""
        name = posixpath.normpath("/" + member.name)[1:]
        if member.type == SYMLINK:
            self._links[name] = posixpath.normpath(posixpath.join("/" + posixpath.dirname(name), member.linkname))[1:]
        elif member.type == HARDLINK:
            self._links[name] = posixpath.normpath("/" + member.linkname)[1:]
        elif member.type == REGULAR and name in _DOCUMENTS:
            self.documents[name] = self._document(member)
        elif member.type == REGULAR and _may_be_blob(name):
            self._blobs[name] = _put(member, name, blobs)

    def _document(self, member: TarMember) -> bytes:
        if member.size > MAX_DOCUMENT_SIZE:
            raise BuildError(f"{self.source}: {member.name!r} is too large: {member.size} bytes")
        return member.content.read()

    def blob(self, name: str) -> tuple[Digest, int]:
        """Return digest and size of a member, through links; BuildError when the archive has none of that name."""
        found = posixpath.normpath("/" + name)[1:]
        for _ in range(_MAX_LINKS):
            if found in self._blobs:
                return self._blobs[found]
            found = self._links.get(found, found)
        raise BuildError(f"{self.source} lacks {name!r}, which its own list names", hint="the archive is incomplete")

    def has_document(self, digest: Digest) -> bool:
        """Return whether the archive held a blob of that digest, under whatever name."""
        return _BLOB_PREFIX + digest.hex in self._blobs or any(digest == blob for blob, _ in self._blobs.values())

    def docker_images(self) -> Iterator[DockerImage]:
        """Yield the items of `manifest.json`, none when the archive has no such file."""
        raw = self.documents.get(DOCKER_FILE)
        if raw is None:
            return
        what = f"{self.source}: {DOCKER_FILE}"
        try:
            items = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise BuildError(f"{what} is not valid JSON: {error}") from error
        for item in items if isinstance(items, list) else [None]:
            yield _docker_image(item, what)


def read_archive(stream: Readable, blobs: BlobStore, source: str) -> Archive:
    """Read a whole archive, plain or compressed; `source` names it in messages.

    BuildError when it is no image archive; CacheError when a blob does not match its name or the store fails.
    """
    archive = Archive(source)
    try:
        for number, member in enumerate(read_tar(open_decompressed(stream))):
            if number == _MAX_MEMBERS:
                raise BuildError(f"{source} is not an image archive: it has more than {_MAX_MEMBERS} members")
            archive.add(member, blobs)
    except LayerError as error:
        raise BuildError(f"{source} is not an image archive: {error}", hint=error.hint) from error
    if INDEX_FILE not in archive.documents and DOCKER_FILE not in archive.documents:
        raise BuildError(
            f"{source} is not an image archive: no index.json or manifest.json",
            hint="expected what docker save, podman save or type=oci writes, not a plain root file system",
        )
    return archive


def _may_be_blob(name: str) -> bool:
    """Keeps a root file system that somebody takes for an image from filling the store."""
    return "/" not in name or name.startswith("blobs/") or name.endswith(_LAYER_SUFFIXES)


def _put(member: TarMember, name: str, blobs: BlobStore) -> tuple[Digest, int]:
    digits = name.removeprefix(_BLOB_PREFIX)
    if len(digits) != 64 or not name.startswith(_BLOB_PREFIX):
        return blobs.put(member.chunks())
    expected = Digest.parse(f"sha256:{digits}")
    if blobs.size(expected) == member.size:
        return expected, member.size
    return blobs.put(member.chunks(), expected=expected)


def _docker_image(item: Any, what: str) -> DockerImage:
    if not isinstance(item, dict):
        raise BuildError(f"{what} is not a list of images")
    config: Any = item.get("Config")
    layers, names = item.get("Layers") or [], item.get("RepoTags") or []
    texts = [config, *layers, *names] if isinstance(layers, list) and isinstance(names, list) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise BuildError(f"{what}: an image needs Config, a name, and Layers and RepoTags, lists of names")
    return DockerImage(config, tuple(layers), tuple(names))
