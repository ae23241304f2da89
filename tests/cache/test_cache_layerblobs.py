"""Layers as blobs: compressed, clamped, reused, and never something else than the layer."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import subprocess
from pathlib import Path

import pytest
import zstandard
from tars import directory, entry, hardlink, symlink, tar

from cache.blobs import BlobReader
from cache.compression import compressor, detect, open_decompressed
from cache.descriptor import MEDIA_DOCKER_LAYER_GZIP, MEDIA_LAYER_GZIP, MEDIA_LAYER_TAR, MEDIA_LAYER_ZSTD, Descriptor
from cache.digest import sha256_bytes
from cache.errors import CacheError, LayerError, LayerLostError
from cache.snapshots import EMPTY, Layer
from cache.store import Store
from cache.tarreader import read_tar


@pytest.fixture
def layer(store: Store) -> Layer:
    active = store.snapshots.prepare(EMPTY)
    for number in range(3):
        path = Path(active.upper_dir, f"f{number}")
        path.write_bytes(bytes([number]) * 100_000)
        os.utime(path, (1000 * number, 1000 * number))
    return store.snapshots.commit(active).layers[0]


def plain(store: Store, blob: Descriptor) -> bytes:
    with store.blobs.open(blob.digest) as reader:
        stream, parts = open_decompressed(reader), []
        while chunk := stream.read(100_000):
            parts.append(chunk)
    return b"".join(parts)


def times(content: bytes) -> list[int]:
    return [member.mtime_ns // 10**9 for member in read_tar(io.BytesIO(content))]


@pytest.mark.parametrize(
    ("compression", "media_type", "magic"),
    [
        ("gzip", MEDIA_LAYER_GZIP, b"\x1f\x8b"),
        ("zstd", MEDIA_LAYER_ZSTD, b"\x28\xb5"),
        ("none", MEDIA_LAYER_TAR, b"f0"),
    ],
)
def test_a_layer_becomes_a_blob_of_each_kind(store, layer, compression, media_type, magic):
    blob, diff_id = store.layers.blob(layer, compression=compression)
    assert blob.media_type == media_type
    assert diff_id == layer.diff_id == sha256_bytes(plain(store, blob))
    raw = store.blobs.read(blob.digest)
    assert raw.startswith(magic)
    assert len(raw) == blob.size


def test_gzip_blobs_have_no_name_and_no_time_and_other_tools_read_them(store, layer):
    blob, _ = store.layers.blob(layer)
    raw = store.blobs.read(blob.digest)
    assert raw[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    assert gzip.decompress(raw) == plain(store, blob)
    assert subprocess.run(["gzip", "-t"], input=raw, check=False).returncode == 0


def test_a_blob_is_made_once(store, layer, tmp_path):
    made = store.layers.blob(layer)
    path = store.blobs.path(made[0].digest)
    inode = os.stat(path).st_ino
    assert store.layers.blob(layer) == made
    with Store.open(store.root) as later:
        assert later.layers.blob(layer) == made
    assert os.stat(path).st_ino == inode
    store.blobs.delete(made[0].digest)
    assert store.layers.blob(layer) == made


def test_levels_are_kept_apart(store, layer):
    assert store.layers.blob(layer, level=0)[0].digest != store.layers.blob(layer, level=3)[0].digest


def test_clamping_changes_only_times(store, layer):
    blob, diff_id = store.layers.blob(layer, clamp_epoch=1500)
    assert diff_id == sha256_bytes(plain(store, blob)) != layer.diff_id
    assert times(plain(store, blob)) == [0, 1000, 1500]
    assert store.layers.blob(layer, clamp_epoch=5000)[1] == layer.diff_id
    assert store.layers.blob(layer, clamp_epoch=1500) == (blob, diff_id)


def test_tar_stream_is_the_plain_tar(store, layer):
    content = b"".join(store.layers.tar_stream(layer))
    assert sha256_bytes(content) == layer.diff_id
    assert times(b"".join(store.layers.tar_stream(layer, 0))) == [0, 0, 0]


def test_a_tree_that_was_changed_is_not_exported_under_its_old_name(store, layer):
    tree_dir = store.snapshots.lower_dirs(store.snapshots.get(layer.diff_id))[0]
    Path(tree_dir, "f1").write_text("changed")
    with pytest.raises(LayerLostError, match="changed"):
        store.layers.blob(layer)
    assert list(store.blobs.walk()) == []


def test_an_unknown_compression_is_refused(store, layer):
    with pytest.raises(CacheError, match="lzip"):
        store.layers.blob(layer, compression="lzip")


CONTENT = tar(
    directory("d", mtime=100),
    entry("d/f", b"x" * 3000, mtime=200, uid=3_000_000, mode=0o4755),
    symlink("d/l", "t" * 200),
    hardlink("d/h", "d/f", mtime=300),
)


def imported(store: Store, raw: bytes, media_type: str = MEDIA_DOCKER_LAYER_GZIP) -> tuple[Layer, Descriptor]:
    digest, size = store.blobs.put([raw])
    blob = Descriptor(media_type, digest, size)
    return store.snapshots.add_layer_blob(EMPTY, sha256_bytes(CONTENT), blob).layers[0], blob


def test_an_imported_layer_keeps_its_blob(store):
    layer, original = imported(store, gzip.compress(CONTENT, 9))
    for compression in ("gzip", "zstd"):
        blob, diff_id = store.layers.blob(layer, compression=compression)
        assert (blob.digest, blob.size, diff_id) == (original.digest, original.size, layer.diff_id)
        assert blob.media_type == MEDIA_LAYER_GZIP


def test_an_imported_layer_is_compressed_anew_when_it_must(store):
    layer, original = imported(store, gzip.compress(CONTENT, 9))
    blob, diff_id = store.layers.blob(layer, compression="zstd", force=True)
    assert blob.media_type == MEDIA_LAYER_ZSTD
    assert blob.digest != original.digest
    assert diff_id == layer.diff_id
    assert plain(store, blob) == CONTENT


def test_an_imported_layer_is_rewritten_only_if_something_in_it_is_newer(store):
    layer, original = imported(store, zstandard.compress(CONTENT), MEDIA_LAYER_ZSTD)
    for _ in range(2):
        assert store.layers.blob(layer, clamp_epoch=1000) == (original, layer.diff_id)
    blob, diff_id = store.layers.blob(layer, clamp_epoch=250)
    content = plain(store, blob)
    assert diff_id == sha256_bytes(content) != layer.diff_id
    before, after = list(read_tar(io.BytesIO(CONTENT))), list(read_tar(io.BytesIO(content)))
    assert [m.mtime_ns // 10**9 for m in before] == [100, 200, 1000, 300]
    assert [m.mtime_ns // 10**9 for m in after] == [100, 200, 250, 250]
    assert [m._replace(mtime_ns=0, content=None) for m in before] == [
        m._replace(mtime_ns=0, content=None) for m in after
    ]


def test_an_unpacked_layer_whose_blob_is_gone_is_packed_again(store):
    layer, original = imported(store, gzip.compress(CONTENT))
    store.snapshots.lower_dirs(store.snapshots.get(layer.diff_id))
    store.blobs.delete(original.digest)
    blob, diff_id = store.layers.blob(layer)
    assert diff_id == sha256_bytes(plain(store, blob))
    assert [m.name for m in read_tar(io.BytesIO(plain(store, blob)))] == ["d/", "d/f", "d/h", "d/l"]


def test_a_layer_that_is_gone_is_said_so(store):
    layer, original = imported(store, gzip.compress(CONTENT))
    store.blobs.delete(original.digest)
    with pytest.raises(LayerLostError):
        store.layers.blob(layer)


@pytest.mark.parametrize(
    "compress",
    [gzip.compress, bz2.compress, lzma.compress, zstandard.compress, bytes],
    ids=["gzip", "bzip2", "xz", "zstd", "none"],
)
class TestDecompression:
    def test_every_kind_is_found_by_its_magic(self, compress):
        assert read_all(compress(CONTENT)) == CONTENT
        assert read_all(compress(CONTENT), 1) == CONTENT

    def test_truncated_streams_do_not_pass(self, compress):
        if compress is bytes:
            return
        raw = compress(os.urandom(100_000))
        for size in (7, len(raw) // 2, len(raw) - 1):
            with pytest.raises(LayerError, match=r"truncated|ends too early"):
                read_all(raw[:size])

    def test_damaged_streams_are_layer_errors(self, compress):
        if compress is bytes:
            return
        raw = bytearray(compress(CONTENT * 20))
        raw[10 : len(raw) - 10] = b"\xff" * (len(raw) - 20)
        with pytest.raises(LayerError, match=r"broken|truncated"):
            read_all(bytes(raw))

    def test_several_members_follow_each_other(self, compress):
        assert read_all(compress(b"one" * 1000) + compress(b"two" * 1000)) == b"one" * 1000 + b"two" * 1000


class Slow(io.BytesIO):
    """A stream that gives little at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(7, size) if size and size > 0 else 7)


