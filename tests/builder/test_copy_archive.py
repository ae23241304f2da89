"""ADD of archives: what is one, what its members become, and that none of them leaves the destination."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from copytools import Entry, Link, context, listing, run, write_tree

from builder.errors import BuildError
from builder.plan import CopyAction

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def member(name: str, content: bytes | None = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A regular file, or what `type` says."""
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    body = content or b""
    info.size = len(body) if info.isreg() else 0
    return info, body


def directory(name: str, mode: int = 0o755, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.DIRTYPE, mode=mode, **fields)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.LNKTYPE, linkname=target, **fields)


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, body in members:
            archive.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


@pytest.fixture
def add(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """ADD one file of the context to a destination; returns what the root holds then."""

    def add(content: bytes, dest: str = "/d/", **options: Any) -> dict[str, str]:
        source = write_tree(tmp_path / "context", {"t.tar": content})
        run(tmp_path / "root", context(source), CopyAction(1, "/t.tar", dest, attempt_unpack=True, **options))
        return listing(tmp_path / "root")

    return add


@pytest.mark.parametrize(
    "compress",
    [bytes, gzip.compress, bz2.compress, lzma.compress, lambda plain: zstandard.ZstdCompressor().compress(plain)],
    ids=["none", "gzip", "bzip2", "xz", "zstd"],
)
def test_every_compression_is_found_by_content(
    add: Callable[..., dict[str, str]], compress: Callable[[bytes], bytes]
) -> None:
    found = add(compress(tar(directory("s", 0o700), member("s/f", b"x", mode=0o640, uid=3, gid=4))))
    assert found == {"d": "d 755", "d/s": "d 700", "d/s/f": "f 640 3:4 'x'"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"this is not a tar archive\n" * 40,
        gzip.compress(b"no tar inside" * 100),
        gzip.compress(tar(member("f")))[:30],
    ],
    ids=["empty", "text", "gzip of text", "broken gzip"],
)
def test_what_is_no_archive_is_copied(add: Callable[..., dict[str, str]], content: bytes, tmp_path: Path) -> None:
    add(content)
    assert (tmp_path / "root/d/t.tar").read_bytes() == content


def test_an_archive_is_copied_when_not_to_be_unpacked(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "context", {"t.tar": tar(member("f"))})
    run(tmp_path / "root", context(source), CopyAction(1, "/t.tar", "/"))
    assert os.listdir(tmp_path / "root") == ["t.tar"]


