"""The tar of a tree: deterministic, pinned, and the same tree again when it is unpacked."""

from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
import stat
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layertools import tree

from cache import tarwriter
from cache.changes import ADD, DELETE, MODIFY, changes, tree_changes
from cache.errors import LayerError
from cache.layer import TarSummary, tar_chunks, write_tar
from cache.tarreader import read_tar
from cache.tarwriter import TarEntry
from cache.unpack import unpack_layer


class Spec(NamedTuple):
    """An entry to make: kind f (text: its content), d, l (its target), p, or h (a file that it is a link to)."""

    kind: str
    text: bytes
    mode: int
    owner: int
    seconds: int


def make(root: str, specs: dict[bytes, Spec]) -> None:
    base = os.fsencode(root)
    for name, spec in specs.items():
        path = base + b"/" + name
        if spec.kind == "d":
            os.mkdir(path)
        elif spec.kind == "l":
            os.symlink(spec.text, path)
        elif spec.kind == "p":
            os.mkfifo(path)
        elif spec.kind == "h":
            os.link(base + b"/" + spec.text, path)
            continue
        else:
            with open(path, "wb") as file:
                file.write(spec.text)
        os.chown(path, spec.owner, spec.owner, follow_symlinks=False)
        if spec.kind != "l":
            os.chmod(path, spec.mode)
    for name, spec in reversed(specs.items()):
        os.utime(base + b"/" + name, (spec.seconds, spec.seconds), follow_symlinks=False)


def plain_tar(root: str) -> bytes:
    return b"".join(tar_chunks(tree_changes(root), root))


NAMES = st.binary(min_size=1, max_size=12).map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_")).filter(
    lambda name: name not in (b".", b"..") and not name.startswith(b".wh.")
) | st.sampled_from([b"a", b"b", b"a.b", b"n" * 130, "é".encode(), b"-", b" "])


@st.composite
def trees(draw: st.DrawFn) -> dict[bytes, Spec]:
    directories = [b""]
    specs: dict[bytes, Spec] = {}
    for _ in range(draw(st.integers(0, 15))):
        parent, name = draw(st.sampled_from(directories)), draw(NAMES)
        path = parent + b"/" + name if parent else name
        if path in specs:
            continue
        kind = draw(st.sampled_from("fffddlph"))
        files = [known for known, spec in specs.items() if spec.kind in "flp"]
        text = draw(st.binary(max_size=2000))
        if kind == "l":
            text = draw(NAMES)
        elif kind == "h":
            if not files:
                continue
            text = draw(st.sampled_from(files))
        mode = draw(st.integers(0, 0o7777))
        owner = draw(st.sampled_from([0, 1000, 2_097_151, 2_097_152, 4_000_000_000]))
        specs[path] = Spec(kind, text, mode, owner, draw(st.integers(-(2**31), 2**34)))
        if kind == "h":
            specs[path] = specs[text]._replace(kind="h", text=text)
        if kind == "d":
            directories.append(path)
    return specs


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees())
def test_unpacking_a_packed_tree_gives_the_same_tree(specs):
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        make(one, specs)
        packed = plain_tar(one)
        unpack_layer(io.BytesIO(packed), two)
        assert tree(two) == tree(one)
        assert plain_tar(two) == packed


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees(), st.randoms(use_true_random=False))
def test_the_order_of_making_and_walking_does_not_matter(specs, chance):
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        make(one, specs)
        make(two, shuffled(specs, chance))
        assert write_tar(tree_changes(one), one) == write_tar(tree_changes(two), two)


def shuffled(specs: dict[bytes, Spec], chance: random.Random) -> dict[bytes, Spec]:
    """Another order in which every directory still comes before what is in it, and every file before its links."""
    order = list(specs)
    chance.shuffle(order)
    order.sort(key=lambda name: (specs[name].kind == "h", name.count(b"/") if specs[name].kind == "d" else 1 << 20))
    order.sort(key=lambda name: 0 if specs[name].kind == "d" else 2 if specs[name].kind == "h" else 1)
    return {name: specs[name] for name in order}


