"""A disk that refuses, at every single point at which the store writes: a clear error, and nothing wrong afterwards."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cache.cachemounts import digest_of
from cache.check import DAMAGE, check
from cache.digest import Digest
from cache.errors import CacheError
from cache.holding import Roots
from cache.prune import Outside, Policy, prune
from cache.records import CacheRecord
from cache.snapshots import EMPTY
from cache.store import Store
from tests.faults import disk_errors

OUTSIDE = Outside(Roots, tuple, dict)


def work(root: str) -> list[str]:
    """What a build does to a store, and a prune; the chains that it made."""
    from contextlib import ExitStack

    chains = []
    with Store.open(root) as store, ExitStack() as stack:
        snapshot = EMPTY
        for step in range(2):
            active = store.snapshots.prepare(snapshot)
            try:
                path = Path(active.upper_dir, str(step))
                path.write_text(str(step))
                os.utime(path, (1, 1))
                snapshot = store.snapshots.commit(active)
            except BaseException:
                store.snapshots.discard(active)
                raise
            chains.append(snapshot.chain_id)
            blob, _ = store.layers.blob(snapshot.layers[-1])
            store.records.put(CacheRecord(f"key{step}", snapshot.chain_id, b"{}", 0, 0.0))
        store.images.tag("image", blob.digest, Digest(blob.digest))
        number = store.cache_mounts.take(digest_of("c"), "locked", stack)
        with store.cache_mounts.filling(digest_of("c"), number) as directory:
            if directory:
                Path(directory, "x").write_text("x")
        store.cache_mounts.note_use(digest_of("c"), number, "c")
        store.memo.put("memo", b"value")
    with Store.open(root) as store:
        store.images.untag("image")
        prune(store, OUTSIDE, [Policy(keep_ns=1)], 0)
    return chains


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("for_good", [False, True], ids=["once", "from-then-on"])
def test_an_error_at_any_point_is_said_and_harms_nothing(tmp_path, number, for_good):
    right = work(str(tmp_path / "right"))
    failed = set()
    for point in range(1000):
        root = str(tmp_path / str(point))
        with disk_errors(point, number, for_good=for_good) as faults:
            try:
                work(root)
            except CacheError as error:
                failed.add(faults.where)
                assert str(error)
        with Store.open(root) as store:
            damage = [found for found in check(store, OUTSIDE) if found.severity == DAMAGE]
            assert damage == [], (point, faults.where)
        assert work(root) == right, (point, faults.where)
        if not faults.where:
            break
    assert 60 < point < 999
    assert {"fsync", "write", "rename", "mkdir", "COMMIT"} <= failed
