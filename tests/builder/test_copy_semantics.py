"""COPY as BuildKit does it: where things land, which metadata they get, what may replace what."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from copytools import Entry, Fifo, Hard, Link, context, copy, copy_from, listing, run, write_tree

from builder.errors import BuildError
from builder.ops.fileop import apply
from builder.plan import CopyAction, FileOp, MkdirAction, MkfileAction
from builder.sandbox.fsops import SafeRoot
from builder.sandbox.overlay import mount_detached

PASSWD = "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n"
GROUP = "root:x:0:\nstaff:x:50:app\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "root", {})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "context"


@pytest.mark.parametrize(
    ("dest", "lands"),
    [("/x", "x"), ("/new/", "new/a"), ("/have", "have/a"), ("/p/q/r", "p/q/r"), ("/new/.", "new/a"), ("/", "a")],
)
def test_where_a_file_lands(root: Path, source: Path, dest: str, lands: str) -> None:
    write_tree(root, {"have": None})
    copy(root, context(write_tree(source, {"a": Entry("x", 0o640)})), "/a", dest)
    assert listing(root)[lands] == "f 640 'x'"


def test_a_directory_gives_its_contents_and_a_new_one_gets_0755(root: Path, source: Path) -> None:
    tree = context(write_tree(source, {"d": Entry(None, 0o700), "d/f": "x", "d/s": Entry(None, 0o711), "d/s/g": "y"}))
    copy(root, tree, "/d", "/out")
    assert listing(root) == {"out": "d 755", "out/f": "f 644 'x'", "out/s": "d 711", "out/s/g": "f 644 'y'"}


def test_merging_resets_existing_subdirectories_but_not_the_destination(root: Path, source: Path) -> None:
    write_tree(root, {"dst": Entry(None, 0o777), "dst/sub": Entry(None, 0o700, (7, 7)), "dst/sub/stays": "s"})
    copy(root, context(write_tree(source, {"d/f": "new", "d/sub/g": "g"})), "/d", "/dst")
    assert listing(root) == {
        "dst": "d 777",
        "dst/f": "f 644 'new'",
        "dst/sub": "d 755",
        "dst/sub/g": "f 644 'g'",
        "dst/sub/stays": "f 644 's'",
    }


def test_times_are_kept_also_of_directories(root: Path, source: Path) -> None:
    spec = {"d": Entry(None, mtime=1000), "d/f": Entry("x", mtime=2000), "d/l": Entry(Link("f"), mtime=3000)}
    copy(root, context(write_tree(source, spec)), "/d", "/d")
    assert [(root / name).lstat().st_mtime for name in ("d", "d/f", "d/l")] == [1000, 2000, 3000]


def test_context_files_belong_to_root_and_stage_files_to_who_owned_them(root: Path, source: Path) -> None:
    write_tree(source, {"f": Entry("x", 0o4755, (5, 6))})
    copy(root, context(source), "/f", "/a")
    copy_from(root, source, "/f", "/b")
    assert listing(root) == {"a": "f 4755 'x'", "b": "f 4755 5:6 'x'"}


@pytest.mark.parametrize(
    ("chown", "owner"),
    [
        ("app", (1000, 1001)),
        ("app:staff", (1000, 50)),
        ("555", (555, 555)),
        ("1000", (1000, 1000)),
        ("app:", (1000, 0)),
        (":50", (0, 50)),
        ("ghost", (0, 0)),
        ("ghost:staff", (0, 50)),
        ("app:spooks", (1000, 1001)),
        ("root:7", (0, 7)),
        ("99999999999", (0, 0)),
    ],
)
def test_chown_looks_names_up_in_the_destination(root: Path, source: Path, chown: str, owner: tuple[int, int]) -> None:
    write_tree(root, {"etc/passwd": PASSWD, "etc/group": GROUP})
    copy(root, context(write_tree(source, {"a": ""})), "/a", "/new/a", chown=chown)
    for name in ("new", "new/a"):
        info = (root / name).stat()
        assert (info.st_uid, info.st_gid) == owner


def test_chown_without_passwd_is_root_and_never_reads_the_host(root: Path, source: Path, tmp_path: Path) -> None:
    outside = write_tree(tmp_path / "outside", {"passwd": "app:x:4444:4444:::\n"})
    write_tree(root, {"etc/passwd": Link(str(outside / "passwd"))})
    copy(root, context(write_tree(source, {"a": ""})), "/a", "/a", chown="app")
    assert listing(root)["a"] == "f 644 ''"


def test_a_passwd_that_would_hang_is_refused(root: Path, source: Path) -> None:
    write_tree(root, {"etc/passwd": Fifo()})
    with pytest.raises(BuildError, match="regular file"):
        copy(root, context(write_tree(source, {"a": ""})), "/a", "/a", chown="app")


def test_octal_chmod_is_for_created_parents_too_without_special_bits(root: Path, source: Path) -> None:
    tree = context(write_tree(source, {"a": "a", "d/b": "b"}))
    copy(root, tree, "/a", "/d1/x", chmod="600")
    copy(root, tree, "/d", "/d5/e", chmod="4711")
    copy(root, tree, "/a", "/d4/", chmod="u+w,g=,o=")
    assert listing(root) == {
        "d1": "d 600",
        "d1/x": "f 600 'a'",
        "d4": "d 755",
        "d4/a": "f 600 'a'",
        "d5": "d 711",
        "d5/e": "d 711",
        "d5/e/b": "f 4711 'b'",
    }


def test_symlinks_named_are_followed_and_symlinks_inside_are_kept(root: Path, source: Path) -> None:
    spec = {"d/f": "f", "d/abs": Link("/etc/passwd"), "d/lf": Link("f"), "d/ld": Link("sub"), "d/sub/g": "g"}
    tree = context(write_tree(source, {**spec, "to-d": Link("d")}))
    copy(root, tree, "/d", "/tree")
    copy(root, tree, "/d/lf", "/named")
    copy(root, tree, "/to-d/f", "/through")
    copy(root, tree, "/d/l*", "/wild/")
    found = listing(root)
    assert found["tree/abs"] == "l -> /etc/passwd"
    assert found["tree/lf"] == "l -> f"
    assert found["named"] == found["through"] == found["wild/lf"] == "f 644 'f'"
    assert found["wild/g"] == "f 644 'g'"


def test_links_of_a_stage_are_taken_inside_it(root: Path, source: Path) -> None:
    write_tree(source, {"opt/v1/tool": "t", "opt/now": Link("/opt/v1"), "tool": Link("/opt/now/tool")})
    copy_from(root, source, "/tool", "/a")
    copy_from(root, source, "/opt/now/", "/b/")
    assert listing(root) == {"a": "f 644 't'", "b": "d 755", "b/tool": "f 644 't'"}


def test_a_destination_link_is_written_through(root: Path, source: Path) -> None:
    write_tree(root, {"real": None, "ld": Link("real"), "target": "t", "lf": Link("target"), "new": Link("/made/x")})
    tree = context(write_tree(source, {"a": "new", "d/x": "x"}))
    for dest in ("/ld/", "/lf", "/new"):
        copy(root, tree, "/a", dest)
    copy(root, tree, "/d", "/ld")
    found = listing(root)
    assert found["real/a"] == found["target"] == found["made/x"] == "f 644 'new'"
    assert found["real/x"] == "f 644 'x'"
    assert found["lf"] == "l -> target"


def test_a_directory_that_meets_a_link_is_an_error(root: Path, source: Path) -> None:
    write_tree(root, {"usr/lib": None, "lib": Link("usr/lib")})
    with pytest.raises(BuildError, match=r'"/lib": not a directory') as caught:
        copy(root, context(write_tree(source, {"tree/lib/m": "m"})), "/tree", "/")
    assert caught.value.hint is not None
    assert "symbolic link" in caught.value.hint


def test_a_directory_over_a_file_and_a_file_over_a_directory_are_errors(root: Path, source: Path) -> None:
    write_tree(root, {"file": "f", "dir/a": None})
    tree = context(write_tree(source, {"d/f": "", "a": ""}))
    with pytest.raises(BuildError, match=r'"/file": not a directory'):
        copy(root, tree, "/d", "/file")
    with pytest.raises(BuildError, match=r'cannot replace directory "/dir/a"'):
        copy(root, tree, "/a", "/dir/")
    with pytest.raises(BuildError, match="not a directory"):
        copy(root, tree, "/a", "/file/below")


def test_a_file_replaces_a_link_in_a_directory_without_following_it(root: Path, source: Path) -> None:
    write_tree(root, {"keep": "k", "d/a": Link("../keep")})
    copy(root, context(write_tree(source, {"s/a": "new"})), "/s", "/d")
    assert listing(root) == {"keep": "f 644 'k'", "d": "d 755", "d/a": "f 644 'new'"}


def test_hard_links_survive_in_one_directory_only(root: Path, source: Path) -> None:
    write_tree(source, {"d/a": "x", "d/b": Hard("d/a"), "d/s/c": Hard("d/a"), "d/other": "x"})
    tree = context(source)
    copy(root, tree, "/d", "/out/")
    copy(root, tree, "/d/[ab]", "/two/")
    assert (root / "out/a").samefile(root / "out/b")
    assert (root / "out/a").samefile(root / "out/s/c")
    assert (root / "out/other").stat().st_nlink == 1
    assert (root / "two/a").stat().st_nlink == 1


def test_hard_links_are_made_again_over_old_files(root: Path, source: Path) -> None:
    write_tree(source, {"d/a": "x", "d/b": Hard("d/a")})
    write_tree(root, {"out/a": "old", "out/b": "older"})
    copy(root, context(source), "/d", "/out/")
    assert (root / "out/a").samefile(root / "out/b")
    assert (root / "out/b").read_text() == "x"


def test_special_files(root: Path, source: Path) -> None:
    write_tree(source, {"pipe": Entry(Fifo(), 0o622)})
    os.mknod(source / "null", 0o020600, os.makedev(1, 3))
    os.mknod(source / "disk", 0o060600, os.makedev(7, 99))
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(source / "sock"))
    copy_from(root, source, "/", "/sp")
    assert listing(root)["sp/pipe"] == "p 622"
    assert (root / "sp/null").stat().st_rdev == os.makedev(1, 3)
    assert (root / "sp/disk").is_block_device()
    assert listing(root)["sp/sock"].startswith("f ")


def test_capabilities_come_from_a_stage_and_not_from_a_context(root: Path, source: Path) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    write_tree(source, {"tool": Entry("x", 0o755)})
    os.setxattr(source / "tool", "security.capability", capability)
    os.setxattr(source / "tool", "user.note", b"x")
    copy_from(root, source, "/tool", "/stage", chown="5")
    copy(root, context(source), "/tool", "/context")
    assert os.getxattr(root / "stage", "security.capability") == capability
    assert os.listxattr(root / "context") == []
    assert "user.note" not in os.listxattr(root / "stage")


def test_excluded_below_directories_but_not_when_named(root: Path, source: Path) -> None:
    tree = context(write_tree(source, {"a.txt": "a", "b.tmp": "b", "sub/c.tmp": "c", "sub/keep.tmp": "k"}))
    copy(root, tree, "/b.tmp", "/1/", exclude_patterns=("*.tmp",))
    copy(root, tree, "/", "/2/", exclude_patterns=("*.tmp", "sub"))
    copy(root, tree, "/", "/3/", exclude_patterns=("sub/*", "!sub/keep.tmp"))
    assert sorted(listing(root)) == [
        "1", "1/b.tmp", "2", "2/a.txt", "3", "3/a.txt", "3/b.tmp", "3/sub", "3/sub/keep.tmp",
    ]  # fmt: skip


def test_parents_keep_their_modes_and_only_needed_ones_are_made(root: Path, source: Path) -> None:
    spec = {"a": Entry(None, 0o750), "a/b": Entry(None, 0o711), "a/b/c": "c", "a/x/c": "xc", "z/y": "y"}
    tree = context(write_tree(source, spec))
    copy(root, tree, "/", "/p/", include_patterns=("a/*/c",))
    assert listing(root) == {
        "p": "d 755",
        "p/a": "d 750",
        "p/a/b": "d 711",
        "p/a/b/c": "f 644 'c'",
        "p/a/x": "d 755",
        "p/a/x/c": "f 644 'xc'",
    }


def test_existing_parents_get_the_mode_but_keep_their_owner(root: Path, source: Path) -> None:
    write_tree(root, {"p/a": Entry(None, 0o700, (9, 9))})
    tree = context(write_tree(source, {"a": Entry(None, 0o750), "a/f": "f"}))
    copy(root, tree, "/", "/p/", include_patterns=("a/f",))
    assert listing(root)["p/a"] == "d 750 9:9"


def test_a_required_path_has_to_be_there(root: Path, source: Path) -> None:
    tree = context(write_tree(source, {"a/bc": "x"}))
    with pytest.raises(BuildError, match='"/a/b": not found'):
        copy(root, tree, "/", "/p/", include_patterns=("a/b",), required_paths=("/a/b",))


def test_several_sources_overwrite_without_a_slash(root: Path, source: Path) -> None:
    tree = context(write_tree(source, {"a": "first", "b": "second"}))
    run(root, tree, CopyAction(1, "/a", "/dst"), CopyAction(1, "/b", "/dst"))
    assert listing(root) == {"dst": "f 644 'second'"}


def test_copy_from_scratch_copies_nothing(root: Path, source: Path) -> None:
    run(root, context(write_tree(source, {})), CopyAction(-1, "/", "/made/"))
    assert listing(root) == {"made": "d 755"}


def test_mkdir_owns_every_level_it_makes_and_follows_links(root: Path, source: Path) -> None:
    write_tree(root, {"etc/passwd": PASSWD, "have": Entry(None, 0o700), "ln": Link("have")})
    run(root, context(write_tree(source, {})), MkdirAction("/ln/a/b", owner="app"))
    found = listing(root)
    assert found["have"] == "d 700"
    assert found["have/a"] == found["have/a/b"] == "d 755 1000:1001"


def test_mkdir_over_a_file_is_an_error(root: Path, source: Path) -> None:
    write_tree(root, {"f": ""})
    with pytest.raises(BuildError, match='failed to make directory "/f/x": not a directory at "/f"'):
        run(root, context(write_tree(source, {})), MkdirAction("/f/x"))


def test_mkfile_writes_its_content(root: Path, source: Path) -> None:
    tree = context(write_tree(source, {}))
    run(root, tree, MkfileAction("/d/f", "ü\udcff", 0o755), MkfileAction("/d/f", "again"))
    assert listing(root) == {"d": "d 755", "d/f": "f 644 'again'"}


def test_large_files_arrive_whole(root: Path, source: Path) -> None:
    content = os.urandom(1 << 20) * 3 + b"end"
    copy(root, context(write_tree(source, {"big": content, "edge": content[: 128 << 10]})), "/", "/")
    assert (root / "big").read_bytes() == content
    assert (root / "edge").read_bytes() == content[: 128 << 10]


def test_a_context_file_that_changed_after_the_scan_is_an_error(root: Path, source: Path) -> None:
    tree = context(write_tree(source, {"a": Entry("x", mtime=1000)}))
    (source / "a").write_text("longer")
    with pytest.raises(BuildError, match='"/a" changed while'):
        copy(root, tree, "/a", "/a")


def test_odd_names_are_copied(root: Path, source: Path) -> None:
    write_tree(source, {"a b": "1", "文件": "2", "new\nline": "3"})
    (source / os.fsdecode(b"\xff\xfe")).write_text("4")
    copy(root, context(source), "/", "/")
    assert sorted(os.listdir(os.fsencode(root))) == sorted(os.listdir(os.fsencode(source)))


def test_on_an_overlay_only_the_upper_directory_changes(tmp_path: Path, source: Path) -> None:
    """Needs CAP_SYS_ADMIN and overlayfs."""
    spec = {"d": None, "d/old": "old", "d/l": Link("old"), "d/sub/stays": "s", "ln": Link("d"), "same": "same"}
    lower = write_tree(tmp_path / "lower", spec)
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    before = listing(lower)
    tree = context(write_tree(source, {"s/old": "new", "s/l": "file now", "s/sub/f": "f", "s/h": Hard("s/old")}))
    fd = mount_detached([str(lower)], str(tmp_path / "upper"), str(tmp_path / "work"))
    try:
        apply(FileOp((CopyAction(1, "/s", "/ln/"),)), SafeRoot(fd), {1: tree})
        with SafeRoot(fd).open_dir("/d") as directory:
            assert directory.names() == ["h", "l", "old", "sub"]
    finally:
        os.close(fd)
    assert listing(lower) == before
    assert listing(tmp_path / "upper") == {
        "d": "d 755",
        "d/h": "f 644 'new'",
        "d/l": "f 644 'file now'",
        "d/old": "f 644 'new'",
        "d/sub": "d 755",
        "d/sub/f": "f 644 'f'",
    }
    assert (tmp_path / "upper/d/h").samefile(tmp_path / "upper/d/old")
