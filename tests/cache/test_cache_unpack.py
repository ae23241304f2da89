"""Layer tars become overlay directories, and hostile ones become errors."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest
from layertools import overlay, tree
from tars import directory, entry, hardlink, symlink, tar

from cache.errors import LayerError
from cache.unpack import unpack_layer

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    path = tmp_path / "dest"
    path.mkdir()
    return path


def lower(tmp_path: Path, *members: tuple[tarfile.TarInfo, bytes], name: str = "lower") -> str:
    path = tmp_path / name
    path.mkdir()
    unpack_layer(io.BytesIO(tar(*members)), str(path))
    return str(path)


def unpack(dest: Path, *members: tuple[tarfile.TarInfo, bytes], lower_dirs: tuple[str, ...] = ()) -> bool:
    return unpack_layer(io.BytesIO(tar(*members)), str(dest), lower_dirs).portable


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def test_members_get_their_owner_mode_time_and_attributes(dest):
    os.umask(os.umask(0o077))
    unpack(
        dest,
        directory("d", 0o2750, uid=1, gid=2),
        entry("d/f", b"x", mode=0o4755, uid=3_000_000, gid=4, pax_headers={"SCHILY.xattr.user.note": "n"}),
        symlink("d/l", "/etc/passwd"),
        entry("d/p", type=tarfile.FIFOTYPE, mode=0o622),
        entry("d/c", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
    )
    status = (dest / "d/f").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_mtime) == (0o4755, 3_000_000, 4, 1000)
    assert os.getxattr(dest / "d/f", "user.note") == b"n"
    status = (dest / "d").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_mtime) == (0o2750, 1, 2, 1000)
    assert os.readlink(dest / "d/l") == "/etc/passwd"
    assert (dest / "d/l").lstat().st_mtime == 1000
    assert stat.S_IMODE((dest / "d/p").stat().st_mode) == 0o622
    assert (dest / "d/c").stat().st_rdev == os.makedev(1, 3)


def test_capabilities_survive_a_hard_link_to_their_file(dest):
    member, content = entry("tool", b"x", mode=0o755)
    member.pax_headers = {"SCHILY.xattr.security.capability": CAPABILITY.decode("latin-1")}
    raw = tar((member, content), hardlink("other", "tool", mode=0o755))
    assert CAPABILITY.isascii()
    unpack_layer(io.BytesIO(raw), str(dest))
    assert os.getxattr(dest / "other", "security.capability") == CAPABILITY
    assert (dest / "other").stat().st_ino == (dest / "tool").stat().st_ino


def test_overlayfs_attributes_in_a_tar_are_not_set(dest):
    member, _ = directory("d")
    member.pax_headers = {
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
    }
    unpack(dest, (member, b""))
    assert os.listxattr(dest / "d") == []


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_and_targets_of_both_kinds(dest, format):
    name = "/".join(["p" * 120] * 4)
    unpack_layer(io.BytesIO(tar(entry(name, b"x"), symlink("l", "t" * 300), format=format)), str(dest))
    assert (dest / name).read_bytes() == b"x"
    assert os.readlink(dest / "l") == "t" * 300


@pytest.mark.parametrize("name", ["./a", "/a", "a/", "x/../a", ".//a", "./x/./../a"])
def test_odd_spellings_stay_in_the_root(dest, name):
    is_directory = name.endswith("/")
    unpack(dest, directory(name) if is_directory else entry(name))
    assert (dest / "a").exists()


@pytest.mark.parametrize("name", [".", "./", "/", "", "a/.."])
def test_the_root_itself_gets_attributes_only(dest, name):
    unpack(dest, directory(name, 0o711, uid=7))
    assert stat.S_IMODE(dest.stat().st_mode) == 0o711
    assert dest.stat().st_uid == 7
    assert os.listdir(dest) == []


@pytest.mark.parametrize(
    "member",
    [
        entry(".."),
        entry("../evil"),
        entry("a/../../evil"),
        directory("../evil"),
        symlink("../evil", "x"),
        hardlink("evil", "../outside"),
        hardlink("evil", "../../../../etc/passwd"),
        entry("."),
        symlink("/", "x"),
        entry("d/.wh.."),
        entry(".wh..."),
        entry(".wh."),
        entry(".wh.../x/../../.wh..."),
        entry("c", type=tarfile.CHRTYPE),
        hardlink("evil", "missing"),
        hardlink("evil", "d"),
        hardlink("evil", "evil"),
        symlink("l", ""),
        entry("n" * 300),
        entry("n/" * 2100 + "n"),
        entry("f", type=b"V"),
        entry("f", mtime=2**70),
        entry("f", uid=2**40),
        entry("c", type=tarfile.CHRTYPE, devmajor=2**20, devminor=2**20),
    ],
    ids=lambda member: f"{member[0].type!r} {member[0].name[:20]} {member[0].linkname[:20]}",
)
def test_unsafe_members_are_refused(dest, tmp_path, member):
    (tmp_path / "outside").write_text("secret")
    raw = tar(directory("d"), member, format=tarfile.GNU_FORMAT)
    with pytest.raises(LayerError):
        unpack_layer(io.BytesIO(raw), str(dest))
    assert sorted(os.listdir(tmp_path)) == ["dest", "outside"]


@pytest.mark.parametrize("target", ["/", "..", "../..", "/tmp", "../outside", "/../outside", "x/../../outside"])
def test_nothing_is_written_through_a_symlink_out_of_the_root(dest, tmp_path, target):
    (tmp_path / "outside").mkdir()
    unpack(dest, directory("x"), symlink("l", target), entry("l/evil", b"x"))
    assert os.listdir(tmp_path / "outside") == []
    assert sorted(os.listdir(tmp_path)) == ["dest", "outside"]
    assert list(Path("/").glob("evil")) == []
    assert list(dest.rglob("evil"))


def test_a_chain_of_symlinks_stays_inside_too(dest, tmp_path):
    unpack(dest, symlink("a", "b"), symlink("b", "/c"), symlink("c", "../../.."), entry("a/evil"))
    assert (dest / "evil").exists()


@pytest.mark.parametrize(
    "links",
    [
        [symlink("a", "a")],
        [symlink("a", "b"), symlink("b", "a")],
        [directory("d"), *(symlink(f"a{i}", f"a{i + 1}/../a{i + 1}") for i in range(60)), symlink("a60", "d")],
    ],
)
def test_symlink_loops_end(dest, links):
    first = next(member.name for member, _ in links if member.issym())
    with pytest.raises(LayerError, match="symbolic links"):
        unpack(dest, *links, entry(f"{first}/x"))


def test_a_symlink_that_is_replaced_is_not_followed(dest, tmp_path):
    (tmp_path / "outside").mkdir()
    outside = str(tmp_path / "outside")
    unpack(dest, directory("d"), entry("d/1"), symlink("s", outside), directory("s"), entry("s/2"))
    assert (dest / "s/2").exists()
    os.unlink(dest / "d/1")
    unpack(dest, symlink("t", outside), hardlink("u", "t"), entry("t", b"x"))
    assert (dest / "t").read_bytes() == b"x"
    assert os.readlink(dest / "u") == outside
    assert os.listdir(outside) == []


def test_a_directory_swapped_for_a_symlink_is_not_written_through(dest, tmp_path):
    (tmp_path / "outside").mkdir()
    unpack(dest, directory("d"), entry("d/1"), symlink("d", "../outside"), entry("d/2"))
    assert os.listdir(tmp_path / "outside") == []
    assert (dest / "outside/2").exists()


def test_a_hard_link_to_a_symlink_links_the_symlink(dest, tmp_path):
    (tmp_path / "secret").write_text("secret")
    unpack(dest, symlink("l", str(tmp_path / "secret")), hardlink("h", "l", mode=0o777))
    assert os.readlink(dest / "h") == str(tmp_path / "secret")
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o644


def test_a_hard_link_through_a_symlinked_directory_stays_inside(dest, tmp_path):
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(LayerError):
        unpack(dest, symlink("l", str(tmp_path)), hardlink("h", "l/secret"))


def test_a_parent_that_is_a_file_is_an_error(dest):
    with pytest.raises(LayerError, match="not a directory"):
        unpack(dest, entry("f"), entry("f/x"))


def test_whiteouts_hide_what_lies_below_and_replace_what_came_before(dest, tmp_path):
    base = lower(tmp_path, entry("a"), entry("b/c"), entry("e/f"))
    portable = unpack(
        dest, entry("x"), entry(".wh.a"), entry("b/.wh.c"), entry(".wh.x"), entry("e/.wh.f"), lower_dirs=(base,)
    )
    assert not portable  # the parents came from the base
    assert is_whiteout(dest / "a")
    with overlay(tmp_path / "mnt", (str(dest), base)) as root:
        assert sorted(tree(root)) == ["b", "e"]


def test_an_opaque_mark_hides_the_lower_directory_whatever_its_place(dest, tmp_path):
    base = lower(tmp_path, entry("d/old"), entry("e/old"))
    unpack(dest, directory("d"), entry("d/new"), entry("d/.wh..wh..opq"), entry("e/.wh..wh..opq"), lower_dirs=(base,))
    with overlay(tmp_path / "mnt", (str(dest), base)) as root:
        assert sorted(tree(root)) == ["d", "d/new", "e"]


def test_a_directory_after_its_own_whiteout_is_a_new_one(dest, tmp_path):
    base = lower(tmp_path, entry("d/old"), entry("e/old"))
    unpack(dest, entry(".wh.d"), directory("d", 0o700), entry(".wh.e"), entry("e/new"), lower_dirs=(base,))
    with overlay(tmp_path / "mnt", (str(dest), base)) as root:
        assert sorted(tree(root)) == ["d", "e", "e/new"]


def test_whiteouts_in_the_lowest_layer_leave_no_device(dest):
    unpack(dest, entry(".wh.a"), entry("d/.wh..wh..opq"), entry("d/x"))
    assert sorted(tree(dest)) == ["d", "d/x"]
    assert os.listxattr(dest / "d") == []


def test_files_of_aufs_are_ignored(dest):
    unpack(dest, directory(".wh..wh.plnk"), entry(".wh..wh.aufs"), entry("a"))
    assert os.listdir(dest) == ["a"]


def test_parents_that_the_tar_leaves_out_come_from_the_lower_layers(dest, tmp_path):
    base = lower(tmp_path, directory("d", 0o2711, uid=5, gid=6, mtime=77), entry("d/old"))
    portable = unpack(dest, entry("d/new"), entry("e/new"), lower_dirs=(base,))
    status = (dest / "d").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime) == (0o2711, 5, 6, 77)
    assert stat.S_IMODE((dest / "e").stat().st_mode) == 0o755
    assert not portable
    assert not unpack(dest, entry("f/new"))  # another base may have that directory with another mode
    assert unpack(dest, directory("g"), entry("g/new"))


def test_a_symlink_in_a_lower_layer_is_resolved_within_the_root(dest, tmp_path):
    base = lower(
        tmp_path,
        directory("usr/lib"),
        symlink("lib", "usr/lib"),
        symlink("abs", "/usr/lib"),
        symlink("up", "../../usr"),
    )
    unpack(dest, entry("lib/a"), entry("abs/b"), entry("up/c"), lower_dirs=(base,))
    assert sorted(path for path in tree(dest)) == ["usr", "usr/c", "usr/lib", "usr/lib/a", "usr/lib/b"]


def test_a_hard_link_to_a_lower_file_copies_it_up(dest, tmp_path):
    base = lower(tmp_path, entry("d/f", b"content", mode=0o640, uid=9), symlink("l", "x"))
    assert not unpack(dest, hardlink("g", "d/f", mode=0o640, uid=9), hardlink("m", "l"), lower_dirs=(base,))
    assert (dest / "g").read_bytes() == b"content"
    assert (dest / "g").stat().st_ino == (dest / "d/f").stat().st_ino
    assert (dest / "g").stat().st_uid == 9
    assert os.readlink(dest / "m") == "x"


def test_a_deleted_lower_file_cannot_be_linked_to(dest, tmp_path):
    base = lower(tmp_path, entry("f"))
    with pytest.raises(LayerError):
        unpack(dest, entry(".wh.f"), hardlink("g", "f"), lower_dirs=(base,))


def test_later_members_replace_earlier_ones(dest):
    unpack(dest, directory("d"), entry("d/x"), entry("d", b"file"), entry("f"), directory("f"), entry("f/y"))
    assert (dest / "d").read_bytes() == b"file"
    assert (dest / "f/y").exists()


def test_directory_times_are_set_after_their_content(dest):
    unpack(dest, directory("d", mtime=50), entry("d/a"), directory("d/e", mtime=60), entry("d/e/b"))
    assert (dest / "d").stat().st_mtime == 50
    assert (dest / "d/e").stat().st_mtime == 60


def test_many_directories_need_few_descriptors(dest):
    members = [entry("/".join(f"d{i}" for i in range(n)) + "/f") for n in range(1, 150)]
    unpack(dest, *members, *(hardlink(f"l{n}", member.name) for n, (member, _) in enumerate(members)))
    assert sum(name.endswith("/f") for name in tree(dest)) == 149
    assert len(os.listdir("/proc/self/fd")) < 60


GOOD = tar(entry("a", b"x" * 2000), entry("b", b"y"))


@pytest.mark.parametrize(
    "stream",
    [
        b"x",
        b"garbage" * 1000,
        os.urandom(1 << 20),
        GOOD[:100],
        GOOD[:700],
        GOOD[:3000],
        gzip.compress(GOOD),
        b"\0" * 512 + GOOD,
        GOOD[:512].replace(b"ustar", b"ustaR") + GOOD[512:],
        GOOD[:124] + b"99999999999\0" + GOOD[136:],
        GOOD[:124] + b"\xff" * 12 + GOOD[136:],
    ],
)
def test_garbage_and_truncated_streams_are_layer_errors(dest, stream):
    with pytest.raises(LayerError):
        unpack_layer(io.BytesIO(stream), str(dest))


@pytest.mark.parametrize("end", [GOOD[:2560], GOOD[:3584], GOOD[:3584] + bytes(512), GOOD, GOOD + b"trailing"])
def test_a_tar_may_end_at_a_member_or_at_zero_blocks(dest, end):
    unpack_layer(io.BytesIO(end), str(dest))
    assert (dest / "a").stat().st_size == 2000


def test_no_bytes_are_an_empty_layer(dest):
    assert unpack_layer(io.BytesIO(b""), str(dest)).entries == 0


def pax_block(body: bytes, size: int | None = None) -> bytes:
    member = tarfile.TarInfo("x")
    member.type = b"x"
    member.size = len(body) if size is None else size
    return member.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)


@pytest.mark.parametrize(
    "block",
    [
        pax_block(b"nonsense"),
        pax_block(b"9999 path=x\n"),
        pax_block(b"3 path=x\n"),
        pax_block(b"-5 path=x\n"),
        pax_block(b"0 path=x\n"),
        pax_block(b"8 path=x"),
        pax_block(b"", 1 << 30),
        pax_block(b"22 GNU.sparse.major=1\n"),
        pax_block(b"11 mtime=x\n"),
        pax_block(b"10 uid=-1\n"),
        pax_block(b"12 path=a\0b\n"),
        pax_block(b"8 size=1\n")[:512],
    ],
)
def test_malformed_extended_headers_are_layer_errors(dest, block):
    with pytest.raises(LayerError):
        unpack_layer(io.BytesIO(block + tar(entry("a"), format=tarfile.USTAR_FORMAT)), str(dest))


def test_many_small_records_are_read_in_linear_time(dest):
    record = b"6 a=b\n"
    body = record * ((1 << 20) // len(record))
    unpack_layer(io.BytesIO(pax_block(body) + tar(entry("a"), format=tarfile.USTAR_FORMAT)), str(dest))
    assert os.listdir(dest) == ["a"]