FIXED = {
    b"etc": Spec("d", b"", 0o755, 0, 1_600_000_000),
    b"etc/passwd": Spec("f", b"root:x:0:0::/root:/bin/sh\n", 0o644, 0, 1_600_000_001),
    b"etc.conf": Spec("f", b"", 0o600, 0, 1_600_000_002),
    b"etc/mtab": Spec("l", b"/proc/mounts", 0o777, 0, 1_600_000_003),
    b"etc/link": Spec("h", b"etc/passwd", 0o644, 0, 1_600_000_001),
    b"fifo": Spec("p", b"", 0o622, 1000, 1_600_000_004),
    b"late": Spec("f", b"late", 0o4755, 3_000_000, 2**34),
    b"long": Spec("d", b"", 0o1777, 0, 0),
    b"long/" + b"l" * 110: Spec("f", b"l", 0o640, 7, 5),
    b"long/" + b"m" * 150: Spec("f", b"m", 0o640, 7, 5),
    "ünï".encode(): Spec("f", b"u", 0o640, 7, 5),
}


@pytest.fixture
def fixed(tmp_path: Path) -> str:
    root = tmp_path / "fixed"
    root.mkdir()
    make(str(root), FIXED)
    os.setxattr(root / "etc/passwd", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    os.setxattr(root / "etc/passwd", "user.note", b"not in the layer")
    os.mknod(root / "long/gone", stat.S_IFCHR, 0)
    os.utime(root / "long", (0, 0))
    return str(root)


def test_a_fixed_tree_has_a_pinned_layer(fixed):
    """These values name layers in stores and registries: when they move, every cache in the world misses."""
    assert write_tar(tree_changes(fixed), fixed) == TarSummary(
        "sha256:1fbe342d07e8e4668b541da2cbc3dce7d3d976da7f80253ffcc9cfb5443e25ac",
        "a29b301069eab56031f5cd38e17372b5",
        15872,
        12,
    )


def test_entries_are_in_the_order_of_their_names_bytes(fixed):
    with tarfile.open(fileobj=io.BytesIO(plain_tar(fixed))) as archive:
        names = [os.fsencode(member.name) for member in archive]
    assert names == sorted(names)
    assert b"long/.wh.gone" in names
    assert len(names) == 12


def test_the_standard_library_and_our_reader_read_the_same(fixed):
    packed = plain_tar(fixed)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        theirs = [
            (m.name, m.type.decode(), m.mode, m.uid, m.gid, m.size, m.mtime, m.linkname, m.uname, m.gname)
            for m in archive
        ]
    ours = [
        (m.name.rstrip("/"), m.type, m.mode, m.uid, m.gid, m.size, m.mtime_ns / 10**9, m.linkname, "", "")
        for m in read_tar(io.BytesIO(packed))
    ]
    assert ours == theirs


def test_only_capabilities_are_kept_of_the_attributes(fixed):
    members = {member.name: member.xattrs for member in read_tar(io.BytesIO(plain_tar(fixed)))}
    assert list(members["etc/link"]) == ["security.capability"]
    assert members["etc/passwd"] == members["etc/link"]
    assert not any(xattrs for name, xattrs in members.items() if not name.startswith("etc/"))


def test_times_are_whole_seconds_and_can_be_clamped(tmp_path):
    (tmp_path / "f").write_text("x")
    os.utime(tmp_path / "f", ns=(10**18 + 999_999_999, 10**18 + 999_999_999))
    (tmp_path / "g").write_text("x")
    os.utime(tmp_path / "g", (5, 5))
    found = tree_changes(str(tmp_path))
    packed = b"".join(tar_chunks(found, str(tmp_path), clamp_epoch=100))
    assert [member.mtime_ns for member in read_tar(io.BytesIO(packed))] == [100 * 10**9, 5 * 10**9]
    packed = b"".join(tar_chunks(found, str(tmp_path)))
    assert [member.mtime_ns for member in read_tar(io.BytesIO(packed))] == [10**18, 5 * 10**9]


@pytest.mark.parametrize(
    "entry",
    [
        TarEntry(b"x", b"0", 0o644, 0, 0, 2**40, 0),
        TarEntry(b"n" * 256, b"0", 0o7777, 2**32 - 1, 2**32 - 2, 0, -1),
        TarEntry(b"d/" * 120, b"5", 0, 0, 0, 0, 2**40),
        TarEntry(b"p" * 155 + b"/" + b"n" * 100, b"0", 0, 0, 0, 0, 2**33 - 1),
        TarEntry(b"p" * 156 + b"/" + b"n" * 100, b"0", 0, 0, 0, 0, 2**33),
        TarEntry(b"\xff\xfe", b"2", 0o777, 0, 0, 0, 0, b"\xfd" * 3),
        TarEntry(b"c", b"3", 0o600, 0, 0, 0, 0, b"", 4095, 2**20 - 1),
        TarEntry(b"x", b"0", 0, 0, 0, 0, 0, b"", 0, 0, ((b"security.capability", b"\n=\0\xff" * 50),)),
        *(TarEntry(b"n" * length, b"0", 0, 0, 0, 0, 0) for length in range(75, 110)),
    ],
)
def test_a_header_says_what_the_entry_is(entry):
    header = tarwriter.encode(entry)
    assert len(header) % 512 == 0
    (member,) = read_tar(io.BytesIO(header)) if not entry.size else first_member(header)
    assert os.fsencode(member.name) == entry.name
    assert (member.type.encode(), member.mode, member.uid, member.gid, member.size) == entry[1:6]
    assert (member.mtime_ns, os.fsencode(member.linkname)) == (entry.mtime * 10**9, entry.linkname)
    assert (member.devmajor, member.devminor) == (entry.devmajor, entry.devminor)
    assert {key.encode(): value for key, value in member.xattrs.items()} == dict(entry.xattrs)
    with tarfile.open(fileobj=io.BytesIO(header + tarwriter.END)) as archive:
        theirs = archive.firstmember if entry.size else archive.next()
    assert theirs is not None
    assert os.fsencode(theirs.name) == entry.name.rstrip(b"/")
    assert (theirs.uid, theirs.gid, theirs.size, theirs.mtime) == (entry.uid, entry.gid, entry.size, entry.mtime)


def first_member(header: bytes):
    return [next(read_tar(io.BytesIO(header)))]


def test_a_large_file_is_read_in_pieces(tmp_path):
    content = os.urandom(1 << 20) * 5 + b"odd"
    (tmp_path / "f").write_bytes(content)
    chunks = list(tar_chunks(tree_changes(str(tmp_path)), str(tmp_path)))
    assert max(map(len, chunks)) <= 1 << 20
    summary = write_tar(tree_changes(str(tmp_path)), str(tmp_path))
    assert summary.diff_id == "sha256:" + hashlib.sha256(b"".join(chunks)).hexdigest()
    assert summary.size == sum(map(len, chunks))
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        assert archive.extractfile("f").read() == content


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path):
    (tmp_path / "f").write_bytes(b"x" * 1000)
    found = tree_changes(str(tmp_path))
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(LayerError, match="shorter"):
        write_tar(found, str(tmp_path))


