"""Opening, refusing and sharing a store; full disks, damaged files, killed processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.digest import sha256_bytes
from cache.errors import CacheError, StoreCorruptError, StoreFullError, StoreVersionError
from cache.records import CacheRecord
from cache.snapshots import EMPTY
from cache.store import Store

PROJECT = str(Path(__file__).resolve().parents[2])


def snapshot_ids(store: Store) -> list[str]:
    return sorted(name for name in os.listdir(os.path.join(store.root, "snapshots")) if name.isdecimal())


def run_python(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": PROJECT}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, stdout=subprocess.PIPE)


def test_a_store_is_made_once_and_opened_again(tmp_path):
    path = str(tmp_path / "deep" / "store")
    with Store.open(path) as store:
        digest = store.blobs.put_bytes(b"content")
    with Store.open(path) as store:
        assert store.blobs.read(digest) == b"content"
    assert Path(path, "version").read_text() == "1\n"


def test_a_store_is_private_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        with Store.open(str(tmp_path / "store")) as store:
            assert os.stat(store.root).st_mode & 0o777 == 0o700
        os.umask(0o077)
        with Store.open(str(tmp_path / "other")) as store:
            assert os.stat(store.snapshots.empty_dir).st_mode & 0o777 == 0o755
            assert os.stat(store.snapshots.prepare(EMPTY).upper_dir).st_mode & 0o777 == 0o755
    finally:
        os.umask(before)


@pytest.mark.parametrize("version", ["2\n", "", "nonsense\xff"])
def test_an_unknown_format_is_refused(tmp_path, version):
    Store.open(str(tmp_path / "store")).close()
    (tmp_path / "store/version").write_text(version)
    with pytest.raises(StoreVersionError) as caught:
        Store.open(str(tmp_path / "store"))
    assert caught.value.hint


def test_an_unknown_database_format_is_refused(tmp_path):
    with Store.open(str(tmp_path / "store")) as store:
        store.database.write("PRAGMA user_version=99")
    with pytest.raises(StoreVersionError, match="99"):
        Store.open(str(tmp_path / "store"))


def test_a_directory_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(CacheError, match=r"thesis\.txt"):
        Store.open(str(tmp_path))
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_a_store_that_was_never_finished_is_completed(tmp_path):
    (tmp_path / "store/blobs").mkdir(parents=True)
    (tmp_path / "store/version.0123.tmp").write_text("")
    with Store.open(str(tmp_path / "store")) as store:
        assert store.blobs.put_bytes(b"x")


def test_a_path_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CacheError, match="file"):
        Store.open(str(tmp_path / "file"))


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_garbage_database_is_named_and_can_be_removed(tmp_path, content):
    with Store.open(str(tmp_path / "store")) as store:
        digest = store.blobs.put_bytes(b"kept")
        store.snapshots.commit(store.snapshots.prepare(EMPTY))
    path = tmp_path / "store/index.db"
    path.write_bytes(content)
    with pytest.raises(StoreCorruptError, match=r"index\.db") as caught:
        Store.open(str(tmp_path / "store")).records.get("x")
    assert str(path) in str(caught.value.hint)
    for name in ("index.db", "index.db-wal", "index.db-shm"):
        (tmp_path / "store" / name).unlink(missing_ok=True)
    with Store.open(str(tmp_path / "store")) as store:
        assert store.blobs.read(digest) == b"kept"
        active = store.snapshots.prepare(EMPTY)
        assert snapshot_ids(store) == [str(active.snapshot_id)]
        Path(active.upper_dir, "a").write_text("a")
        assert store.snapshots.get(store.snapshots.commit(active).chain_id)


def test_a_database_damaged_in_the_middle_is_reported(tmp_path):
    with Store.open(str(tmp_path / "store")) as store:
        for number in range(500):
            store.memo.put(str(number), b"v" * 500)
    path = tmp_path / "store/index.db"
    content = bytearray(path.read_bytes())
    content[8192:] = os.urandom(len(content) - 8192)
    path.write_bytes(content)
    with pytest.raises(StoreCorruptError), Store.open(str(tmp_path / "store")) as store:
        for number in range(500):
            store.memo.get(str(number))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def fill(path: Path, leave: int = 0) -> Path:
    filler = path / "filler"
    status = os.statvfs(path)
    filler.write_bytes(bytes(max(0, status.f_bavail * status.f_bsize - leave)))
    return filler


def test_a_full_disk_is_said_so_and_the_store_works_afterwards(small_disk):
    with Store.open(str(small_disk / "store")) as store:
        kept = store.blobs.put_bytes(b"kept")
        active = store.snapshots.prepare(EMPTY)
        Path(active.upper_dir, "a").write_text("a")
        filler = fill(small_disk)
        with pytest.raises(StoreFullError) as caught:
            store.blobs.put([b"x" * 100_000] * 100)
        assert caught.value.hint
        with pytest.raises(StoreFullError):
            for number in range(10_000):
                store.memo.put(str(number), b"v" * 3000)
        filler.unlink()
        assert store.blobs.read(kept) == b"kept"
        assert store.snapshots.commit(active).layers[0].entries == 1
        assert os.listdir(small_disk / "store/run/tmp") == []
        store.memo.put("key", b"value")
        assert store.memo.get("key") == b"value"


def test_a_store_cannot_be_made_on_a_full_disk(small_disk):
    filler = fill(small_disk)
    with pytest.raises(StoreFullError):
        Store.open(str(small_disk / "store"))
    filler.unlink()
    with Store.open(str(small_disk / "store")) as store:
        assert store.blobs.put_bytes(b"x")


def test_a_layer_that_does_not_fit_is_removed_again(small_disk, tmp_path):
    from tars import entry, tar

    from cache.descriptor import MEDIA_LAYER_GZIP, Descriptor

    content = tar(entry("big", b"\0" * 8_000_000))
    with Store.open(str(small_disk / "store")) as store:
        import gzip

        digest, size = store.blobs.put([gzip.compress(content)])
        snapshot = store.snapshots.add_layer_blob(
            EMPTY, sha256_bytes(content), Descriptor(MEDIA_LAYER_GZIP, digest, size)
        )
        with pytest.raises(StoreFullError):
            store.snapshots.lower_dirs(snapshot)
        assert os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize > 1_000_000


CRASHING = """
import os, signal, sys
left = int(sys.argv[2])