def read_all(raw: bytes, size: int = 65536) -> bytes:
    stream, parts = open_decompressed(Slow(raw) if size > 1 else io.BytesIO(raw)), []
    while chunk := stream.read(size):
        assert len(chunk) <= size
        parts.append(chunk)
    return b"".join(parts)


def test_padding_after_gzip_is_allowed_and_garbage_is_not():
    assert read_all(gzip.compress(b"x") + bytes(1000)) == b"x"
    with pytest.raises(LayerError):
        read_all(gzip.compress(b"x") + b"garbage, not a member")


def test_a_bomb_is_read_in_small_pieces():
    raw = gzip.compress(bytes(50 << 20))
    stream = open_decompressed(io.BytesIO(raw))
    assert max(len(stream.read(1000)) for _ in range(100)) <= 1000


def test_short_streams_have_no_kind():
    assert detect(b"") == detect(b"B") == "none"
    assert read_all(b"x") == b"x"
    assert read_all(b"") == b""


@pytest.mark.parametrize("kind", ["gzip", "zstd", "none"])
def test_compressors_are_deterministic_whatever_the_pieces(kind):
    content = os.urandom(5000) * 40
    once = compressor(kind)
    whole = once.compress(content) + once.flush()
    again = compressor(kind)
    assert again.compress(content) + again.flush() == whole
    assert read_all(whole) == content
    assert read_all(compressor(kind).flush()) == b""


