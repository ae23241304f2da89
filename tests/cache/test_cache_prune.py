"""Pruning: what goes first, what stays whatever is asked, how much is given back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cache.ballast import put_ballast
from cache.cachemounts import digest_of
from cache.check import DAMAGE, check
from cache.diskuse import Meter
from cache.errors import StoreFullError
from cache.holding import Roots
from cache.prune import Outside, Policy, prune
from cache.records import CacheRecord
from cache.snapshots import EMPTY
from cache.store import Store
from cache.usage import Survey

PROJECT = str(Path(__file__).resolve().parents[2])
HOUR = 3600 * 10**9
KIB = 1024


class World:
    """A store with a clock that can be set, and roots that can be named."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 1_000_000 * HOUR
        self.chains: dict[str, frozenset[str]] = {}
        self.blobs: dict[str, frozenset[str]] = {}
        self.outside = Outside(lambda: Roots(self.chains, self.blobs), tuple, dict)

    def open(self) -> Store:
        return Store.open(str(self.root), clock=lambda: self.now)

    def layer(self, name: str, size: int = 100 * KIB, parent: str = "", *, recorded: bool = True) -> str:
        """A layer with a file of so many bytes, made by a process of its own and used now."""
        with self.open() as store:
            base = store.snapshots.get(parent) if parent else EMPTY
            assert base is not None
            active = store.snapshots.prepare(base)
            Path(active.upper_dir, name).write_bytes(name.encode() * (size // len(name)))
            chain = store.snapshots.commit(active).chain_id
            if recorded:
                store.records.put(CacheRecord(f"key-{name}", chain, b"{}", self.now, 0.0))
        return chain

    def prune(self, *policies: Policy) -> list[str]:
        """What was removed, as ids in their order."""
        with self.open() as store:
            return [entry.id for entry in prune(store, self.outside, policies or [Policy()], self.now).entries]

    def left(self) -> set[str]:
        with self.open() as store:
            return {snapshot.chain_id for snapshot in store.snapshots.walk()}

    def used(self) -> int:
        return Meter.of(str(self.root)).size(str(self.root))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "store")


def test_without_limits_all_that_nobody_needs_goes(world):
    bottom = world.layer("bottom")
    kept = world.layer("kept", parent=bottom)
    world.layer("gone", parent=bottom)
    world.chains[kept] = frozenset(["image x"])
    before = world.used()
    assert world.prune() == ["snapshots/3"]
    assert world.left() == {bottom, kept}
    assert before - world.used() >= 100 * KIB
    assert sorted(os.listdir(world.root / "snapshots")) == ["1", "2", "empty"]
    world.chains.clear()
    assert world.prune() == ["snapshots/2", "snapshots/1"]
    with world.open() as store:
        assert list(store.records.walk()) == []


def test_the_least_recently_used_goes_first_and_parents_after_children(world):
    old = world.layer("old")
    world.now += HOUR
    middle = world.layer("middle")
    world.now += HOUR
    world.layer("child", parent=old)
    world.now += HOUR
    limit = Policy(max_used=world.used() - 150 * KIB)
    assert world.prune(limit) == ["snapshots/2", "snapshots/3"]
    assert world.left() == {old}
    assert middle not in world.left()


def test_a_touched_record_keeps_its_layer_longer(world):
    first = world.layer("first")
    world.now += HOUR
    second = world.layer("second")
    world.now += 5 * HOUR
    with world.open() as store:
        store.records.get("key-first")
        store.records.touch(["key-first"])
    world.prune(Policy(max_used=world.used() - 50 * KIB))
    assert world.left() == {first}
    assert second not in world.left()


def test_keep_duration(world):
    world.layer("old")
    world.now += 10 * HOUR
    young = world.layer("young")
    assert world.prune(Policy(keep_ns=5 * HOUR)) == ["snapshots/1"]
    assert world.left() == {young}


def test_an_old_base_of_a_young_layer_stays(world):
    base = world.layer("base")
    world.now += 10 * HOUR
    young = world.layer("young", parent=base)
    assert world.prune(Policy(keep_ns=5 * HOUR)) == []
    assert world.left() == {base, young}


@pytest.mark.parametrize(
    ("policy", "used", "free", "keep"),
    [
        (Policy(), 100, 5, 0),
        (Policy(max_used=60), 100, 5, 60),
        (Policy(reserved=30), 100, 5, 30),
        (Policy(max_used=20, reserved=30), 100, 5, 30),
        (Policy(min_free=25), 100, 5, 80),
        (Policy(min_free=25), 100, 25, 100),
        (Policy(min_free=25, max_used=90), 100, 5, 80),
        (Policy(min_free=25, max_used=70), 100, 5, 70),
        (Policy(min_free=1000, reserved=30), 100, 5, 30),
    ],
)
def test_how_much_may_stay(policy, used, free, keep):
    assert policy.to_keep(used, free) == keep


def test_policies_are_carried_out_in_their_order(world):
    world.layer("old")
    world.now += 10 * HOUR
    world.layer("young")
    gone = world.prune(Policy(keep_ns=5 * HOUR), Policy(max_used=1))
    assert gone == ["snapshots/1", "snapshots/2"]


def test_types_and_ids(world):
    world.layer("a")
    world.layer("b")
    with world.open() as store, ExitStack() as stack:
        digest = digest_of("my-cache")
        number = store.cache_mounts.take(digest, "locked", stack)
        with store.cache_mounts.filling(digest, number) as directory:
            Path(str(directory), "x").write_bytes(b"x" * 10_000)
        store.cache_mounts.note_use(digest, number, "my-cache")
        stack.close()
    assert world.prune(Policy(types=frozenset(["blob"]))) == []
    assert world.prune(Policy(ids=frozenset(["another-cache"]))) == []
    assert world.prune(Policy(ids=frozenset(["my-cache"]))) == [f"cache-mounts/{digest}/0"]
    assert world.prune(Policy(ids=frozenset(["snapshots/2"]))) == ["snapshots/2"]
    assert world.prune(Policy(types=frozenset(["regular"]))) == ["snapshots/1"]


def test_what_a_process_uses_stays(world):
    name, other = world.layer("used"), world.layer("other")
    with world.open() as builder:
        assert builder.snapshots.get(name) is not None
        made = builder.snapshots.prepare(EMPTY)
        blob = builder.blobs.put_bytes(b"a blob of a running build")
        assert world.prune(Policy(all=True)) == ["snapshots/2"]
        assert os.path.isdir(made.upper_dir)
        assert builder.blobs.read(blob)
        assert world.left() == {name}
        assert other not in world.left()
    assert len(world.prune(Policy(all=True))) == 2


def test_a_cache_mount_in_use_stays(world):
    digest = digest_of("c")
    with world.open() as builder, ExitStack() as stack:
        number = builder.cache_mounts.take(digest, "shared", stack)
        with builder.cache_mounts.filling(digest, number):
            pass
        assert world.prune() == []
        stack.close()
        assert world.prune() == [f"cache-mounts/{digest}/0"]
    assert os.listdir(world.root / "cache-mounts") == []


def test_blobs_of_layers_go_with_them_and_others_when_nothing_refers_to_them(world):
    name, other = world.layer("a"), world.layer("b")
    world.chains[other] = frozenset(["image b"])
    with world.open() as store:
        for chain in (name, other):
            snapshot = store.snapshots.get(chain)
            assert snapshot is not None
            store.layers.blob(snapshot.layers[-1])
        store.blobs.put_bytes(b"nothing refers to this one")
        document = store.blobs.put_bytes(b"a document of an image")
    world.blobs[document] = frozenset(["image b"])
    gone = world.prune()
    assert [identity.partition("/")[0] for identity in gone].count("blobs") == 2
    with world.open() as store:
        assert len(list(store.blobs.walk())) == 2
        assert world.prune(Policy(all=True))
        assert [digest for digest, _ in store.blobs.walk()] == [document]
        found = store.snapshots.get(other)
        assert found is not None
        assert store.layers.blob(found.layers[-1])


def test_a_layer_that_two_chains_share_goes_with_the_last_one(world):
    base = world.layer("base")
    top = world.layer("top", parent=base)
    with world.open() as store:
        found = store.snapshots.get(top)
        assert found is not None
        alone = store.snapshots.stack(EMPTY, found.layers[-1]).chain_id
    world.chains[alone] = frozenset(["image x"])
    assert world.prune() == ["snapshots/1"]
    assert world.left() == {alone}
    with world.open() as store:
        (directory,) = store.snapshots.lower_dirs(store.snapshots.get(alone) or EMPTY)
        assert Path(directory, "top").exists()


def test_records_that_lead_nowhere_go(world):
    with world.open() as store:
        store.records.put(CacheRecord("dangling", "sha256:" + "0" * 64, b"{}", 0, 0.0))
        store.records.put(CacheRecord("empty", "", b"{}", 0, 0.0))
        world.prune(Policy(max_used=1 << 40))
        assert [record.key for record, _ in store.records.walk()] == ["empty"]
        world.prune(Policy(all=True))
        assert list(store.records.walk()) == []


def test_the_database_gives_its_pages_back(world):
    with world.open() as store, store.database.transaction():
        for number in range(20_000):
            store.records.put(CacheRecord(f"{number:064}", "sha256:" + "0" * 64, b"m" * 300, 0, 0.0))
    before = os.path.getsize(world.root / "index.db")
    world.prune()
    assert os.path.getsize(world.root / "index.db") < before / 10


def test_a_database_of_the_first_format_gives_its_pages_back(tmp_path):
    from golden_store import restore

    root = restore(1, tmp_path / "store")
    with Store.open(str(root)) as store:
        for number in range(2000):
            store.records.put(CacheRecord(f"{number:064}", "sha256:" + "0" * 64, b"m" * 300, 0, 0.0))
        outside = Outside(Roots, tuple, dict)
        prune(store, outside, [Policy(max_used=1 << 40)], 0)
        assert store.database.rows("PRAGMA freelist_count") == [(0,)]
        assert store.database.rows("PRAGMA auto_vacuum") == [(2,)]


def test_sizes_add_up_to_what_du_says(world):
    base = world.layer("base")
    world.layer("top", parent=base)
    with world.open() as store:
        deep = store.snapshots.prepare(EMPTY)
        os.chdir(deep.upper_dir)
        try:
            for number in range(300):
                os.mkdir(f"deep{number:020}")
                os.chdir(f"deep{number:020}")
            Path("file").write_bytes(b"x" * 50_000)
            os.link("file", "same")
        finally:
            os.chdir("/")
        Path(deep.upper_dir, "sparse").touch()
        os.truncate(Path(deep.upper_dir, "sparse"), 1 << 30)
        store.snapshots.commit(deep)
        store.blobs.put_bytes(b"b" * 70_000)
        entries = Survey(store, Roots(), (), {}).entries()
        words = ["du", "-sx", "--block-size=1", str(world.root)]
        counted = int(subprocess.run(words, capture_output=True, check=True).stdout.split()[0])
    assert sum(entry.size for entry in entries) == counted
    assert len({entry.id for entry in entries}) == len(entries)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_can_be_pruned(small_disk):
    world = World(small_disk / "store")
    for number in range(6):
        world.layer(f"layer{number}", 300 * KIB)
    put_ballast(str(world.root), plenty=0)  # a store on a disk of a usual size has it
    disk = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(disk.f_bavail * disk.f_bsize))
    with world.open() as store:
        with pytest.raises(StoreFullError):
            store.blobs.put([b"x" * 100_000] * 100)
        assert len(prune(store, world.outside, [Policy()], world.now).entries) == 6
    disk = os.statvfs(small_disk)
    assert disk.f_bavail * disk.f_bsize > 1_500 * KIB
    assert world.left() == set()


