"""Random trees, what lies in a directory or a tar, and COPY in a plain directory: the other side of the properties."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tarfile
import zlib
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

OLD = 1_400_000_000
"""Times before this one were given by a test, later ones are those of the clock."""
NAMES = st.sampled_from(
    [
        *(b"a", b"b", b"c", b"d", b"a.b", b"A", b".hidden", b".wh", "é".encode(), b"n" * 200, b"\xff\xfe"),
        *(b" ", b"-rf", b"#", b"$x", b"[a]", b"*", b"\\", b"'\"", b"a\nb", b"=", b"%s"),
    ]
)
TARGETS = st.sampled_from([b"a", b"../b", b"/w/a", b"missing", b"../../../../etc/passwd", b".", b"a.b/c"])
MODES = st.sampled_from([0o644, 0o600, 0o755, 0o4755, 0o2750, 0o1777, 0o000, 0o444])


class Node(NamedTuple):
    """One entry to make. `kind`: f a file with `content`, d, l a symlink to `content`, p a fifo, h another name of the
    file `content`."""

    kind: str
    content: bytes
    mode: int

    @property
    def seconds(self) -> int:
        """Its time: the same for the same content, since a cached COPY has the times of the files it was made from."""
        return zlib.crc32(self.kind.encode() + self.content) % OLD


@st.composite
def trees(draw: st.DrawFn, most: int = 10) -> dict[bytes, Node]:
    """Paths relative to the tree's top, parents first."""
    directories = [b""]
    nodes: dict[bytes, Node] = {}
    for _ in range(draw(st.integers(1, most))):
        above = draw(st.sampled_from(directories))
        path = os.path.join(above, draw(NAMES))
        if path in nodes:
            continue
        kind = draw(st.sampled_from("fffddlph"))
        content = draw(TARGETS) if kind == "l" else draw(st.binary(max_size=40)) if kind == "f" else b""
        if kind == "h":
            files = [name for name, node in nodes.items() if node.kind == "f"]
            if not files:
                continue
            content = draw(st.sampled_from(files))
        if kind == "d":
            directories.append(path)
        nodes[path] = Node(kind, content, draw(MODES))
    return nodes


def make(top: Path, nodes: dict[bytes, Node]) -> None:
    """Make the tree below the new directory `top`; its files have attributes that are for this machine only."""
    top.mkdir(parents=True)
    base = os.fsencode(top)
    for name, node in nodes.items():
        path = os.path.join(base, name)
        if node.kind == "d":
            os.mkdir(path)
        elif node.kind == "l":
            os.symlink(node.content, path)
        elif node.kind == "p":
            os.mkfifo(path)
        elif node.kind == "h":
            os.link(os.path.join(base, node.content), path)
        else:
            Path(os.fsdecode(path)).write_bytes(node.content)
            os.setxattr(path, "user.origin", b"here")
    for name, node in reversed(nodes.items()):
        path = os.path.join(base, name)
        if node.kind not in "lh":
            os.chmod(path, node.mode)
        os.utime(path, (node.seconds, node.seconds), follow_symlinks=False)
    os.utime(top, (1, 1))


class Entry(NamedTuple):
    """What counts of one path: `time` is -1 for one that the clock gave, `first` its first name."""

    kind: int
    mode: int
    owner: tuple[int, int]
    time: int
    content: bytes
    first: bytes


def in_directory(top: Path) -> dict[bytes, Entry]:
    """Everything below a directory."""
    base = os.fsencode(top)
    found: dict[bytes, Entry] = {}
    for directory, names, files in os.walk(base):
        for name in names + files:
            path = os.path.join(directory, name)
            info = os.lstat(path)
            kind = stat.S_IFMT(info.st_mode)
            content = os.readlink(path) if kind == stat.S_IFLNK else b""
            if kind == stat.S_IFREG:
                content = Path(os.fsdecode(path)).read_bytes()
            owner = (info.st_uid, info.st_gid)
            time = int(info.st_mtime) if info.st_mtime < OLD else -1
            entry = Entry(kind, stat.S_IMODE(info.st_mode), owner, time, content, str(info.st_ino).encode())
            found[os.path.relpath(path, base)] = entry
    return _named_firsts(found)


