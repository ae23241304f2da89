"""Notes beside records: the nearest former ones by index, file lists, stores that were made before there were any."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache import keynotes
from cache.errors import StoreCorruptError
from cache.keynotes import KeyNote
from cache.mackey import mac_key
from cache.records import CacheRecord
from cache.store import Store


def note(key: str, **changes: object) -> KeyNote:
    return KeyNote(key, "definition", "p", "s", "RUN", f"op-{key}", f"parent-{key}", 5, b"{}")._replace(**changes)  # type: ignore[arg-type]


def put(store: Store, *notes: KeyNote) -> None:
    for each in notes:
        store.records.put(CacheRecord(each.key, "chain", b"{}", 1, 0.5))
        store.notes.put(each)


def former(store: Store, like: KeyNote) -> set[str]:
    return {found.note.key for found in store.notes.former(like)}


def test_former_records_are_found_by_operation_parent_and_place(store: Store) -> None:
    put(
        store,
        note("operation", operation="x", project="other"),
        note("parent", parent="y", project="other"),
        note("place", stage="z"),
        note("elsewhere", project="other"),
        note("keyword", stage="z", keyword="COPY"),
        note("content", operation="x", kind="content"),
        note("later", operation="x", made_ns=10),
    )
    assert former(store, note("new", operation="x", parent="y", stage="z", made_ns=10)) == {
        "operation",
        "parent",
        "place",
    }


def test_a_key_is_not_its_own_former_record(store: Store) -> None:
    put(store, note("a", operation="x"), note("b", operation="x"))
    assert former(store, note("a", operation="x", made_ns=10)) == {"b"}


def test_the_newest_of_many(store: Store) -> None:
    put(store, *(note(f"{number:02d}", operation="x", made_ns=number) for number in range(60)))
    assert former(store, note("new", operation="x", stage="other", made_ns=50)) == {f"{n:02d}" for n in range(26, 50)}


def test_note_goes_with_its_record(store: Store) -> None:
    put(store, note("a"), note("b"))
    store.records.remove(["a"])
    assert set(store.notes.get(["a", "b"])) == {"b"}
    store.records.put(CacheRecord("b", "another", b"{}", 1, 0.5), replace=True)
    assert set(store.notes.get(["b"])) == {"b"}


def test_file_lists(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.notes.put(note("a"), [("digest", b"a\0f644 x" * 1000), ("empty", b"")])
    store.notes.put(note("b"), [("digest", b"never read again")])
    assert store.notes.file_list("digest") == b"a\0f644 x" * 1000
    assert store.notes.file_list("empty") == b""
    assert store.notes.file_list("unknown") is None
    monkeypatch.setattr(keynotes, "_LISTS_SIZE", 100)
    for number in range(keynotes._PRUNE_EVERY):
        store.notes.put(note("c"), [(str(number), b"%d" % number)])
    assert store.notes.file_list("digest") is None
    assert store.notes.file_list(str(keynotes._PRUNE_EVERY - 1)) is not None


def test_find_is_get_without_manifests(store: Store) -> None:
    put(store, note("a"))
    assert store.records.find(["a", "missing"]) == {"a": CacheRecord("a", "chain", b"", 1, 0.5)}


def test_mac_key_is_made_once(store: Store) -> None:
    first = store.mac_key()
    assert len(first) == 32
    assert store.mac_key() == mac_key(store.root) == first
    path = Path(store.root) / "mac.key"
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"short")
    with pytest.raises(StoreCorruptError, match="expected 32"):
        store.mac_key()
