"""Records, images, the memo, digests and descriptors."""

from __future__ import annotations

import pytest

from cache.descriptor import MEDIA_CONFIG, MEDIA_LAYER_GZIP, Descriptor, oci_layer_type
from cache.digest import Digest, sha256_bytes
from cache.errors import CacheError
from cache.keys import KEY_VERSION, key_of, readable
from cache.records import CacheRecord
from cache.store import Store

ONE, TWO, THREE = (sha256_bytes(bytes([number])) for number in range(3))


def record(key: str, chain: str = "chain") -> CacheRecord:
    return CacheRecord(key, chain, b'{"a": 1}', 5, 0.25)


def test_the_first_writer_of_a_record_wins_unless_told_otherwise(store):
    assert store.records.put(record("k", "first")).chain_id == "first"
    assert store.records.put(record("k", "second")).chain_id == "first"
    assert store.records.get("k") == record("k", "first")
    assert store.records.put(record("k", "third"), replace=True).chain_id == "third"
    assert store.records.get("k").chain_id == "third"


def test_many_records_are_found_at_once(store):
    keys = [str(number) for number in range(1300)]
    for key in keys:
        store.records.put(record(key))
    assert set(store.records.get_many([*keys, "missing"])) == set(keys)
    assert store.records.get_many([]) == {}
    store.records.remove(keys[:1299])
    assert [found.key for found, _ in store.records.walk()] == ["1299"]


def test_records_know_when_they_were_used_last(tmp_path):
    now = [10**18]
    with Store.open(str(tmp_path / "store"), clock=lambda: now[0]) as store:
        store.records.put(record("old"))
        store.records.put(record("used"))
        now[0] += 10**9
        store.records.get("used")
        store.records.touch(["used"])
        assert {found.key: used for found, used in store.records.walk()}["used"] == 10**18
        now[0] += 2 * 3600 * 10**9
        store.records.get("used")
        store.records.touch(["used", "missing"])
        assert [found.key for found, _ in store.records.walk()] == ["old", "used"]
        assert [used for _, used in store.records.walk()] == [10**18, now[0]]


def test_images_are_found_by_name_and_by_digest(store):
    tagged = store.images.tag("docker.io/library/app:1", ONE, TWO)
    assert store.images.get("docker.io/library/app:1") == tagged
    for digest in (ONE, TWO, ONE.hex, TWO.hex[:12], TWO[:20]):
        assert store.images.find(digest) == tagged
    for wrong in (THREE, "", "sha256:", "xyz", "docker.io/library/app:1", ONE.hex + "0"):
        assert store.images.find(wrong) is None


def test_a_name_means_one_image_and_an_image_may_have_many_names(store):
    store.images.tag("a", ONE, TWO)
    store.images.tag("b", ONE, TWO)
    store.images.tag("a", THREE, TWO)
    assert [(image.name, image.manifest_digest) for image in store.images.walk()] == [("a", THREE), ("b", ONE)]
    with pytest.raises(CacheError, match="ambiguous"):
        store.images.find(TWO)
    assert store.images.untag("a").manifest_digest == THREE
    assert store.images.untag("a") is None
    assert store.images.find(TWO).name == "b"


def test_images_without_a_name_are_kept_by_their_manifest(store):
    for _ in range(2):
        store.images.tag("", ONE, TWO)
        store.images.tag("", THREE, TWO)
    assert {image.manifest_digest for image in store.images.walk()} == {ONE, THREE}
    assert store.images.get("") is None
    store.images.forget(ONE)
    assert store.images.find(ONE) is None
    store.images.tag("named", THREE, TWO)
    assert store.images.find(THREE).name == "named"


def test_tagging_again_keeps_the_time(tmp_path):
    now = [5]
    with Store.open(str(tmp_path / "store"), clock=lambda: now[0]) as store:
        store.images.tag("a", ONE, TWO)
        now[0] = 9
        assert store.images.tag("a", ONE, TWO).created_ns == 5
        assert store.images.tag("a", TWO, TWO).created_ns == 9


def test_the_memo_keeps_the_newest_thousand(store):
    with store.database.transaction():
        for number in range(1005):
            store.memo.put(str(number), b"%d" % number)
        store.memo.put("5", b"again")
    assert store.memo.get("4") is None
    assert store.memo.get("5") == b"again"
    assert store.memo.get("6") == b"6"
    store.memo.put("new", b"\0")
    assert store.memo.get("6") is None
    assert store.memo.get("5") == b"again"
    assert store.memo.get("new") == b"\0"


def test_a_fixed_manifest_has_a_pinned_key():
    """When this moves without a new KEY_VERSION, records that were written before mean something else."""
    manifest = {
        "op": "exec",
        "argv": ["/bin/sh", "-c", "echo hi"],
        "env": {"PATH": "/bin", "B": "é\udcff"},
        "inputs": ["sha256:abc", None],
        "read_only": False,
        "mode": 420,
    }
    assert KEY_VERSION == 2
    assert key_of(manifest) == "ec9eb985bf6b215218ca56f89a4b49d2863690ab669c69462df1ecc744c1a369"
    assert key_of(dict(reversed(manifest.items()))) == key_of(manifest)
    assert readable({"b": [1], "a": "x"}) == b'{\n "a": "x",\n "b": [\n  1\n ]\n}\n'


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": "1"}, {"a": 1}),
        ({"a": 1}, {"a": True}),
        ({"a": None}, {}),
        ({"a": ["b", "c"]}, {"a": ["bc"]}),
        ({"a": []}, {"a": {}}),
        ({"a": "\udcff"}, {"a": "\\udcff"}),
        ({"a": 1.0}, {"a": 1}),
    ],
)
def test_different_manifests_have_different_keys(one, other):
    assert key_of(one) != key_of(other)


@pytest.mark.parametrize("manifest", [{1: "a"}, {"a": {2: 3}}, {"a": b"x"}, {"a": float("nan")}, {"a": {"s"}}])
def test_what_json_cannot_say_has_no_key(manifest):
    with pytest.raises((TypeError, ValueError)):
        key_of(manifest)


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:" + "A" * 64, "sha512:" + "a" * 128, "a" * 64, "sha256:" + "a" * 63]
)
def test_malformed_digests_are_refused(text):
    with pytest.raises(CacheError, match="digest"):
        Digest.parse(text)


def test_digests_are_strings_with_parts():
    digest = Digest.parse("sha256:" + "ab" * 32)
    assert (digest.algorithm, digest.hex) == ("sha256", "ab" * 32)
    assert digest == "sha256:" + "ab" * 32


def test_descriptors_are_written_and_read():
    full = Descriptor(MEDIA_CONFIG, ONE, 5, {"k": "v"}, {"os": "linux", "architecture": "amd64"})
    assert Descriptor.from_json(full.to_json()) == full
    assert list(full.to_json()) == ["mediaType", "digest", "size", "annotations", "platform"]
    assert Descriptor.from_json({"digest": ONE, "size": 0, "more": 1}) == Descriptor("", ONE, 0)
    assert oci_layer_type("application/vnd.docker.image.rootfs.diff.tar.gzip") == MEDIA_LAYER_GZIP
    for wrong in (
        [],
        {},
        {"digest": ONE},
        {"digest": "x", "size": 1},
        {"digest": ONE, "size": -1},
        {"digest": ONE, "size": True},
    ):
        with pytest.raises(CacheError):
            Descriptor.from_json(wrong)