def _named_firsts(found: dict[bytes, Entry]) -> dict[bytes, Entry]:
    """Inode numbers replaced by the first name that has each."""
    names: dict[bytes, bytes] = {}
    for path in sorted(found):
        names.setdefault(found[path].first, path)
    return {path: entry._replace(first=names[entry.first]) for path, entry in found.items()}


_KINDS = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}


def in_tar(path: Path) -> dict[bytes, Entry]:
    """Everything in a tar; no entry may have extended attributes."""
    found: dict[bytes, Entry] = {}
    with tarfile.open(path, encoding="utf-8", errors="surrogateescape") as tar:
        for member in tar:
            name = os.fsencode(member.name).strip(b"/")
            assert not [key for key in member.pax_headers if "xattr" in key], name
            if member.islnk():
                found[name] = found[os.fsencode(member.linkname).strip(b"/")]
                continue
            content = os.fsencode(member.linkname)
            if member.isreg():
                file = tar.extractfile(member)
                assert file is not None
                content = file.read()
            time = int(member.mtime) if member.mtime < OLD else -1
            owner = (member.uid, member.gid)
            found[name] = Entry(_KINDS[member.type], stat.S_IMODE(member.mode), owner, time, content, name)
    return _named_firsts(found)


class Copy(NamedTuple):
    """COPY of one source to an absolute path that ends in no symlink, as cp(1) is told to do it."""

    source: Path
    dest: str
    chmod: int | None = None
    chown: tuple[int, int] | None = None
    keeps_owners: bool = False


def target_of(copy: Copy, root: Path) -> Path:
    """Where the source itself goes: below a directory or a path with a slash at its end, a file keeps its name."""
    target = root / copy.dest.strip("/")
    is_dir = copy.source.is_dir()
    return target / copy.source.name if not is_dir and (copy.dest.endswith("/") or target.is_dir()) else target


def is_possible(copy: Copy, root: Path) -> bool:
    """Whether no directory meets something else on the way, which COPY refuses."""
    base, target = os.fsencode(copy.source), os.fsencode(target_of(copy, root))
    if not copy.source.is_dir():
        return not os.path.isdir(target) or os.path.islink(target)
    for directory, names, files in os.walk(base):
        for name in [b"", *names, *files]:
            path = os.path.join(directory, name)
            there = os.path.normpath(os.path.join(target, os.path.relpath(path, base)))
            if os.path.lexists(there) and _is_real_dir(path) != _is_real_dir(there):
                return False
    return True


def _is_real_dir(path: bytes) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def copy_plainly(copy: Copy, root: Path) -> None:
    """Do in the plain directory `root` what COPY does in an image."""
    target = target_of(copy, root)
    _make_parents(target if copy.source.is_dir() else target.parent, copy)
    before = target.stat() if target.is_dir() else None
    kept = "all" if copy.keeps_owners else "mode,timestamps,links"
    words = ["cp", "-rdT", "--remove-destination", f"--preserve={kept}", str(copy.source), str(target)]
    subprocess.run(words, check=True)
    made = [target]
    if copy.source.is_dir():
        relative = [path.relative_to(copy.source) for path in copy.source.rglob("*")]
        made += [target / path for path in relative]
    for path in made:
        _finish(path, copy)
    if before is not None:
        os.chown(target, before.st_uid, before.st_gid)
        os.chmod(target, stat.S_IMODE(before.st_mode))


def _make_parents(directory: Path, copy: Copy) -> None:
    if directory.is_dir():
        return
    _make_parents(directory.parent, copy)
    directory.mkdir()
    os.chmod(directory, 0o755 if copy.chmod is None else copy.chmod & 0o777)
    os.chown(directory, *(copy.chown or (0, 0)))


def _finish(path: Path, copy: Copy) -> None:
    """Owners of a context's files go, directories that were there before included; --chown and --chmod come."""
    owner = copy.chown or (None if copy.keeps_owners else (0, 0))
    if path.is_symlink():
        if owner:
            os.lchown(path, *owner)
        return
    mode = stat.S_IMODE(path.stat().st_mode) if copy.chmod is None else copy.chmod
    if owner:
        os.chown(path, *owner)
    os.chmod(path, mode)


def clone(source: Path, target: Path) -> None:
    """A copy of a whole tree, everything as it is."""
    if target.exists():
        shutil.rmtree(target)
    subprocess.run(["cp", "-a", source, target], check=True)
