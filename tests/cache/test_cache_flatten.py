"""Copies of merged layers, and what is left of a copy that somebody changed."""

import os
import stat
import time

import pytest

from cache.changes import changes
from cache.flatten import copy_merged, to_upper
from cache.rootpaths import make_whiteout


@pytest.fixture
def layers(tmp_path):
    """Two layers, top first, and an empty directory for the copy."""
    for name in ("top", "bottom", "copy"):
        (tmp_path / name).mkdir()
    bottom, top = tmp_path / "bottom", tmp_path / "top"
    for name in ("a", "gone", "kept", "d/x", "d/y"):
        (bottom / name).parent.mkdir(exist_ok=True)
        (bottom / name).write_text(name)
    os.link(bottom / "a", bottom / "linked")
    os.symlink("a", bottom / "link")
    os.mkfifo(bottom / "fifo")
    (bottom / "a").chmod(0o4751)
    os.chown(bottom / "kept", 12, 34)
    (top / "d").mkdir(mode=0o750)
    (top / "d/x").write_text("new")
    (top / "d/x").chmod(0o600)
    fd = os.open(top, os.O_RDONLY)
    make_whiteout(fd, "gone")
    os.close(fd)
    for path in (bottom / "d", top / "d", bottom / "kept", bottom, top):
        os.utime(path, ns=(1_000_000_007, 1_000_000_009))
    return (str(top), str(bottom)), tmp_path / "copy"


def test_a_copy_is_what_the_layers_show(layers):
    stack, copy = layers
    copy_merged(stack, str(copy))
    assert sorted(os.listdir(copy)) == ["a", "d", "fifo", "kept", "link", "linked"]
    assert (copy / "d/x").read_text() == "new"
    assert (copy / "d/y").read_text() == "d/y"
    assert stat.S_IMODE((copy / "a").stat().st_mode) == 0o4751
    assert (copy / "kept").stat().st_uid == 12
    assert (copy / "d").stat().st_mtime_ns == copy.stat().st_mtime_ns == 1_000_000_009
    assert (copy / "a").stat().st_nlink == 1
    assert os.readlink(copy / "link") == "a"


def test_a_copy_to_read_keeps_links(layers):
    stack, copy = layers
    copy_merged(stack, str(copy), keep_links=True)
    assert (copy / "a").samefile(copy / "linked")


def test_nothing_is_left_of_an_unchanged_copy(layers):
    stack, copy = layers
    to_upper(str(copy), stack, copy_merged(stack, str(copy)))
    assert os.listdir(copy) == []


def test_what_is_left_is_what_changed(layers):
    stack, copy = layers
    copied = copy_merged(stack, str(copy))
    (copy / "a").write_text("changed")
    (copy / "d/y").unlink()
    (copy / "new").write_text("n")
    os.rename(copy / "kept", copy / "moved")
    os.utime(copy / "d", ns=(5, 5))
    to_upper(str(copy), stack, copied)
    found = [(change.kind, change.path) for change in changes(str(copy), stack)]
    assert found == [
        ("modify", "/a"),
        ("modify", "/d"),
        ("delete", "/d/y"),
        ("delete", "/kept"),
        ("add", "/moved"),
        ("add", "/new"),
    ]
    assert sorted(os.listdir(copy)) == ["a", "d", "kept", "moved", "new"]


def test_a_change_that_leaves_no_trace_but_the_content(layers):
    """Within one tick of the clock, with size and time as they were."""
    stack, copy = layers
    for _ in range(20):
        copied = copy_merged(stack, str(copy))
        before = (copy / "kept").stat()
        (copy / "kept").write_text("tpek")
        os.utime(copy / "kept", ns=(before.st_atime_ns, before.st_mtime_ns))
        to_upper(str(copy), stack, copied)
        assert os.listdir(copy) == ["kept"]
        (copy / "kept").unlink()


def test_what_was_copied_long_ago_is_not_read_again(layers):
    stack, copy = layers
    time.sleep(0.1)
    slow = copy_merged(stack, str(copy))
    (copy / "d/x").unlink()
    assert set(slow) <= {"/a", "/linked", "/link", "/fifo", "/kept", "/d/x", "/d/y"}
    to_upper(str(copy), stack, dict.fromkeys(slow, (0, 0)))
    assert [change.path for change in changes(str(copy), stack)] == ["/d", "/d/x"]


def test_deep_trees(tmp_path):
    bottom, copy = tmp_path / "bottom", tmp_path / "copy"
    copy.mkdir()
    deep = bottom / "/".join(["d"] * 600)
    os.makedirs(deep)
    copied = copy_merged((str(bottom),), str(copy))
    to_upper(str(copy), (str(bottom),), copied)
    assert os.listdir(copy) == []
