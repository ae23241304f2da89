"""A build on a disk that refuses at any one point: a clear error, a store without damage, and the right image next."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from builder.errors import BuildError
from builder.holders import outside
from cache.check import DAMAGE, check
from cache.errors import CacheError
from cache.store import Store
from tests.e2e.inprocess import Builder
from tests.faults import disk_errors

EVERY = int(os.environ.get("PYBUILD_FAULT_STEP", "4"))
"""Every how many points; 1 for all of them."""


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_an_error_at_any_point_of_a_build(tmp_path: Path, number: int) -> None:
    context = tmp_path / "context"
    context.mkdir()
    for name in ("one", "two"):
        (context / name).write_text(name)
    (context / "Dockerfile").write_text(
        "FROM scratch AS a\nCOPY one /\nFROM scratch\nCOPY --from=a /one /x/\nCOPY two /\n"
    )
    words = ["-t", "x", "-o", "type=image", "-o", f"type=oci,dest={tmp_path}/x.tar", "."]
    right = Builder(tmp_path / "right", context)(*words, SOURCE_DATE_EPOCH="1").image_id
    failed = 0
    for point in range(0, 2000, EVERY):
        builder = Builder(tmp_path / str(point), context)
        with disk_errors(point, number) as faults:
            try:
                builder(*words, SOURCE_DATE_EPOCH="1")
            except (BuildError, CacheError) as error:
                failed += 1
                assert os.strerror(number).lower() in str(error) or "disk" in str(error), (point, faults.where)
        with Store.open(str(builder.root)) as store:
            found = [each for each in check(store, outside(store)) if each.severity == DAMAGE]
            assert found == [], (point, faults.where)
        assert builder(*words, SOURCE_DATE_EPOCH="1").image_id == right, (point, faults.where)
        if not faults.where:
            break
    assert failed > 60 // EVERY
    assert point < 2000 - EVERY
