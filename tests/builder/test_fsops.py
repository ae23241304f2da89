"""SafeRoot and Directory: nothing in a root, however it is linked, leads a change outside."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.sandbox.fsops import Directory, SafeRoot
from builder.sandbox.paths import clean, follow, join, split


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A directory outside the root, with a canary."""
    outside = tmp_path / "host"
    outside.mkdir()
    (outside / "canary").write_text("alive")
    return outside


@pytest.fixture
def root_dir(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def root(root_dir: Path) -> Iterator[SafeRoot]:
    fd = os.open(root_dir, os.O_RDONLY | os.O_DIRECTORY)
    yield SafeRoot(fd)
    os.close(fd)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "/"),
        (".", "/"),
        ("/..", "/"),
        ("a", "/a"),
        ("//a//b/", "/a/b"),
        ("/a/./b/../c", "/a/c"),
        ("../../etc", "/etc"),
        ("/a/b/../../..", "/"),
    ],
)
def test_clean_is_lexical_and_never_above_the_root(path: str, expected: str) -> None:
    assert clean(path) == expected


@given(st.lists(st.sampled_from(["a", "b", "..", ".", ""]), max_size=8))
def test_clean_paths_are_made_of_plain_names(parts: list[str]) -> None:
    cleaned = clean("/".join(parts))
    assert cleaned.startswith("/")
    assert not {"", ".", ".."} & set(cleaned.split("/")[1:]) or cleaned == "/"
    assert clean(cleaned) == cleaned


def test_join_and_split_are_inverse() -> None:
    for directory, name in (("/", "a"), ("/a", "b"), ("/a/b", "c")):
        assert split(join(directory, name)) == (directory, name)


def test_follow_gives_up_on_a_loop() -> None:
    with pytest.raises(OSError) as caught:
        follow("/a", {"/a": "b", "/b": "a"}.get)
    assert caught.value.errno == errno.ELOOP


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/abs/x", "/real/x"),
        ("/rel/x", "/real/x"),
        ("/escape/x", "/outside/x"),
        ("/dangling/deep/x", "/no/such/deep/x"),
        ("/chain", "/real"),
        ("/real/../rel", "/real"),
        ("/missing/../rel/y", "/real/y"),
    ],
)
def test_real_path_stays_in_the_root_and_keeps_what_is_missing(
    root: SafeRoot, root_dir: Path, path: str, expected: str
) -> None:
    (root_dir / "real").mkdir()
    for name, target in {
        "abs": "/real",
        "rel": "real",
        "escape": "../../../outside",
        "dangling": "no/such",
        "chain": "abs",
    }.items():
        (root_dir / name).symlink_to(target)
    assert root.real_path(path) == expected


def test_a_link_in_the_last_place_is_kept_when_asked(root: SafeRoot, root_dir: Path) -> None:
    (root_dir / "link").symlink_to("target")
    assert follow("/link", root.readlink, last=False) == "/link"
    assert root.readlink("/link") == "target"
    assert root.readlink("/nothing") is None


def test_mkdir_all_returns_what_it_made_with_mode_and_owner(root: SafeRoot, root_dir: Path) -> None:
    (root_dir / "have").mkdir(mode=0o700)
    assert root.mkdir_all("/have/a/b", 0o2711, (5, 6)) == ["/have/a", "/have/a/b"]
    assert root.mkdir_all("/have/a/b") == []
    for made in ("have/a", "have/a/b"):
        info = (root_dir / made).stat()
        assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o2711, 5, 6)
    assert stat.S_IMODE((root_dir / "have").stat().st_mode) == 0o700


def test_mkdir_all_goes_through_links_inside_the_root_only(root: SafeRoot, root_dir: Path, host: Path) -> None:
    (root_dir / "out").symlink_to(host)
    (root_dir / "up").symlink_to("../host")
    (root_dir / "dangling").symlink_to("/made/here")
    root.mkdir_all("/out/x")
    root.mkdir_all("/up/y")
    root.mkdir_all("/dangling/z")
    assert os.listdir(host) == ["canary"]
    assert (root_dir / "made/here/z").is_dir()
    assert (root_dir / "host/y").is_dir()


