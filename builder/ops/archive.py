"""Archives that ADD unpacks: found by content, in any compression, and laid out below the destination.

The destination is the archive's root: names with `..` and absolute links stay below it. Entries that are there are
replaced, directories merged. Names that begin with `.wh.` delete, as in a layer (OCI image-spec, layer, Whiteouts).
Knows no COPY rules.
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from builder.errors import BuildError
from builder.ops.content import write_all
from builder.ops.tree import CAPABILITY
from builder.sandbox.fsops import Directory, SafeRoot
from builder.sandbox.paths import ROOT, Owner, clean, join, split
from cache.blobs import Readable
from cache.compression import open_decompressed
from cache.errors import CacheError
from cache.tarreader import BLOCKDEV, CHARDEV, DIRECTORY, FIFO, HARDLINK, REGULAR, SYMLINK, TarMember, read_tar

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
_NODES = {FIFO: stat.S_IFIFO, CHARDEV: stat.S_IFCHR, BLOCKDEV: stat.S_IFBLK}


def is_archive(file: BinaryIO) -> bool:
    """Whether a file begins, decompressed if need be, with a readable tar header; an empty one does not."""
    try:
        return next(iter(read_tar(open_decompressed(file))), None) is not None
    except CacheError:
        return False


def unpack(file: Readable, dest: Directory, *, name: str, owner: Owner | None) -> None:
    """Unpack the archive `file` into an open directory; `owner` replaces the members' owners.

    Not atomic. Raises BuildError, naming the archive `name` and the member, for what is malformed or cannot be made.
    """
    unpacker = _Unpacker(dest, owner)
    member = None
    try:
        for member in read_tar(open_decompressed(file)):
            unpacker.add(member)
        unpacker.finish()
    except CacheError as error:
        raise BuildError(f'cannot unpack "{name}": {error}', hint=error.hint) from error
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise BuildError(f'cannot unpack "{member.name if member else ""}" from "{name}": {reason}') from error
    finally:
        unpacker.close()


class _Unpacker:
    """Members of one archive put below one directory; the directory used last stays open."""

    def __init__(self, dest: Directory, owner: Owner | None) -> None:
        self._root = SafeRoot(dest.fd)
        self._owner = owner
        self._at: tuple[str, Directory] | None = None
        self._times: list[tuple[str, int]] = []
        self._made: set[str] = set()

    def close(self) -> None:
        """Let go of the directory that is open."""
        if self._at is not None:
            os.close(self._at[1].fd)
            self._at = None

    def add(self, member: TarMember) -> None:
        """Make one member; the archive's own root entry changes nothing."""
        path = clean(member.name)
        if path == "/":
            if member.type != DIRECTORY:
                raise BuildError(f'archive member "{member.name}": only a directory can be the destination itself')
            return
        parent, name = split(path)
        directory = self._enter(parent)
        if name.startswith(WHITEOUT):
            self._delete(directory, parent, name)
            return
        self._note(path)
        if member.type == DIRECTORY:
            self._times.append((path, member.mtime_ns))
        try:
            self._create(member, directory, name)
        except FileExistsError:
            self._replace(member, parent, name)
        self._set_attributes(member, self._enter(parent), name)

    def finish(self) -> None:
        """Set the directories' times, now that nothing is added to them any more."""
        for path, mtime_ns in self._times:
            try:
                directory = self._root.open_dir(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            with directory:
                os.utime(directory.fd, ns=(mtime_ns, mtime_ns))

    def _note(self, path: str) -> None:
        """The archive has something at this path, and so in the directories above."""
        while path != "/" and path not in self._made:
            self._made.add(path)
            path = split(path)[0]

    def _enter(self, path: str) -> Directory:
        if self._at is None or self._at[0] != path:
            self.close()
            self._at = path, self._open(path)
        return self._at[1]

    def _open(self, path: str) -> Directory:
        """The directory `path`, made with its parents as root's 0755 if it is missing; a dangling link is an error."""
        try:
            return self._root.open_dir(path)
        except FileNotFoundError:
            parent, name = split(path)
            with self._open(parent) as above:
                if above.lstat(name) is not None:
                    raise
                above.make_dir_as_told(name, 0o755, ROOT)
                return above.open_dir(name)

    def _replace(self, member: TarMember, parent: str, name: str) -> None:
        directory = self._enter(parent)
        info = directory.lstat(name)
        if info is not None and stat.S_ISDIR(info.st_mode) and member.type == DIRECTORY:
            return
        directory.remove_all(name)
        # What the path of the open directory means may have hung on what was removed.
        self.close()
        self._create(member, self._enter(parent), name)

    def _create(self, member: TarMember, directory: Directory, name: str) -> None:
        if member.type == REGULAR:
            fd = directory.create(name)
            try:
                for chunk in member.chunks():
                    write_all(fd, chunk)
            finally:
                os.close(fd)
        elif member.type == DIRECTORY:
            os.close(directory.make_dir(name, 0o700).fd)
        elif member.type == SYMLINK:
            directory.symlink(member.linkname, name)
        elif member.type == HARDLINK:
            source, first = self._root.directory_of(member.linkname)
            with source:
                directory.link(source, first, name)
        elif member.type in _NODES:
            device = os.makedev(member.devmajor, member.devminor)
            if member.type == CHARDEV and device == 0:
                raise BuildError(f'archive member "{member.name}": device 0/0 is how a layer marks a deleted file')
            directory.mknod(name, _NODES[member.type] | 0o600, device)
        else:
            raise BuildError(f'archive member "{member.name}": type "{member.type}" is not supported')

    def _set_attributes(self, member: TarMember, directory: Directory, name: str) -> None:
        """Owner, capabilities, mode and time, for a hard link those of its own header (they go to the shared file)."""
        directory.chown(name, self._owner or (member.uid, member.gid))
        info = directory.lstat(name)
        if info is not None and not stat.S_ISLNK(info.st_mode):
            if CAPABILITY in member.xattrs:
                directory.setxattr(name, CAPABILITY, member.xattrs[CAPABILITY])
            directory.chmod(name, member.mode & 0o7777)
        directory.utime(name, member.mtime_ns)

    def _delete(self, directory: Directory, parent: str, name: str) -> None:
        """A whiteout: the name behind the prefix goes, or with an opaque mark all names; not what this archive made."""
        hidden = name.removeprefix(WHITEOUT)
        if name == OPAQUE:
            self._clear(directory, parent)
        elif hidden in ("", ".", "..") or hidden.startswith(WHITEOUT):
            raise BuildError(f'archive member "{join(parent, name)[1:]}": not a valid whiteout name')
        elif join(parent, hidden) not in self._made:
            directory.remove_all(hidden)
        elif stat.S_ISDIR(os.stat(hidden, dir_fd=directory.fd, follow_symlinks=False).st_mode):
            with directory.open_dir(hidden) as below:
                self._clear(below, join(parent, hidden))
        self.close()

    def _clear(self, directory: Directory, path: str) -> None:
        """Remove what was in a directory before this archive."""
        for name in directory.names():
            info = directory.lstat(name)
            if join(path, name) not in self._made:
                directory.remove_all(name)
            elif info is not None and stat.S_ISDIR(info.st_mode):
                with directory.open_dir(name) as below:
                    self._clear(below, join(path, name))
