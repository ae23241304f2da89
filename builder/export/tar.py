"""The tars of exports: that of an image archive, and a merged tree as one (`type=tar`), as `docker export` writes it.

A tree's order is that of the walk; numeric owners, whole seconds, hard links to the first path, capabilities as PAX
records.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from builder.errors import BuildError
from builder.export.file import ByteSink
from builder.export.walk import MergedEntry
from cache import tarwriter
from cache.tarwriter import TarEntry

_CHUNK = 1 << 20
_CAPABILITY = "security.capability"
_KINDS = {
    stat.S_IFREG: tarwriter.REGULAR,
    stat.S_IFDIR: tarwriter.DIRECTORY,
    stat.S_IFLNK: tarwriter.SYMLINK,
    stat.S_IFCHR: tarwriter.CHARDEV,
    stat.S_IFBLK: tarwriter.BLOCKDEV,
    stat.S_IFIFO: tarwriter.FIFO,
}


class ArchiveWriter:
    """A tar of plain files and directories (POSIX pax), the same bytes for the same files: no owners, no times."""

    def __init__(self, sink: ByteSink) -> None:
        self._sink = sink

    def add_directory(self, name: str) -> None:
        """Append a directory; `name` ends in a slash."""
        self._sink.write(tarwriter.encode(TarEntry(name.encode(), tarwriter.DIRECTORY, 0o755, 0, 0, 0, 0)))

    def add_bytes(self, name: str, content: bytes) -> None:
        """Append a file."""
        self.add_file(name, len(content), (content,))

    def add_file(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
        """Append a file of exactly `size` bytes."""
        self._sink.write(tarwriter.encode(TarEntry(name.encode(), tarwriter.REGULAR, 0o644, 0, 0, size, 0)))
        written = 0
        for chunk in chunks:
            self._sink.write(chunk)
            written += len(chunk)
        assert written == size, f"{name}: {written} bytes, the header says {size}"
        self._sink.write(tarwriter.padding(size))

    def close(self) -> None:
        """Append the end of the archive."""
        self._sink.write(tarwriter.END)


class TreeTar:
    """A tar under construction; several trees may follow each other, each below its own `prefix`."""

    def __init__(self, sink: ByteSink) -> None:
        self._sink = sink

    def add_tree(self, entries: Iterable[MergedEntry], prefix: str = "") -> None:
        """Append a tree, parents first; `prefix` is "" or a name that ends in a slash."""
        links: dict[tuple[int, int, int], bytes] = {}
        if prefix:
            root = TarEntry(os.fsencode(prefix), tarwriter.DIRECTORY, 0o755, 0, 0, 0, 0)
            self._sink.write(tarwriter.encode(root))
        for entry in entries:
            if not stat.S_ISSOCK(entry.stat.st_mode):  # tar has no sockets; nobody listens in an image
                self._add(entry, os.fsencode(prefix + entry.path[1:]), links)

    def close(self) -> None:
        """Append the end of the archive."""
        self._sink.write(tarwriter.END)

    def _add(self, entry: MergedEntry, name: bytes, links: dict[tuple[int, int, int], bytes]) -> None:
        status = entry.stat
        header = _header(entry, name)
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            first = links.setdefault((entry.layer, status.st_dev, status.st_ino), name)
            if first is not name:
                link = header._replace(type=tarwriter.HARDLINK, size=0, linkname=first, xattrs=())
                self._sink.write(tarwriter.encode(link))
                return
        self._sink.write(tarwriter.encode(header))
        if stat.S_ISREG(status.st_mode):
            for chunk in _content(entry):
                self._sink.write(chunk)
            self._sink.write(tarwriter.padding(status.st_size))


def _header(entry: MergedEntry, name: bytes) -> TarEntry:
    status = entry.stat
    kind = stat.S_IFMT(status.st_mode)
    return TarEntry(
        name=name + b"/" if kind == stat.S_IFDIR else name,
        type=_KINDS[kind],
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind == stat.S_IFREG else 0,
        mtime=status.st_mtime_ns // 1_000_000_000,
        linkname=os.fsencode(os.readlink(entry.source)) if kind == stat.S_IFLNK else b"",
        devmajor=os.major(status.st_rdev),
        devminor=os.minor(status.st_rdev),
        xattrs=_capability(entry.source) if kind == stat.S_IFREG else (),
    )


def _capability(path: str) -> tuple[tuple[bytes, bytes], ...]:
    try:
        return ((_CAPABILITY.encode(), os.getxattr(path, _CAPABILITY, follow_symlinks=False)),)
    except OSError:
        return ()


def _content(entry: MergedEntry) -> Iterator[bytes]:
    left = entry.stat.st_size
    with open(entry.source, "rb", buffering=0) as file:
        while left:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                raise BuildError(f"{entry.path} became shorter while it was read")
            left -= len(chunk)
            yield chunk