def test_mkdir_all_refuses_a_file_in_the_way(root: SafeRoot, root_dir: Path) -> None:
    (root_dir / "file").write_text("")
    with pytest.raises(NotADirectoryError) as caught:
        root.mkdir_all("/file/x")
    assert caught.value.filename == "/file"


def test_open_does_not_follow_magic_links(root: SafeRoot, root_dir: Path) -> None:
    (root_dir / "magic").symlink_to("/proc/self/root/etc")
    with pytest.raises(OSError):
        root.open("/magic/passwd")


def test_remove_all_removes_links_not_what_they_lead_to(root: SafeRoot, root_dir: Path, host: Path) -> None:
    tree = root_dir / "tree"
    (tree / "deep/er").mkdir(parents=True)
    (tree / "deep/link").symlink_to(host)
    (tree / "deep/er/file").write_text("x")
    with root.open_dir("/") as directory:
        directory.remove_all("tree")
        directory.remove_all("tree")
    assert not tree.exists()
    assert (host / "canary").read_text() == "alive"


def test_a_name_swapped_for_a_link_is_not_written_through(root_dir: Path, root: SafeRoot, host: Path) -> None:
    (root_dir / "name").symlink_to(host / "canary")
    with root.open_dir("/") as directory:
        with pytest.raises(FileExistsError):
            directory.create("name")
        with pytest.raises(OSError):
            directory.open_file("name")
        with pytest.raises(OSError):
            directory.chmod("name", 0o777)
        with pytest.raises(NotADirectoryError):
            directory.open_dir("name")
        directory.chown("name", (7, 7))
        directory.utime("name", 0)
    info = (host / "canary").stat()
    assert (info.st_uid, stat.S_IMODE(info.st_mode) & 0o022) == (0, 0)
    assert info.st_mtime != 0


def test_open_file_does_not_hang_on_a_fifo(root: SafeRoot, root_dir: Path) -> None:
    os.mkfifo(root_dir / "pipe")
    with root.open_dir("/") as directory:
        os.close(directory.open_file("pipe"))


def test_attributes_of_one_name(root: SafeRoot, root_dir: Path) -> None:
    with root.open_dir("/") as directory:
        os.close(directory.create("f"))
        directory.chown("f", (3, 4))
        directory.chmod("f", 0o4751)
        directory.setxattr("f", "user.note", b"x")
        directory.utime("f", 1_500_000_000_123_456_789)
        assert directory.getxattr("f", "user.note") == b"x"
        assert directory.getxattr("f", "user.other") is None
    info = (root_dir / "f").stat()
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (3, 4, 0o4751)
    assert info.st_mtime_ns == 1_500_000_000_123_456_789


def test_link_names_the_same_file(root: SafeRoot, root_dir: Path) -> None:
    (root_dir / "d").mkdir()
    (root_dir / "d/a").write_text("x")
    with root.open_dir("/d") as source, root.open_dir("/") as directory:
        directory.link(source, "a", "b")
    assert (root_dir / "b").samefile(root_dir / "d/a")


def test_lstat_and_stat_of_nothing_are_none(root: SafeRoot, root_dir: Path) -> None:
    (root_dir / "file").write_text("")
    (root_dir / "broken").symlink_to("gone")
    assert root.stat("/gone") is None
    assert root.stat("/file/below") is None
    assert root.stat("/broken") is None
    found = root.lstat("/broken")
    assert found is not None
    assert stat.S_ISLNK(found.st_mode)
    assert root.lstat("/") is not None


def test_names_are_sorted_by_bytes(root: SafeRoot, root_dir: Path) -> None:
    for name in (b"b", b"\xff", b"a", b"\xc3\xbc", b"Z"):
        os.close(os.open(os.fsencode(root_dir) + b"/" + name, os.O_CREAT | os.O_WRONLY))
    assert [os.fsencode(name) for name in root.names("/")] == [b"Z", b"a", b"b", b"\xc3\xbc", b"\xff"]


def test_directory_closes_its_descriptor(root: SafeRoot) -> None:
    with root.open_dir("/") as directory:
        assert isinstance(directory, Directory)
        fd = directory.fd
    with pytest.raises(OSError):
        os.fstat(fd)
