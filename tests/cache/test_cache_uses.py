"""What a process uses is noted before it is found, so that a pruner that decides meanwhile leaves it."""

from __future__ import annotations

import os
import threading
import time

from cache.digest import sha256_bytes
from cache.snapshots import EMPTY
from cache.store import Store


def committed(store: Store, name: str) -> str:
    active = store.snapshots.prepare(EMPTY)
    with open(f"{active.upper_dir}/{name}", "w") as file:
        file.write(name)
    return store.snapshots.commit(active).chain_id


def test_uses_are_seen_by_others_until_the_process_ends(store):
    with Store.open(store.root) as other:
        name = committed(other, "a")
        blob = other.blobs.put_bytes(b"x")
        missing = sha256_bytes(b"not there")
        assert other.blobs.size(missing) is None
        with store.uses.deciding() as noted:
            assert {name, blob, missing} <= noted
    with store.uses.deciding() as noted:
        assert not noted


def test_looking_around_notes_nothing(store):
    with Store.open(store.root) as other:
        name, blob = committed(other, "a"), other.blobs.put_bytes(b"x")
    store.blobs.peek(blob)
    store.blobs.peek_bytes(blob)
    assert list(store.blobs.walk())
    assert store.snapshots.peek(name)
    assert [snapshot.chain_id for snapshot in store.snapshots.walk()] == [name]
    assert os.listdir(f"{store.root}/run/leases") == []


def test_a_use_waits_for_a_decision_and_then_sees_what_was_decided(store):
    with Store.open(store.root) as other:
        blob = other.blobs.put_bytes(b"x")
    found: list[int | None] = []
    with Store.open(store.root) as builder:
        reader = threading.Thread(target=lambda: found.append(builder.blobs.size(blob)))
        with store.uses.deciding() as noted:
            reader.start()
            time.sleep(0.2)
            assert reader.is_alive()
            assert blob not in noted
            store.blobs.delete(blob)
        reader.join(5)
    assert found == [None]


def test_where_nothing_can_be_noted_a_pruner_waits(store, monkeypatch):
    builder = Store.open(store.root)

    def full(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    builder.uses.hold(["sha256:" + "0" * 64])
    monkeypatch.undo()
    decided = threading.Event()

    def decide() -> None:
        with store.uses.deciding():
            decided.set()

    pruner = threading.Thread(target=decide)
    pruner.start()
    assert not decided.wait(0.3)
    builder.close()
    assert decided.wait(5)
    pruner.join()


def test_a_commit_does_not_wait_for_the_gate_with_the_database_locked(store):
    """Else a pruner, which has the gate and wants the database, and a build would wait for each other."""
    builder = Store.open(store.root)
    active = builder.snapshots.prepare(EMPTY)
    order: list[str] = []

    def commit() -> None:
        builder.snapshots.commit(active)
        order.append("commit")

    with store.uses.deciding():
        worker = threading.Thread(target=commit)
        worker.start()
        time.sleep(0.2)
        with store.database.transaction():
            order.append("prune")
    worker.join(10)
    assert order == ["prune", "commit"]
    builder.close()
