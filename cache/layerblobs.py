"""Layers as blobs: the tar of a tree, compressed, made when somebody exports it and kept for the next time.

One thread reads and hashes while another compresses and writes, both in constant memory. An imported layer has its
original blob, which is used as it is unless other bytes are asked for. Knows no image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing

from cache import tarwriter
from cache.blobs import BlobStore, Readable
from cache.changes import tree_changes
from cache.compression import DEFAULT_LEVELS, compressor, open_decompressed
from cache.database import Database
from cache.descriptor import MEDIA_LAYER_GZIP, MEDIA_LAYER_TAR, MEDIA_LAYER_ZSTD, Descriptor, oci_layer_type
from cache.digest import Digest
from cache.errors import CacheError, LayerLostError
from cache.layer import tar_chunks
from cache.layerrows import LayerRow, LayerRows
from cache.materialize import Materializer
from cache.pipeline import Stage
from cache.snapshot import Layer
from cache.tarcontent import entry_of
from cache.tarreader import read_tar

_MEDIA_TYPES = {"gzip": MEDIA_LAYER_GZIP, "zstd": MEDIA_LAYER_ZSTD, "none": MEDIA_LAYER_TAR}
_NO_EPOCH = -(1 << 63)
_CHUNK = 1 << 20


class LayerBlobs:
    """The blob forms of one store's layers. Any thread may use it; making one twice at once is harmless."""

    def __init__(self, database: Database, blobs: BlobStore, materializer: Materializer) -> None:
        self._database = database
        self._rows = LayerRows(database)
        self._blobs = blobs
        self._materializer = materializer

    def blob(
        self,
        layer: Layer,
        *,
        compression: str = "gzip",
        level: int | None = None,
        clamp_epoch: int | None = None,
        force: bool = False,
    ) -> tuple[Descriptor, Digest]:
        """The layer as a blob (`gzip`, `zstd` or `none`), and the diff_id of the tar in it.

        No time in it is later than `clamp_epoch` seconds; clamping may give another diff_id than the layer's. An
        imported layer's own blob serves whatever its compression is, unless `force`. LayerLostError when the layer is
        gone.
        """
        if compression not in _MEDIA_TYPES:
            raise CacheError(f"compression {compression!r} is unknown: expected one of {', '.join(_MEDIA_TYPES)}")
        row = self._row(layer)
        if self._has_original(row) and not force and clamp_epoch is None:
            return self._original(row)
        key = (layer.diff_id, compression, DEFAULT_LEVELS[compression] if level is None else level)
        epoch = _NO_EPOCH if clamp_epoch is None else clamp_epoch
        known = self._known(key, epoch, force)
        if known is not None:
            return known
        if self._has_original(row) and not force and not self._is_newer(row, epoch):
            made = self._original(row)
        else:
            made = self._make(row, key, clamp_epoch)
        self._remember(key, epoch, force, made)
        return made

    def tar_stream(self, layer: Layer, clamp_epoch: int | None = None) -> Iterator[bytes]:
        """The layer's plain tar in chunks."""
        self._materializer.use()
        return self._tar(self._row(layer), clamp_epoch)

    def _row(self, layer: Layer) -> LayerRow:
        row = self._rows.get(layer.layer_id)
        if row is None or not self._materializer.is_present(row):
            raise LayerLostError(f"layer {layer.diff_id} is gone", hint="run the build again: it makes the layer anew")
        return row

    def _has_original(self, row: LayerRow) -> bool:
        return row.blob is not None and self._blobs.peek(row.blob.digest) is not None

    def _original(self, row: LayerRow) -> tuple[Descriptor, Digest]:
        assert row.blob is not None
        return row.blob._replace(media_type=oci_layer_type(row.blob.media_type)), row.layer.diff_id

    def _known(self, key: tuple[Digest, str, int], epoch: int, force: bool) -> tuple[Descriptor, Digest] | None:
        """The blob that was made for the same wish before, if it is still there."""
        found = self._database.row(
            "SELECT digest, size, blob_diff_id, media_type FROM layer_blobs"
            " WHERE diff_id = ? AND compression = ? AND level = ? AND epoch = ? AND forced = ?",
            (*key, epoch, force),
        )
        if found is None or self._blobs.size(Digest(found[0])) != found[1]:
            return None
        return Descriptor(found[3], Digest(found[0]), found[1]), Digest(found[2])

    def _remember(self, key: tuple[Digest, str, int], epoch: int, force: bool, made: tuple[Descriptor, Digest]) -> None:
        blob, diff_id = made
        self._database.write(
            "INSERT OR REPLACE INTO layer_blobs"
            " (diff_id, compression, level, epoch, forced, digest, size, blob_diff_id, media_type)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*key, epoch, force, blob.digest, blob.size, diff_id, blob.media_type),
        )

    def _make(self, row: LayerRow, key: tuple[Digest, str, int], clamp_epoch: int | None) -> tuple[Descriptor, Digest]:
        self._materializer.use()  # while there is one thread
        _, compression, level = key
        packer = compressor(compression, level)
        diff = hashlib.sha256()
        with self._blobs.writer() as writer:
            with Stage(lambda chunk: writer.write(packer.compress(chunk))) as stage:
                for chunk in self._tar(row, clamp_epoch):
                    stage.put(chunk)
                    diff.update(chunk)
            writer.write(packer.flush())
            diff_id = Digest.of_hex(diff.hexdigest())
            if clamp_epoch is None and diff_id != row.layer.diff_id and (not row.imported or self._has_original(row)):
                raise LayerLostError(f"layer {row.layer.diff_id} was changed on disk: its tar is {diff_id} now")
        return Descriptor(_MEDIA_TYPES[compression], writer.digest, writer.size), diff_id

    def _tar(self, row: LayerRow, clamp_epoch: int | None) -> Iterator[bytes]:
        """From the tree of a layer that was built here; an imported one's tar can only be had from its blob, or, if
        that is gone, made anew with another diff_id."""
        if row.tree and (not row.imported or not self._has_original(row)) and self._materializer.is_trusted(row):
            tree_dir = self._materializer.tree_dir(row.layer)
            yield from tar_chunks(tree_changes(tree_dir), tree_dir, clamp_epoch=clamp_epoch)
        elif self._has_original(row):
            yield from self._blob_tar(row, clamp_epoch)
        else:
            raise LayerLostError(
                f"layer {row.layer.diff_id} is damaged", hint="remove the store's snapshot and build again"
            )

    def _blob_tar(self, row: LayerRow, clamp_epoch: int | None) -> Iterator[bytes]:
        assert row.blob is not None
        with closing(self._blobs.open(row.blob.digest)) as reader:
            stream = open_decompressed(reader)
            yield from _read_all(stream) if clamp_epoch is None else _clamped(stream, clamp_epoch)
            while reader.read(_CHUNK):
                pass

    def _is_newer(self, row: LayerRow, epoch: int) -> bool:
        """Whether any member of an imported layer has a later time."""
        assert row.blob is not None
        with closing(self._blobs.open(row.blob.digest)) as reader:
            return any(member.mtime_ns > epoch * 10**9 for member in read_tar(open_decompressed(reader)))


def _read_all(stream: Readable) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


def _clamped(stream: Readable, epoch: int) -> Iterator[bytes]:
    """The same members in the same order, none later than the epoch."""
    for member in read_tar(stream):
        yield tarwriter.encode(entry_of(member, epoch))
        yield from member.chunks()
        yield tarwriter.padding(member.size)
    yield tarwriter.END