def test_a_directory_swapped_for_a_symlink_is_not_read_through(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/f").write_text("secret")
    (tmp_path / "root/d").mkdir(parents=True)
    (tmp_path / "root/d/f").write_text("public")
    found = tree_changes(str(tmp_path / "root"))
    shutil.rmtree(tmp_path / "root/d")
    (tmp_path / "root/d").symlink_to("../outside")
    with pytest.raises(Exception, match="root"):
        write_tar(found, str(tmp_path / "root"))


def test_changes_know_their_kind_and_are_in_the_order_of_paths(tmp_path):
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for path in ("d/same", "d/mode", "d.x", "gone"):
        (lower / path).parent.mkdir(parents=True, exist_ok=True)
        (lower / path).write_text("x")
    shutil.copytree(lower, upper, copy_function=shutil.copy2)
    os.chmod(upper / "d/mode", 0o600)
    (upper / "new").write_text("x")
    (upper / "gone").unlink()
    os.mknod(upper / "gone", stat.S_IFCHR, 0)
    os.mknod(upper / "never", stat.S_IFCHR, 0)
    assert [change[:2] for change in changes(str(upper), (str(lower),))] == [
        (MODIFY, "/d"),
        (MODIFY, "/d/mode"),
        (DELETE, "/gone"),
        (ADD, "/new"),
    ]


def test_the_lowest_layers_are_seen_through_those_above(tmp_path):
    """Whiteouts and opaque directories between the upper directory and a lower file hide it."""
    layers = [tmp_path / name for name in ("upper", "top", "bottom")]
    upper, top, bottom = layers
    for layer, path in ((bottom, "a/b"), (bottom, "c/d"), (bottom, "e"), (top, "c/x"), (bottom, "f/g")):
        (layer / path).parent.mkdir(parents=True, exist_ok=True)
        (layer / path).write_text("x")
    os.mknod(top / "a", stat.S_IFCHR, 0)
    os.setxattr(top / "c", "trusted.overlay.opaque", b"y")
    (top / "f").write_text("a file now")
    for path in ("a/b", "c/d", "c/x", "f/g", "e"):
        (upper / path).parent.mkdir(parents=True, exist_ok=True)
        os.mknod(upper / path, stat.S_IFCHR, 0)
    found = [change.path for change in changes(str(upper), (str(top), str(bottom))) if change.kind == DELETE]
    assert found == ["/c/x", "/e"]
