"""Scanning a directory, and not reading files that did not change."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.contenthash import file_digest
from cache.dirscan import FileEntry, scan
from cache.errors import CacheError
from cache.statcache import FileDigests, _decode, _encode
from cache.store import Store


def entries(root: Path) -> dict[str, FileEntry]:
    return scan(str(root)).entries()


def test_a_file_that_is_gone_is_named(tmp_path):
    (tmp_path / "f").write_text("x")
    entry = entries(tmp_path)["f"]
    os.unlink(tmp_path / "f")
    with pytest.raises(CacheError, match=str(tmp_path / "f")):
        file_digest(str(tmp_path / "f"), entry, FileDigests())


def test_a_file_that_changes_after_the_scan_is_an_error(tmp_path):
    (tmp_path / "f").write_text("x")
    entry = entries(tmp_path)["f"]
    (tmp_path / "f").write_text("longer")
    with pytest.raises(CacheError, match="changed"):
        file_digest(str(tmp_path / "f"), entry, FileDigests())


def digest(root: Path, name: str, known: FileDigests) -> str:
    return file_digest(str(root / name), entries(root)[name], known)


@pytest.mark.parametrize("content", [b"", b"x", b"x" * (1 << 20), os.urandom((3 << 20) + 5)])
def test_digests_are_xxh3_of_the_bytes(tmp_path, content):
    (tmp_path / "f").write_bytes(content)
    assert digest(tmp_path, "f", FileDigests()) == xxhash.xxh3_128_hexdigest(content)


def age(path: Path, known: FileDigests, name: str) -> None:
    """Make a digest look as if it was taken long after the file's last change."""
    entry = entries(path)[name]
    known[name] = (entry.size, entry.mtime_ns, entry.ctime_ns, entry.ino, "remembered")


def test_unchanged_files_are_not_read_again(tmp_path):
    (tmp_path / "f").write_text("x")
    known = FileDigests()
    age(tmp_path, known, "f")
    assert digest(tmp_path, "f", known) == "remembered"


@pytest.mark.parametrize("change", ["content", "same size and time", "replaced", "touched"])
def test_changed_files_are_read_again(tmp_path, change):
    path = tmp_path / "f"
    path.write_text("x")
    os.utime(path, (1, 1))
    known = FileDigests()
    age(tmp_path, known, "f")
    time.sleep(0.02)
    if change == "content":
        path.write_text("longer")
    elif change == "same size and time":
        path.write_text("y")
        os.utime(path, (1, 1))
    elif change == "replaced":
        (tmp_path / "g").write_text("z")
        os.utime(tmp_path / "g", (1, 1))
        os.rename(tmp_path / "g", path)
    else:
        os.utime(path)
    assert digest(tmp_path, "f", known) == xxhash.xxh3_128_hexdigest(path.read_bytes())


def test_a_file_that_just_changed_is_not_remembered():
    known = FileDigests()
    now = 10**18
    known.remember("young", (1, now - 10**9, now - 10**9, 5, "d"), now)
    known.remember("future", (1, now + 10**12, 0, 5, "d"), now)
    known.remember("old", (1, now - 10**10, now - 10**10, 5, "d"), now)
    assert list(known) == ["old"]
    known.remember("old", (1, now, now, 5, "e"), now)
    assert list(known) == []


def test_tables_are_kept_per_context(store):
    known = FileDigests()
    known.remember("a/\udcff", (1, 2, 3, 4, "d" * 32), 10**18)
    known.remember("b", (2**40, -5, 2**40, 2**62, "e" * 32), 10**18)
    store.statcache.save("/one", known)
    assert not known.is_changed
    assert store.statcache.load("/one") == known
    assert store.statcache.load("/two") == {}
    known.is_changed = True
    store.statcache.save("/one", known, present={"b"})
    assert list(store.statcache.load("/one")) == ["b"]


def test_an_unchanged_table_is_not_written_again(store):
    known = FileDigests({"a": (1, 2, 3, 4, "d" * 32)})
    store.statcache.save("/one", known)
    assert store.statcache.load("/one") == {}


def test_only_the_newest_tables_are_kept(tmp_path):
    now = [0]

    def clock() -> int:
        now[0] += 1
        return now[0]

    with Store.open(str(tmp_path / "store"), clock=clock) as store:
        for number in range(60):
            known = FileDigests()
            known.remember("a", (1, 2, 3, 4, "d" * 32), 10**18)
            store.statcache.save(str(number), known)
        assert store.statcache.load("59")
        assert not store.statcache.load("0")


NUMBER = st.integers(-(2**63), 2**63 - 1)
PATH = (
    st.text(min_size=1)
    .map(lambda text: text.replace("\0", "-"))
    .filter(lambda text: not any(0xD800 <= ord(letter) < 0xDC80 or 0xDCFF < ord(letter) <= 0xDFFF for letter in text))
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(PATH, st.tuples(NUMBER, NUMBER, NUMBER, NUMBER, st.just("0" * 32))), st.binary(max_size=20))
def test_tables_survive_their_encoding_and_damage_is_an_empty_table(files, junk):
    known = FileDigests(files)
    encoded = _encode(known)
    assert _decode(encoded) == known
    for damaged in (junk, encoded[:-40], b"", encoded[: len(encoded) // 2]):
        assert isinstance(_decode(damaged), FileDigests)