def test_members_keep_what_the_archive_says(add: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    found = add(
        tar(
            directory("./", 0o711, uid=9, mtime=5),
            directory("./dir", 0o2750, uid=33, gid=33, mtime=1000),
            member("./dir/file", b"abc", mode=0o4755, uid=7, mtime=2000),
            hardlink("./dir/hard", "./dir/file", mode=0o600, uid=8),
            symlink("./sym", "/abs/target"),
            member("./pipe", type=tarfile.FIFOTYPE, mode=0o600),
            member("implied/parent/f", b"i", uid=12),
            member("x" * 150, b"long"),
        )
    )
    assert found == {
        "d": "d 755",
        "d/dir": "d 2750 33:33",
        "d/dir/file": "f 600 8:0 'abc'",
        "d/dir/hard": "f 600 8:0 'abc'",
        "d/implied": "d 755",
        "d/implied/parent": "d 755",
        "d/implied/parent/f": "f 644 12:0 'i'",
        "d/pipe": "p 600",
        "d/sym": "l -> /abs/target",
        "d/" + "x" * 150: "f 644 'long'",
    }
    assert (tmp_path / "root/d/dir").stat().st_mtime == 1000


def test_chown_replaces_owners_and_chmod_does_nothing(add: Callable[..., dict[str, str]]) -> None:
    found = add(tar(directory("s", uid=4), member("s/f", b"x", mode=0o640, uid=5)), chown="33:34", chmod="600")
    assert found == {"d": "d 755 33:34", "d/s": "d 755 33:34", "d/s/f": "f 640 33:34 'x'"}


def test_capabilities_are_kept_and_other_attributes_are_not(add: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    headers = {"SCHILY.xattr.security.capability": os.fsdecode(CAPABILITY), "SCHILY.xattr.user.note": "x"}
    add(tar(member("tool", b"t", mode=0o755, pax_headers=headers)), chown="5")
    assert os.listxattr(tmp_path / "root/d/tool") == ["security.capability"]
    assert os.getxattr(tmp_path / "root/d/tool", "security.capability") == CAPABILITY


def test_existing_entries_are_replaced_and_directories_merged(
    add: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    write_tree(
        tmp_path / "root/d",
        {"f": "old", "m": Entry(None, owner=(7, 7)), "m/keep": "k", "ln": Link("m"), "dir/x": "", "was": "file"},
    )
    found = add(
        tar(
            member("f", b"new"),
            directory("m", 0o700),
            member("ln/through", b"t"),
            member("dir", b"now a file"),
            directory("was"),
            member("was/in", b"in"),
        )
    )
    assert found == {
        "d": "d 755",
        "d/dir": "f 644 'now a file'",
        "d/f": "f 644 'new'",
        "d/ln": "l -> m",
        "d/m": "d 700",
        "d/m/keep": "f 644 'k'",
        "d/m/through": "f 644 't'",
        "d/was": "d 755",
        "d/was/in": "f 644 'in'",
    }


def test_a_later_member_of_the_same_name_wins(add: Callable[..., dict[str, str]]) -> None:
    found = add(tar(member("a", b"1"), symlink("a", "b"), member("a", b"2"), directory("a/"), member("a/f", b"3")))
    assert found == {"d": "d 755", "d/a": "d 755", "d/a/f": "f 644 '3'"}


def test_whiteout_names_delete(add: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    write_tree(tmp_path / "root/d", {"a": "a", "b/x": "", "c": "c", "o/old": "", "o/sub/old": ""})
    found = add(
        tar(
            member(".wh.a"),
            member(".wh.b"),
            member(".wh.missing"),
            member("o/new", b"n"),
            member("o/.wh..wh..opq"),
            member("o/later", b"l"),
        )
    )
    assert sorted(found) == ["d", "d/c", "d/o", "d/o/later", "d/o/new"]


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "x/.wh..wh.plnk"])
def test_whiteouts_of_nothing_are_refused(add: Callable[..., dict[str, str]], name: str) -> None:
    with pytest.raises(BuildError, match="not a valid whiteout name"):
        add(tar(member("f"), member(name)))


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file of the host that no archive may reach."""
    host = tmp_path / "host"
    host.mkdir()
    (host / "canary").write_text("alive")
    return host


ATTACKS: dict[str, Callable[[str], list[tuple[tarfile.TarInfo, bytes]]]] = {
    "dot dot": lambda host: [member(f"../../../../../..{host}/canary", b"dead")],
    "absolute": lambda host: [member(f"{host}/canary", b"dead")],
    "through a link": lambda host: [symlink("l", host), member("l/canary", b"dead")],
    "through a relative link": lambda host: [symlink("l", "../" * 20 + host[1:]), member("l/canary", b"dead")],
    "over a link": lambda host: [symlink("l", f"{host}/canary"), member("l", b"dead")],
    "through a chain": lambda host: [symlink("a", "b"), symlink("b", host), member("a/canary", b"dead")],
    "hard link out": lambda host: [hardlink("h", f"{host}/canary"), member("h", b"dead")],
    "hard link up": lambda host: [hardlink("h", "../" * 20 + f"{host[1:]}/canary", mode=0o777)],
    "hard link to a link": lambda host: [symlink("l", f"{host}/canary"), hardlink("h", "l", mode=0o777)],
    "whiteout": lambda host: [symlink("l", host), member("l/.wh.canary")],
    "opaque": lambda host: [symlink("l", host), member("l/.wh..wh..opq")],
    "directory over a link": lambda host: [symlink("l", host), directory("l", 0o777, uid=7)],
    "link replaced below": lambda host: [
        directory("a"),
        member("a/x"),
        symlink("a", host),
        member("a/canary", b"dead"),
    ],
    "magic link": lambda host: [symlink("l", f"/proc/self/root{host}"), member("l/canary", b"dead")],
    "long chain": lambda host: [
        *[symlink(f"{i}", f"{i + 1}") for i in range(100)],
        symlink("100", host),
        member("0/canary", b"dead"),
    ],
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_no_member_leaves_the_destination(
    add: Callable[..., dict[str, str]],
    canary: Path,
    tmp_path: Path,
    attack: Callable[[str], list[tuple[tarfile.TarInfo, bytes]]],
) -> None:
    write_tree(tmp_path / "root", {"beside": "b"})
    with contextlib.suppress(BuildError):
        add(tar(member("first"), *attack(str(canary))))
    info = (canary / "canary").stat()
    assert (canary / "canary").read_text() == "alive"
    assert (info.st_nlink, info.st_uid, stat.S_IMODE(info.st_mode) & 0o022) == (1, 0, 0)
    assert canary.stat().st_uid == 0
    assert os.listdir(canary) == ["canary"]
    assert sorted(os.listdir(tmp_path / "root")) == ["beside", "d"]


def test_an_absolute_link_of_the_root_is_taken_below_the_destination(
    add: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    write_tree(tmp_path / "root", {"real": None, "d/ln": Link("/real")})
    with pytest.raises(BuildError, match=r'"ln/through" from "/t\.tar": no such file'):
        add(tar(member("ln/through", b"t")))
    assert os.listdir(tmp_path / "root/real") == []


@pytest.mark.parametrize("name", [".", "./", "/", "..", "a/..", "../.."])
def test_the_destination_itself_is_not_replaced(add: Callable[..., dict[str, str]], name: str) -> None:
    with pytest.raises(BuildError, match="only a directory can be the destination itself"):
        add(tar(member("f"), symlink(name, "/etc")))
    assert add(tar(member("f"), directory(name, 0o700, uid=9)))["d"] == "d 755"


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([hardlink("h", "nowhere")], 'unpack "h" from'),
        ([member("f"), member("f/below")], 'unpack "f/below" from'),
        ([member("c", type=tarfile.CHRTYPE, devmajor=0, devminor=0)], "device 0/0"),
        ([member("v", type=b"V")], "not supported"),
    ],
)
def test_errors_name_the_member(
    add: Callable[..., dict[str, str]], members: list[tuple[tarfile.TarInfo, bytes]], words: str
) -> None:
    with pytest.raises(BuildError, match=words):
        add(tar(member("first"), *members))


def test_an_archive_that_breaks_off_is_an_error(add: Callable[..., dict[str, str]]) -> None:
    with pytest.raises(BuildError, match="truncated"):
        add(tar(member("a", b"x" * 5000))[:2000])


def test_devices_are_made(add: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    add(tar(member("null", type=tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3)))
    info = (tmp_path / "root/d/null").stat()
    assert (info.st_rdev, stat.S_IMODE(info.st_mode)) == (os.makedev(1, 3), 0o666)


def test_whiteouts_are_for_what_was_there_before(add: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    write_tree(tmp_path / "root/d", {"a": "old", "b/old": "", "o/p/old": ""})
    found = add(
        tar(
            member("a", b"new"),
            member(".wh.a"),
            member("b/new"),
            member(".wh.b"),
            member("o/p/new"),
            member("o/.wh..wh..opq"),
        )
    )
    assert sorted(found) == ["d", "d/a", "d/b", "d/b/new", "d/o", "d/o/p", "d/o/p/new"]
    assert found["d/a"] == "f 644 'new'"


def test_a_file_may_have_a_slash_at_the_end(add: Callable[..., dict[str, str]]) -> None:
    """Only where an archive is older than the type for directories it is one."""
    old, info = tarfile.TarInfo("old/"), tarfile.TarInfo("file/")
    old.type, info.size = tarfile.AREGTYPE, 1
    assert add(tar((old, b""), (info, b"x"))) == {"d": "d 755", "d/old": "d 644", "d/file": "f 644 'x'"}
