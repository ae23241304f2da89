"""A tree written into a directory of this machine (`type=local`): owners, modes, times, attributes and hard links.

What was in the directory before stays unless the tree has something of the same name. The tree is not trusted: every
entry is made relative to its open parent directory, and no symbolic link is ever followed, old or new.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from types import TracebackType

from builder.errors import BuildError
from builder.export.file import output_error
from builder.export.walk import MergedEntry
from builder.sandbox import idmap
from cache.merged import OVERLAY_XATTRS
from cache.namedtuple import NamedTuple

_CHUNK = 8 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def write_tree(entries: Iterable[MergedEntry], dest: str, *, delete: bool = False) -> None:
    """Write a tree, parents first, into the directory `dest`, which is made when it is missing.

    `delete` removes what the directory had and the tree has not.

    Not atomic: an error, a BuildError that names the path, leaves what was written so far.
    """
    path = dest
    try:
        os.makedirs(dest, exist_ok=True)
        with TreeWriter(dest, delete=delete) as writer:
            for entry in entries:
                path = dest.rstrip("/") + entry.path
                writer.add(entry)
    except FileExistsError as error:
        raise BuildError(f"dest {dest!r} is not a directory") from error
    except OSError as error:
        raise output_error(path, error) from error


def keep_only(directory: str, names: Collection[str]) -> None:
    """Remove everything else from a directory. Raises BuildError that names it."""
    try:
        fd = os.open(directory, _DIRECTORY)
        try:
            _remove_others(fd, names)
        finally:
            os.close(fd)
    except OSError as error:
        raise output_error(directory, error) from error


def _remove_others(fd: int, names: Collection[str]) -> None:
    for name in os.listdir(fd):
        if name not in names:
            _make_way(fd, name)


class _OpenDirectory(NamedTuple):
    path: str
    fd: int
    entry: MergedEntry | None
    """None for the root, which keeps its own owner and mode."""
    names: set[str]
    """What was made in it."""


class TreeWriter:
    """The state of one `write_tree`: the directories that are open from the root to the current entry."""

    def __init__(self, dest: str, *, delete: bool = False) -> None:
        fd = os.open(dest, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open = [_OpenDirectory("", fd, None, set())]
        self._delete = delete
        self._links: dict[tuple[int, int, int], str] = {}
        # What an ordinary user gets is his own, also from the namespace where he is root.
        self._sets_owners = idmap.is_initial()
        self._privileged = os.geteuid() == 0

    def __enter__(self) -> TreeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._open:
            self._close_directory(finish=kind is None)

    def add(self, entry: MergedEntry) -> None:
        """Make one entry; its parent was added before, siblings' trees are complete."""
        parent, _, name = entry.path.rpartition("/")
        while self._open[-1].path != parent:
            self._close_directory(finish=True)
        parent_fd = self._open[-1].fd
        self._open[-1].names.add(name)
        kind = stat.S_IFMT(entry.stat.st_mode)
        if kind == stat.S_IFDIR:
            self._add_directory(entry, parent_fd, name)
            return
        _make_way(parent_fd, name)
        if self._link(entry, parent_fd, name):
            return
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(entry.source), name, dir_fd=parent_fd)
            self._finish_unopened(entry, parent_fd, name)
        elif kind == stat.S_IFREG:
            self._add_file(entry, parent_fd, name)
        else:
            os.mknod(name, kind | 0o600, entry.stat.st_rdev, dir_fd=parent_fd)
            self._finish_unopened(entry, parent_fd, name)

    def _add_directory(self, entry: MergedEntry, parent_fd: int, name: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent_fd)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=parent_fd)
                os.mkdir(name, 0o700, dir_fd=parent_fd)
        self._open.append(_OpenDirectory(entry.path, os.open(name, _DIRECTORY, dir_fd=parent_fd), entry, set()))

    def _close_directory(self, *, finish: bool) -> None:
        """A directory's times can only be set when everything is in it."""
        directory = self._open.pop()
        try:
            if finish and self._delete:
                _remove_others(directory.fd, directory.names)
            if finish and directory.entry is not None:
                self._finish(directory.entry, directory.fd)
        finally:
            os.close(directory.fd)

    def _link(self, entry: MergedEntry, parent_fd: int, name: str) -> bool:
        """Link to an earlier name of the same file, if there is one."""
        if entry.stat.st_nlink < 2:
            return False
        first = self._links.setdefault((entry.layer, entry.stat.st_dev, entry.stat.st_ino), entry.path)
        if first == entry.path:
            return False
        os.link(first[1:], name, src_dir_fd=self._open[0].fd, dst_dir_fd=parent_fd, follow_symlinks=False)
        return True

    def _add_file(self, entry: MergedEntry, parent_fd: int, name: str) -> None:
        source_fd = os.open(entry.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, 0o600, dir_fd=parent_fd)
            try:
                copy_content(source_fd, fd)
                self._finish(entry, fd)
            finally:
                os.close(fd)
        finally:
            os.close(source_fd)

    def _finish(self, entry: MergedEntry, fd: int) -> None:
        """Owner, then mode (chown clears set-id bits), then attributes (chown clears capabilities), then times."""
        if self._sets_owners:
            with self._unprivileged_passes():
                os.fchown(fd, entry.stat.st_uid, entry.stat.st_gid)
        os.fchmod(fd, stat.S_IMODE(entry.stat.st_mode))
        for name in os.listxattr(entry.source, follow_symlinks=False):
            if not name.startswith(OVERLAY_XATTRS):
                with contextlib.suppress(OSError):  # the file system, or the user, may not have this kind
                    os.setxattr(fd, name, os.getxattr(entry.source, name, follow_symlinks=False))
        os.utime(fd, ns=(entry.stat.st_mtime_ns, entry.stat.st_mtime_ns))

    def _finish_unopened(self, entry: MergedEntry, parent_fd: int, name: str) -> None:
        status = entry.stat
        if self._sets_owners:
            with self._unprivileged_passes():
                os.chown(name, status.st_uid, status.st_gid, dir_fd=parent_fd, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):  # just made here, so it is no link
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=parent_fd)
        os.utime(name, ns=(status.st_mtime_ns, status.st_mtime_ns), dir_fd=parent_fd, follow_symlinks=False)

    @contextlib.contextmanager
    def _unprivileged_passes(self) -> Iterator[None]:
        """Without root only one's own files can be made, as with any program that unpacks."""
        try:
            yield
        except PermissionError:
            if self._privileged:
                raise


def _make_way(parent_fd: int, name: str) -> None:
    """Remove what has the name already, a directory with all that is in it."""
    try:
        os.unlink(name, dir_fd=parent_fd)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
        import shutil

        shutil.rmtree(name, dir_fd=parent_fd)


def copy_content(source_fd: int, fd: int) -> None:
    """Copy all bytes inside the kernel, sharing extents where the file system can."""
    try:
        while os.copy_file_range(source_fd, fd, 1 << 30):
            continue
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
            raise
    # also after a whole copy: some file systems answer 0 without an error
    while os.sendfile(fd, source_fd, None, _CHUNK):
        continue
