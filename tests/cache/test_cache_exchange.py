"""The document that travels with a cache, and layers on arrival."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import tarwriter
from cache.arrival import receive, stack_received
from cache.descriptor import MEDIA_LAYER_GZIP, Descriptor
from cache.digest import Digest, sha256_bytes
from cache.errors import BlobCorruptError, CacheError, LayerError
from cache.exchange import MEDIA_FILE_LIST, TravellingLayer, TravellingRecord, decode, encode, make_index
from cache.keys import key_of
from cache.snapshots import EMPTY, Snapshot
from cache.store import Store
from cache.tarcontent import content_digest, describe


def layer(number: int) -> TravellingLayer:
    blob = Descriptor(MEDIA_LAYER_GZIP, sha256_bytes(b"blob %d" % number), 100 + number)
    return TravellingLayer(sha256_bytes(b"tar %d" % number), blob, f"{number:032x}", 1024)


def record(manifest: dict[str, Any], diff_id: Digest | None) -> TravellingRecord:
    return TravellingRecord({key_of(manifest): manifest}, diff_id, 1_700_000_000_000_000_000, 0.5)


def test_what_is_written_is_read_again() -> None:
    layers = [layer(number) for number in range(3)]
    records = [record({"op": str(number)}, layers[number].diff_id) for number in range(3)] + [record({}, None)]
    records[1] = records[1]._replace(note={"text": "RUN x", "lines": [1, 1]})
    lists = {"a" * 64: Descriptor(MEDIA_FILE_LIST, sha256_bytes(b"list"), 4)}
    index = make_index(layers, records, {"/id": (layer(7), layer(8))}, lists)
    again = decode(encode(index), index.blobs())
    assert again == index
    assert all(offer.is_sound for offer in again.offers.values())


@given(st.permutations(range(5)))
def test_the_order_does_not_matter(order: list[int]) -> None:
    layers = [layer(number) for number in order]
    records = [record({"op": str(number)}, layer(number).diff_id) for number in order]
    expected = make_index(
        [layer(number) for number in range(5)], [record({"op": str(n)}, layer(n).diff_id) for n in range(5)]
    )
    assert encode(make_index(layers, records)) == encode(expected)


def test_the_format_is_pinned() -> None:
    raw = encode(make_index([layer(1)], [record({"op": "exec", "inputs": []}, layer(1).diff_id)], {"/id": (layer(2),)}))
    assert sha256_bytes(raw) == "sha256:" + PINNED, raw.decode()
    noted = record({"op": "file", "inputs": []}, layer(1).diff_id)._replace(note={"stage": "build"})
    listed = Descriptor(MEDIA_FILE_LIST, sha256_bytes(b"list"), 4)
    raw = encode(make_index([layer(1)], [noted], {}, {"0" * 64: listed}))
    assert sha256_bytes(raw) == "sha256:" + PINNED_WITH_NOTES, raw.decode()


PINNED_WITH_NOTES = "8bfb9dc8e14e01ec6799a8983004f8fe6c933ca0f284b09d573d04a7b94873ae"
PINNED = "dd164a657339460ad3faf9c5861def80bfc96978d181a93d1a48eb108586397d"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, st.sampled_from(["version", "layers", "records", "mounts", "files"]))
def test_anything_else_is_a_cache_error(value: Any, name: str) -> None:
    index = make_index([layer(1)], [record({"op": "x"}, layer(1).diff_id)])
    document = {**json.loads(encode(index)), name: value}
    try:
        decode(json.dumps(document).encode(), index.blobs())
    except CacheError:
        return
    assert value == [] or (name == "version" and value == 1)


@given(st.binary(max_size=50))
def test_bytes_that_are_no_index(raw: bytes) -> None:
    with pytest.raises(CacheError):
        decode(raw, [])


def test_the_content_digest_of_a_stream_is_that_of_the_tree(
    store: Store, build: Callable[..., Snapshot], tmp_path: Path
) -> None:
    def step(root: Path) -> None:
        (root / "d").mkdir()
        (root / "d/file").write_text("x" * 1000)
        (root / "d/link").symlink_to("file")
        (root / "hard").hardlink_to(root / "d/file")
        (root / ("long" * 40)).write_text("é")

    def more(root: Path) -> None:
        (root / "hard").unlink()
        (root / "d/ü").write_text("")

    for snapshot in (base := build(step), build(more, base)):
        made = snapshot.layers[-1]
        tar = b"".join(store.layers.tar_stream(made))
        assert content_digest(io.BytesIO(tar)) == made.content_digest
        assert describe(iter([tar[:700], tar[700:]])) == (made.content_digest, made.size)


def arriving(content: bytes = b"hello") -> tuple[TravellingLayer, bytes]:
    entry = tarwriter.TarEntry(b"file", tarwriter.REGULAR, 0o644, 0, 0, len(content), 0)
    tar = tarwriter.encode(entry) + content + tarwriter.padding(len(content)) + tarwriter.END
    raw = gzip.compress(tar, mtime=0)
    blob = Descriptor(MEDIA_LAYER_GZIP, sha256_bytes(raw), len(raw))
    return TravellingLayer(sha256_bytes(tar), blob, content_digest(io.BytesIO(tar)), len(tar)), raw


def test_arrival(store: Store) -> None:
    promised, raw = arriving()
    receive(store.blobs, promised, io.BytesIO(raw), lambda _: None)
    snapshot = stack_received(store.snapshots, EMPTY, promised)
    assert snapshot.layers[-1].content_digest == promised.content_digest
    assert (Path(store.snapshots.lower_dirs(snapshot)[0]) / "file").read_text() == "hello"


@pytest.mark.parametrize(
    ("lie", "error"),
    [
        ({"diff_id": sha256_bytes(b"another")}, LayerError),
        ({"content_digest": "0" * 32}, LayerError),
        ({"tar_size": 512}, LayerError),
        ({"tar_size": 1 << 60}, LayerError),
        ({"blob": Descriptor(MEDIA_LAYER_GZIP, sha256_bytes(b"x"), 200)}, BlobCorruptError),
        ({"blob": Descriptor(MEDIA_LAYER_GZIP, sha256_bytes(b"x"), 5)}, LayerError),
    ],
)
def test_nothing_is_kept_of_a_layer_that_is_not_what_was_promised(
    store: Store, lie: dict[str, Any], error: type[Exception]
) -> None:
    promised, raw = arriving()
    with pytest.raises(error):
        receive(store.blobs, promised._replace(**lie), io.BytesIO(raw), lambda _: None)
    assert list(store.blobs.walk()) == []


def test_a_bomb_ends_where_it_says_it_does(store: Store) -> None:
    promised, raw = arriving(bytes(200 << 20))
    with pytest.raises(LayerError, match="is longer than"):
        receive(store.blobs, promised._replace(tar_size=4096), io.BytesIO(raw), lambda _: None)
    assert list(store.blobs.walk()) == []
