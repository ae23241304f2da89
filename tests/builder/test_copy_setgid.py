"""A setgid directory hands its group down, but not to what a copy gives an owner (inode(7); BuildKit's copies)."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from copytools import Entry, Link, context, copy, listing, run, write_tree

from builder.plan import CopyAction, MkdirAction

TREE = {"d/f": "x", "d/l": Link("f"), "d/sub/g": "y"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a setgid directory of group 50."""
    root = write_tree(tmp_path / "root", {"sg": Entry(None, 0o755, (0, 50))})
    (root / "sg").chmod(0o2755)
    return root


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "context", TREE)


def test_what_is_copied_has_the_owner_of_its_source(root: Path, source: Path) -> None:
    copy(root, context(source), "/d", "/sg")
    assert listing(root) == {
        "sg": "d 2755 0:50",
        "sg/f": "f 644 'x'",
        "sg/l": "l -> f",
        "sg/sub": "d 755",
        "sg/sub/g": "f 644 'y'",
    }


def test_directories_that_have_to_be_made_take_group_and_bit(root: Path, source: Path) -> None:
    copy(root, context(source), "/d/f", "/sg/a/b/f")
    run(root, context(source), MkdirAction("/sg/w/x"))
    found = listing(root)
    assert {found[f"sg/{name}"] for name in ("a", "a/b", "w", "w/x")} == {"d 2755 0:50"}
    assert found["sg/a/b/f"] == "f 644 'x'"


def test_an_owner_goes_before_the_directory_s_group(root: Path, source: Path) -> None:
    copy(root, context(source), "/d/f", "/sg/a/f", chown="7:8")
    run(root, context(source), MkdirAction("/sg/w", owner="0:0"))
    found = listing(root)
    assert (found["sg/a"], found["sg/a/f"]) == ("d 2755 7:8", "f 644 7:8 'x'")
    assert found["sg/w"] == "d 2755"


def test_an_archive_s_implied_directories_are_root_s(root: Path, tmp_path: Path) -> None:
    archive = tmp_path / "context" / "t.tar"
    archive.parent.mkdir()
    with tarfile.open(archive, "w") as tar:
        tar.addfile(tarfile.TarInfo("implied/f"))
    assert os.stat(archive).st_size
    run(root, context(archive.parent), CopyAction(1, "/t.tar", "/sg", attempt_unpack=True))
    assert listing(root) == {"sg": "d 2755 0:50", "sg/implied": "d 2755", "sg/implied/f": "f 644 ''"}
