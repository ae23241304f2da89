"""An OCI image layout in a directory, for reading (OCI image-spec, image-layout.md).

    DIR/oci-layout             {"imageLayoutVersion": "1.0.0"}
    DIR/index.json             what the layout holds; the tag is the annotation org.opencontainers.image.ref.name
    DIR/blobs/sha256/<hex>     everything else, named by its digest

Every blob is checked against its digest and its size. Knows no store.
"""

from __future__ import annotations

import errno
import os
from typing import BinaryIO

from builder.errors import BuildError
from builder.image.document import MAX_DOCUMENT_SIZE, parse_document
from builder.image.manifest import Index, parse_manifest
from builder.image.select import Selected, find_entry, names_of, platforms_in, select_manifest
from cache.descriptor import Descriptor
from cache.digest import Digest, sha256_bytes

INDEX_FILE = "index.json"
LAYOUT_FILE = "oci-layout"
LAYOUT_CONTENT = b'{"imageLayoutVersion":"1.0.0"}'


class Layout:
    """The image layout in `directory`; opening reads `index.json` only."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        raw = _read(os.path.join(directory, INDEX_FILE), f"{directory!r} is not an OCI image layout: no index.json")
        self.index = parse_index(raw, os.path.join(directory, INDEX_FILE))

    def check_version(self) -> None:
        """Refuse a layout of another version (BuildError). One without an `oci-layout` file passes, as everywhere."""
        path = os.path.join(self.directory, LAYOUT_FILE)
        if os.path.exists(path):
            check_layout_version(_read(path, f"{path!r} cannot be read"), path)

    def open_blob(self, digest: Digest) -> BinaryIO:
        """Return the blob's file, unverified: whoever reads it hashes it."""
        path = os.path.join(self.directory, "blobs", digest.algorithm, digest.hex)
        try:
            return open(path, "rb")
        except OSError as error:
            raise _blob_error(self.directory, digest, error) from error

    def read(self, descriptor: Descriptor) -> bytes:
        """Return the verified bytes of a document of at most 4 MiB."""
        with self.open_blob(descriptor.digest) as file:
            raw = file.read(MAX_DOCUMENT_SIZE + 1)
        return verified(raw, descriptor, self.directory)

    def find(self, wanted: str | None, platform: str) -> Selected:
        """Return the manifest that a tag or digest names (None: `latest`, or the only one), or BuildError."""
        entries = find_entry(self.index, wanted)
        if not entries and wanted is not None and wanted.startswith("sha256:"):
            entries = (self._unlisted(Digest.parse(wanted)),)
        if not entries:
            raise self._no_entry(wanted)
        selected = select_manifest(entries, self.read, platform)
        if selected is None:
            found = platforms_in(entries if len(entries) > 1 else self._index_below(entries[0]).manifests)
            raise BuildError(f"{self.directory!r} has no image for platform {platform}, its platforms: {found}")
        return selected

    def _index_below(self, entry: Descriptor) -> Index:
        document = parse_manifest(self.read(entry))
        return document if isinstance(document, Index) else Index(())

    def _unlisted(self, digest: Digest) -> Descriptor:
        with self.open_blob(digest) as file:
            return Descriptor("", digest, os.fstat(file.fileno()).st_size)

    def _no_entry(self, wanted: str | None) -> BuildError:
        tags = sorted({name for entry in self.index.manifests for name in names_of(entry)})
        what = "no image" if wanted is None else f"no image tagged {wanted!r}"
        return BuildError(
            f"{self.directory!r} has {what}",
            hint="its tags: " + ", ".join(tags) if tags else "it has no tags, name the manifest by its digest",
        )


def parse_index(raw: bytes, what: str) -> Index:
    """Return the index in `raw`, BuildError when it is a manifest or neither."""
    index = parse_manifest(raw, what)
    if not isinstance(index, Index):
        raise BuildError(f"{what} is an image manifest, expected an index")
    return index


def check_layout_version(raw: bytes, what: str) -> None:
    """Refuse an `oci-layout` file of another major version (BuildError)."""
    version = parse_document(raw, what).get("imageLayoutVersion")
    if not isinstance(version, str) or not version.startswith("1."):
        raise BuildError(f"{what}: imageLayoutVersion is {version!r}, expected '1.0.0'")


def verified(raw: bytes, descriptor: Descriptor, where: str) -> bytes:
    """Return `raw` when it is what `descriptor` says, BuildError otherwise."""
    if len(raw) != descriptor.size or sha256_bytes(raw) != descriptor.digest:
        raise BuildError(
            f"{where!r}: blob {descriptor.digest} is damaged: {len(raw)} bytes with digest {sha256_bytes(raw)}, "
            f"expected {descriptor.size} bytes"
        )
    return raw


def _read(path: str, missing: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_DOCUMENT_SIZE + 1)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise BuildError(missing) from error
        raise BuildError(f"{path}: {(error.strerror or str(error)).lower()}") from error


def _blob_error(directory: str, digest: Digest, error: OSError) -> BuildError:
    if error.errno == errno.ENOENT:
        return BuildError(f"{directory!r} lacks blob {digest}", hint="the layout is incomplete, copy it again")
    return BuildError(f"{directory!r}: blob {digest}: {(error.strerror or str(error)).lower()}")


def split_layout_name(text: str) -> tuple[str, str | None]:
    """Split `DIR[:TAG][@DIGEST]` into the directory and what to find in it; a digest counts more than a tag."""
    rest, at, digest = text.partition("@sha256:")
    directory, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        directory, tag = rest, ""
    if at:
        return directory, "sha256:" + digest
    return directory, tag or None