class TestBlobs:
    def test_blobs_are_named_by_their_bytes(self, store):
        digest, size = store.blobs.put(io.BytesIO(b"content" * 1000))
        assert digest == "sha256:" + hashlib.sha256(b"content" * 1000).hexdigest()
        assert store.blobs.size(digest) == size == 7000
        assert store.blobs.put([b"content"] * 1000) == (digest, size)
        assert list(store.blobs.walk()) == [(digest, 7000)]
        assert store.blobs.delete(digest) == 7000
        assert store.blobs.delete(digest) == 0
        assert store.blobs.size(digest) is None
        with pytest.raises(CacheError, match="not in the store"):
            store.blobs.open(digest)

    def test_expected_digests_are_checked_and_nothing_is_kept(self, store):
        with pytest.raises(CacheError, match="does not match"):
            store.blobs.put([b"a"], expected=sha256_bytes(b"b"))
        assert list(store.blobs.walk()) == []
        assert os.listdir(os.path.join(store.root, "run/tmp")) == []

    def test_readers_verify(self, store):
        digest = store.blobs.put_bytes(b"content")
        Path(store.blobs.path(digest)).write_bytes(b"Content")
        with pytest.raises(CacheError, match="corrupt"):
            store.blobs.read(digest)
        with store.blobs.open(digest) as reader:
            assert isinstance(reader, BlobReader)
            assert reader.read(3) == b"Con"
            assert reader.read(100) == b"tent"
            with pytest.raises(CacheError, match="corrupt"):
                reader.read(100)

    def test_a_blob_that_lost_bytes_is_replaced(self, store):
        digest = store.blobs.put_bytes(b"content")
        Path(store.blobs.path(digest)).write_bytes(b"")
        store.blobs.put_bytes(b"content")
        assert store.blobs.read(digest) == b"content"

    def test_documents_have_a_limit(self, store):
        digest = store.blobs.put_bytes(b"content")
        with pytest.raises(CacheError, match="at most 3"):
            store.blobs.read(digest, limit=3)

    def test_an_interrupted_writer_leaves_nothing(self, store):
        with pytest.raises(KeyboardInterrupt), store.blobs.writer() as writer:
            writer.write(b"x")
            raise KeyboardInterrupt
        assert os.listdir(os.path.join(store.root, "run/tmp")) == []