KILLED = """
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
from cache.holding import Roots
from cache.prune import Outside, Policy, prune
from cache.store import Store
for name in ("unlink", "rmdir", "rename", "open"):
    setattr(os, name, fatal(getattr(os, name)))
Database.write = fatal(Database.write)
with Store.open(sys.argv[1]) as store:
    prune(store, Outside(Roots, tuple, dict), [Policy()], 1 << 62)
print("done")
"""


def test_a_pruner_that_is_killed_anywhere_leaves_nothing_wrong(world):
    world.root.mkdir()
    for point in range(0, 400, 3):
        inner = World(world.root / str(point))
        inner.layer("top", 1000, parent=inner.layer("base", 1000))
        words = [sys.executable, "-c", KILLED, str(inner.root), str(point)]
        done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        with inner.open() as store:
            assert [found for found in check(store, inner.outside) if found.severity == DAMAGE] == []
        assert inner.layer("base", 1000) in inner.left()
        inner.prune()
        assert inner.left() == set()
        assert os.listdir(inner.root / "snapshots") == ["empty"]
        if "done" in done.stdout:
            break
    assert 10 < point < 399


def test_order_of_use_survives_damaged_rows(world):
    """Chains that stand on each other in a circle, which no program of ours writes."""
    one, two = world.layer("one"), world.layer("two")
    with world.open() as store:
        store.database.write("UPDATE snapshots SET parent = ? WHERE chain_id = ?", (two, one))
        store.database.write("UPDATE snapshots SET parent = ? WHERE chain_id = ?", (one, two))
    world.prune()
