"""Copies that try to reach the host: through the context, through the root, while they run."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from copytools import Entry, Link, context, copy, copy_from, listing, opened, run, write_tree

from builder.errors import BuildError
from builder.ops.fileop import context_tree, root_tree
from builder.ops.select import selection
from builder.plan import CopyAction, MkdirAction, MkfileAction
from cache.removal import remove_tree


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "host", {"canary": "alive", "dir/inner": "alive"})


def is_unharmed(host: Path) -> bool:
    return listing(host) == {"canary": "f 644 'alive'", "dir": "d 755", "dir/inner": "f 644 'alive'"}


@pytest.mark.parametrize("source", ["/out/canary", "/up/canary", "/out", "/file", "/through/proc"])
def test_a_context_link_to_the_host_leads_nowhere(tmp_path: Path, host: Path, source: str) -> None:
    directory = write_tree(
        tmp_path / "context",
        {
            "out": Link(str(host)),
            "up": Link("../host"),
            "file": Link(str(host / "canary")),
            "through": Link("/proc/self/root" + str(tmp_path)),
        },
    )
    with pytest.raises(BuildError, match="not found"):
        copy(tmp_path / "root", context(directory), source, "/x")
    with pytest.raises(BuildError, match="not found"):
        copy_from(tmp_path / "root", directory, source, "/x")


def test_a_context_link_to_the_host_is_copied_as_a_link(tmp_path: Path, host: Path) -> None:
    directory = write_tree(tmp_path / "context", {"d/out": Link(str(host))})
    copy(tmp_path / "root", context(directory), "/d", "/d")
    assert listing(tmp_path / "root")["d/out"] == f"l -> {host}"


def test_the_context_can_lie_behind_a_link(tmp_path: Path) -> None:
    write_tree(tmp_path / "real", {"f": "x"})
    (tmp_path / "context").symlink_to("real")
    copy(tmp_path / "root", context(tmp_path / "context"), "/f", "/f")
    assert listing(tmp_path / "root") == {"f": "f 644 'x'"}


@pytest.mark.parametrize(
    ("links", "dest"),
    [
        ({"out": Link("{host}")}, "/out/canary"),
        ({"out": Link("../host")}, "/out/canary"),
        ({"canary": Link("{host}/canary")}, "/canary"),
        ({"a": Link("b"), "b": Link("{host}")}, "/a/"),
        ({"magic": Link("/proc/self/root{host}")}, "/magic/canary"),
        ({"d/canary": Link("{host}/canary")}, "/d/"),
    ],
)
def test_no_destination_link_leaves_the_root(tmp_path: Path, host: Path, links: dict[str, Link], dest: str) -> None:
    root = write_tree(tmp_path / "root", {name: Link(target.format(host=host)) for name, target in links.items()})
    tree = context(write_tree(tmp_path / "context", {"canary": Entry("dead", 0o666)}))
    actions = [
        CopyAction(1, "/canary", dest, chown="7:7", chmod="777"),
        CopyAction(1, "/", dest.rpartition("/")[0] or "/", chown="7:7"),
        MkdirAction(dest.rpartition("/")[0] + "/new", owner="7"),
        MkfileAction(dest.rstrip("/"), "dead", 0o777),
    ]
    for action in actions:
        try:
            run(root, tree, action)
        except BuildError:
            continue
    assert is_unharmed(host)
    assert sorted(os.listdir(host)) == ["canary", "dir"]


def test_a_directory_of_the_context_swapped_for_a_link_is_noticed(tmp_path: Path, host: Path) -> None:
    directory = write_tree(tmp_path / "context", {"dir/inner": "mine"})
    tree = context(directory)
    (directory / "dir").rename(directory / "gone")
    (directory / "dir").symlink_to(host / "dir")
    with pytest.raises(BuildError, match="changed while"):
        copy(tmp_path / "root", tree, "/dir", "/x")


def test_a_file_of_the_context_swapped_for_a_link_is_noticed(tmp_path: Path, host: Path) -> None:
    directory = write_tree(tmp_path / "context", {"f": "mine"})
    tree = context(directory)
    (directory / "f").unlink()
    (directory / "f").symlink_to(host / "canary")
    with pytest.raises(BuildError, match="changed while"):
        copy(tmp_path / "root", tree, "/f", "/x")


def test_a_file_of_the_context_swapped_for_a_fifo_does_not_hang(tmp_path: Path) -> None:
    directory = write_tree(tmp_path / "context", {"f": "mine"})
    tree = context(directory)
    (directory / "f").unlink()
    os.mkfifo(directory / "f")
    with pytest.raises(BuildError, match="changed while"):
        copy(tmp_path / "root", tree, "/f", "/x")


def test_links_that_come_and_go_in_the_root_never_lead_out(tmp_path: Path, host: Path) -> None:
    """Someone swaps a directory of the root for a link to the host, over and over, while files are copied there."""
    root = write_tree(tmp_path / "root", {"d": None})
    tree = context(write_tree(tmp_path / "context", {f"f{i}": "dead" for i in range(10)} | {"canary": "dead"}))
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            try:
                (root / "d").rename(root / "away")
                (root / "d").symlink_to(host)
                (root / "d").unlink()
                (root / "away").rename(root / "d")
            except OSError:
                continue

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(30):
            try:
                copy(root, tree, "/", "/d/", chown="7:7", chmod="777")
            except BuildError:
                continue
    finally:
        stop.set()
        thread.join()
    assert is_unharmed(host)
    assert sorted(os.listdir(host)) == ["canary", "dir"]


def test_a_whiteout_device_cannot_be_copied(tmp_path: Path) -> None:
    directory = write_tree(tmp_path / "context", {"d": None})
    os.mknod(directory / "d/gone", stat.S_IFCHR, 0)
    with pytest.raises(BuildError, match="device 0/0"):
        copy(tmp_path / "root", context(directory), "/d", "/d")
    copy_from(tmp_path / "root", directory, "/d", "/stage")
    assert os.listdir(tmp_path / "root/stage") == []


def test_a_context_that_cannot_be_read_is_a_build_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no such file"):
        context_tree(str(tmp_path / "nowhere"), None, None)


def test_directories_nested_beyond_all_limits_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    fd = os.open(tmp_path / "deep", os.O_RDONLY)
    for _ in range(2500):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    try:
        with pytest.raises(BuildError):
            copy_from(tmp_path / "root", tmp_path / "deep", "/d", "/x")
        with pytest.raises(BuildError):
            context(tmp_path / "deep")
        with opened(tmp_path / "deep") as deep, pytest.raises(BuildError):
            selection(CopyAction(1, "/d", "/x", exclude_patterns=("x",)), root_tree(deep))
    finally:
        for name in ("deep", "root"):
            remove_tree(str(tmp_path / name))