def fatal(function):
    def call(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

from cache.database import Database
from cache.snapshots import EMPTY
from cache.store import Store
from cache.records import CacheRecord
for name in ("mkdir", "rename", "unlink", "rmdir", "fsync", "write"):
    setattr(os, name, fatal(getattr(os, name)))
Database.write = fatal(Database.write)
with Store.open(sys.argv[1]) as store:
    snapshot = EMPTY
    for step in range(2):
        active = store.snapshots.prepare(snapshot)
        with open(f"{active.upper_dir}/{step}", "w") as file:
            file.write(str(step))
        snapshot = store.snapshots.commit(active)
        store.layers.blob(snapshot.layers[-1])
        store.records.put(CacheRecord(str(step), snapshot.chain_id, b"{}", 0, 0.0))
    store.snapshots.discard(store.snapshots.prepare(snapshot))
print("done")
"""


def test_a_process_killed_at_any_point_leaves_a_store_that_works(tmp_path):
    for point in range(200):
        root = str(tmp_path / str(point))
        child = run_python(CRASHING, root, str(point))
        output, _ = child.communicate()
        with Store.open(root) as store:
            check_store(store)
        if b"done" in output:
            break
    assert 30 < point < 199


def check_store(store: Store) -> None:
    """What is recorded is there, what is there is whole, and the next step sweeps the rest."""
    for record, _ in store.records.walk():
        assert store.snapshots.get(record.chain_id) is not None
    for snapshot in store.snapshots.walk():
        assert [
            Path(path, str(len(snapshot.layers) - 1 - i)).read_text()
            for i, path in enumerate(store.snapshots.lower_dirs(snapshot))
        ] == [str(i) for i in reversed(range(len(snapshot.layers)))]
        store.layers.blob(snapshot.layers[-1])
    for digest, _ in store.blobs.walk():
        store.blobs.read(digest)
    active = store.snapshots.prepare(EMPTY)
    known = {str(layer.layer_id) for snapshot in store.snapshots.walk() for layer in snapshot.layers}
    assert set(snapshot_ids(store)) == known | {str(active.snapshot_id)}
    assert os.listdir(os.path.join(store.root, "run", "tmp")) == []
    store.snapshots.discard(active)


HOLDING = """
import sys, time
from cache.snapshots import EMPTY
from cache.store import Store
store = Store.open(sys.argv[1])
active = store.snapshots.prepare(EMPTY)
opened = store.blobs.writer()
opened.__enter__().write(b"x")
print(active.snapshot_id, flush=True)
time.sleep(600)
"""


def test_what_a_live_process_is_making_is_not_swept_and_what_a_dead_one_made_is(tmp_path):
    root = str(tmp_path / "store")
    child = run_python(HOLDING, root)
    assert child.stdout is not None
    held = child.stdout.readline().decode().strip()
    with Store.open(root) as store:
        own = store.snapshots.prepare(EMPTY)
        assert snapshot_ids(store) == sorted([held, str(own.snapshot_id)])
        assert len(os.listdir(tmp_path / "store/run/tmp")) == 1
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    with Store.open(root) as store:
        assert held in snapshot_ids(store)  # opening sweeps nothing
        own = store.snapshots.prepare(EMPTY)
        assert snapshot_ids(store) == [str(own.snapshot_id)]
        assert os.listdir(tmp_path / "store/run/tmp") == []
        assert len(os.listdir(tmp_path / "store/run/leases")) == 1


def test_two_processes_that_make_the_same_store_at_once_both_succeed(tmp_path):
    code = "import sys; from cache.store import Store; Store.open(sys.argv[1]).memo.put(sys.argv[2], b'x')"
    children = [run_python(code, str(tmp_path / "store"), str(number)) for number in range(6)]
    assert [child.wait() for child in children] == [0] * 6
    for child in children:
        assert child.stdout is not None
        child.stdout.close()
    with Store.open(str(tmp_path / "store")) as store:
        assert all(store.memo.get(str(number)) for number in range(6))


def test_a_store_is_shared_by_threads(store):
    import threading

    def work(number: int) -> None:
        for step in range(20):
            active = store.snapshots.prepare(EMPTY)
            Path(active.upper_dir, f"f{step}").write_text("x")
            os.utime(Path(active.upper_dir, f"f{step}"), (1, 1))
            chains[number].append(store.snapshots.commit(active).chain_id)

    chains: list[list[str]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(chain == chains[0] for chain in chains)
    assert len(snapshot_ids(store)) == 20


def test_opening_and_asking_writes_nothing(store, tmp_path):
    store.records.put(CacheRecord("key", "chain", b"{}", 1, 0.5))
    store.close()
    before = sorted((str(path), path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file())
    time.sleep(0.01)
    with Store.open(store.root) as again:
        again.records.touch(again.records.get_many(["key", "other"]))
        assert again.snapshots.get("sha256:" + "0" * 64) is None
    after = sorted((str(path), path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file())
    assert after == before
