"""A layer as a tar stream: entries in the order of their names' bytes, hard links to the first path, OCI whiteouts.

One pass over a normalized directory gives the diff_id (sha256 of the tar), the content digest (which ignores times, and
so says whether two layers mean the same), the size and the number of entries. Files are opened by descriptors below
the directory, never through a symlink.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from cache import tarwriter
from cache.changes import Change, capability, entry_name
from cache.digest import Digest
from cache.dirfds import DirectoryCache, read_limited
from cache.errors import LayerError, os_errors
from cache.namedtuple import NamedTuple
from cache.tarwriter import BLOCK, TarEntry

if TYPE_CHECKING:
    import xxhash

_CHUNK = 1 << 18
"""Small enough to be hashed twice while it is in the processor's cache."""
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SPECIAL = {stat.S_IFCHR: tarwriter.CHARDEV, stat.S_IFBLK: tarwriter.BLOCKDEV, stat.S_IFIFO: tarwriter.FIFO}


class TarSummary(NamedTuple):
    """What one pass over a layer's tar tells; `size` is its length in bytes."""

    diff_id: Digest
    content_digest: str
    size: int
    entries: int


def write_tar(
    changes: Sequence[Change],
    tree_dir: str,
    out: Callable[[bytes], object] | None = None,
    *,
    clamp_epoch: int | None = None,
) -> TarSummary:
    """Write the layer's tar to `out` in chunks of about 256 KiB (None: only hash it).

    No time is later than `clamp_epoch` seconds. LayerError when a file changes while it is read.
    """
    import xxhash

    diff, content, size = hashlib.sha256(), xxhash.xxh3_128(), 0
    for chunk in tar_chunks(changes, tree_dir, clamp_epoch=clamp_epoch, content=content):
        diff.update(chunk)
        size += len(chunk)
        if out is not None:
            out(chunk)
    return TarSummary(Digest.of_hex(diff.hexdigest()), content.hexdigest(), size, len(changes))


def tar_chunks(
    changes: Iterable[Change],
    tree_dir: str,
    *,
    clamp_epoch: int | None = None,
    content: xxhash.xxh3_128 | None = None,
) -> Iterator[bytes]:
    """The tar stream in chunks of about 256 KiB, in constant memory; `content` is fed with what the content digest
    covers."""
    with os_errors(tree_dir):
        writer = _LayerWriter(tree_dir, clamp_epoch, content)
        try:
            yield from writer.chunks(changes)
        finally:
            writer.directories.close()


class _LayerWriter:
    """The state of one pass: open directories, and the first path of each file with several links."""

    def __init__(self, tree_dir: str, clamp_epoch: int | None, content: xxhash.xxh3_128 | None) -> None:
        self.directories = DirectoryCache(tree_dir)
        self._clamp_epoch = clamp_epoch
        self._content = content
        self._links: dict[int, TarEntry] = {}
        self._parent = ""
        self._parent_fd = self.directories.root_fd

    def chunks(self, changes: Iterable[Change]) -> Iterator[bytes]:
        """The whole stream, gathered into chunks."""
        parts: list[bytes] = []
        gathered = 0
        for change in changes:
            for part in self._parts(change):
                parts.append(part)
                gathered += len(part)
                if gathered >= _CHUNK:
                    yield b"".join(parts)
                    parts.clear()
                    gathered = 0
        parts.append(tarwriter.END)
        yield b"".join(parts)

    def _parts(self, change: Change) -> Iterable[bytes]:
        status = change.stat
        if status is None:
            return (self._header(TarEntry(os.fsencode(entry_name(change)), tarwriter.REGULAR, 0, 0, 0, 0, 0)),)
        parent, _, name = change.path[1:].rpartition("/")
        if parent != self._parent:
            self._parent, self._parent_fd = parent, self.directories.open(parent)
        path = os.fsencode(change.path[1:])
        if status.st_nlink > 1 and status.st_ino in self._links and not stat.S_ISDIR(status.st_mode):
            return (self._header(self._hardlink(path, status)),)
        if stat.S_ISREG(status.st_mode):
            return self._file(path, name, status)
        if stat.S_ISDIR(status.st_mode):
            return (self._header(self._entry(path + b"/", tarwriter.DIRECTORY, status)),)
        entry = self._special(path, name, status)
        if status.st_nlink > 1:
            self._links[status.st_ino] = entry
        return (self._header(entry),)

    def _hardlink(self, path: bytes, status: os.stat_result) -> TarEntry:
        """Another name of a file. It repeats the attributes, since whoever unpacks it sets the owner once more, and
        that takes a file's capabilities away."""
        first = self._links[status.st_ino]
        return self._entry(path, tarwriter.HARDLINK, status)._replace(linkname=first.name, xattrs=first.xattrs)

    def _special(self, path: bytes, name: str, status: os.stat_result) -> TarEntry:
        if stat.S_ISLNK(status.st_mode):
            target = os.fsencode(os.readlink(name, dir_fd=self._parent_fd))
            return self._entry(path, tarwriter.SYMLINK, status)._replace(linkname=target)
        kind = _SPECIAL.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            raise LayerError(f"{os.fsdecode(path)}: a file of this type cannot be kept in a layer")
        device = status.st_rdev
        return self._entry(path, kind, status)._replace(devmajor=os.major(device), devminor=os.minor(device))

    def _entry(self, path: bytes, kind: bytes, status: os.stat_result, size: int = 0) -> TarEntry:
        mtime = status.st_mtime_ns // 1_000_000_000
        if self._clamp_epoch is not None and mtime > self._clamp_epoch:
            mtime = self._clamp_epoch
        return TarEntry(path, kind, status.st_mode & 0o7777, status.st_uid, status.st_gid, size, mtime)

    def _header(self, entry: TarEntry) -> bytes:
        """The entry's header. The content digest gets all of it but the time and the checksum over it."""
        header = tarwriter.encode(entry)
        if self._content is not None:
            for part in tarwriter.timeless(entry, header):
                self._content.update(part)
        return header

    def _file(self, path: bytes, name: str, status: os.stat_result) -> Iterable[bytes]:
        fd = os.open(name, _OPEN_FILE, dir_fd=self._parent_fd)
        try:
            entry = self._entry(path, tarwriter.REGULAR, status, status.st_size)
            held = capability(fd)
            if held is not None:
                entry = entry._replace(xattrs=((b"security.capability", held),))
            if status.st_nlink > 1:
                self._links[status.st_ino] = entry
            yield self._header(entry)
            yield from self._content_parts(fd, path, status.st_size)
        finally:
            os.close(fd)

    def _content_parts(self, fd: int, path: bytes, size: int) -> Iterator[bytes]:
        left = size
        while left:
            chunk = read_limited(fd, min(left, _CHUNK))
            if not chunk:
                raise LayerError(f"{os.fsdecode(path)}: the file became shorter while it was read")
            left -= len(chunk)
            if self._content is not None:
                self._content.update(chunk)
            yield chunk
        if size % BLOCK:
            yield tarwriter.padding(size)
