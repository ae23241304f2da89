"""A store of an older format is used as if it had always been of this one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT, Pybuild
from tests.e2e.test_failures import assert_error

sys.path.insert(0, str(PROJECT / "tests/cache"))
from golden_store import FORMATS, restore

TEXT = 'FROM scratch\nCOPY one.txt /one\nCOPY --chmod=600 two.txt /sub/two\nENV A=1\nCMD ["/one"]\n'
IMAGE = "sha256:9b02e1ef8b742c24bf9d1bf72c39ed9a85a2407093fc6a1e71755d6ec8713a80"


@pytest.mark.parametrize("version", FORMATS)
def test_an_old_store_builds_lists_checks_and_prunes(tmp_path: Path, version: int) -> None:
    (tmp_path / "context").mkdir()
    pybuild = Pybuild(restore(version, tmp_path / "store"), tmp_path / "context")
    pybuild.write(Dockerfile=TEXT, **{"one.txt": "one\n", "two.txt": "two\n"})
    for name in ("one.txt", "two.txt"):
        os.utime(pybuild.cwd / name, (1700000000, 1700000000))
        (pybuild.cwd / name).chmod(0o644)
    words = ["build", "-t", "golden:1", "-o", f"type=oci,dest={tmp_path}/x.tar", "."]
    assert "golden" in pybuild.ok("images").stdout
    assert pybuild.ok("store", "check").stdout.startswith("0 damaged")
    assert pybuild.ok(*words, env={"SOURCE_DATE_EPOCH": "1700000000"}).stdout.strip() == IMAGE
    pybuild.ok("prune", "-f")
    assert pybuild.ok("inspect", "golden:1").stdout.count(IMAGE) >= 1
    pybuild.ok("rmi", "golden:1")
    pybuild.ok("prune", "-af")
    assert pybuild.ok(*words, env={"SOURCE_DATE_EPOCH": "1700000000"}).stdout.strip() == IMAGE
    assert pybuild.ok("store", "check").stdout.startswith("0 damaged, 0 left over")


def test_a_store_of_a_newer_pybuild_is_refused(pybuild: Pybuild) -> None:
    pybuild.ok("images")
    (pybuild.root / "version").write_text("2\n")
    assert_error(pybuild("images"), 1, "unknown store format '2'", "a newer pybuild made it")
