"""Paths of a root that is being unpacked: a writable directory over lower layers, walked without mounting them.

`directory` answers for a path the descriptor of its directory in the destination, made there if need be. Symlinks on
the way are resolved within the root. Knows no tar.
"""

from __future__ import annotations

import errno
import os
import stat

from cache import merged
from cache.dirfds import OPEN_DIRECTORY, DirectoryCache, read_limited
from cache.errors import LayerError
from cache.merged import Found, Stack
from cache.removal import remove_at

_DIRECTORY_MODE = 0o755
_MAX_LINKS = 40
_CHUNK = 1 << 20
_NEEDS_VOLUME = (
    "it is the root of a container, mostly: put the store on a volume of its own (--volume pybuild:/var/lib/pybuild),"
    " or elsewhere with PYBUILD_ROOT"
)


class RootPaths:
    """The destination directory of one layer."""

    def __init__(self, dest_dir: str, lower_dirs: Stack) -> None:
        self._open = DirectoryCache(dest_dir)
        self.root_fd = self._open.root_fd
        self.has_lowers = bool(lower_dirs)
        self._merged: Stack = (dest_dir, *lower_dirs)
        self._links = 0
        self._real: dict[str, str] = {"": ""}
        """Directory as named -> as it is, without symlinks."""
        self._new: set[str] = set()
        """Directories that were made where no layer has anything: nothing lies below them either."""
        self._times: dict[str, int] = {}
        self.is_portable = True

    def directory(self, path: str) -> tuple[int, str]:
        """A descriptor of a directory of the destination, and its real path. It stays open until the next few calls."""
        real = self._real.get(path)
        if real is not None:
            return self._open.open(real), real
        self._links = 0
        fd, real = self._resolve(path.split("/"), "")
        self._real[path] = real
        return fd, real

    def existing_file(self, path: str) -> tuple[int, str]:
        """A new descriptor of the directory of an existing non-directory, and its name there. It is copied up first
        when only a lower layer has it. LayerError when there is none."""
        parent, _, name = path.rpartition("/")
        fd, real = self.directory(parent)
        own_fd = os.open(".", OPEN_DIRECTORY, dir_fd=fd)
        try:
            if _status(name, own_fd) is None:
                found = self._lower(f"{real}/{name}" if real else name)
                if found is None or stat.S_ISDIR(found.stat.st_mode):
                    raise LayerError(f"link target {path!r} does not exist, or is a directory")
                self.is_portable = False
                copy_up(found, own_fd, name)
        except BaseException:
            os.close(own_fd)
            raise
        return own_fd, name

    def remove(self, parent: str, name: str) -> os.stat_result | None:
        """Remove what the destination has there, if anything; what it was. Nothing below lower layers is touched."""
        fd, _ = self.directory(parent)
        status = _status(name, fd)
        if status is None:
            return None
        remove_at(fd, name)
        if stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode):
            self._open.clear()
            self._real = {"": ""}
            self._new.clear()
        return status

    def note_time(self, real: str, mtime_ns: int) -> None:
        """A directory's modification time, to be set at the end."""
        self._times[real] = mtime_ns

    def set_times(self) -> None:
        """Set the noted times of the directories that are still there."""
        for real, mtime_ns in self._times.items():
            try:
                os.utime(self._open.open(real), ns=(mtime_ns, mtime_ns))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise

    def close(self) -> None:
        """Close all descriptors."""
        self._open.close()

    def _resolve(self, parts: list[str], real: str) -> tuple[int, str]:
        """Walk `parts` from the real directory `real`."""
        fd = self._open.open(real)
        for part in parts:
            if part == "..":
                real = real.rpartition("/")[0]
                fd = self._open.open(real)
            elif part not in ("", "."):
                fd, real = self._step(fd, f"{real}/{part}" if real else part)
        return fd, real

    def _step(self, fd: int, real: str) -> tuple[int, str]:
        kept = self._open.get(real)
        if kept is not None:
            return kept, real
        parent, _, name = real.rpartition("/")
        target = self._link_target(fd, real, name)
        if not target:
            return self._open.keep(real, os.open(name, OPEN_DIRECTORY, dir_fd=fd)), real
        self._links += 1
        if self._links > _MAX_LINKS:
            raise LayerError(f"path {real!r}: too many levels of symbolic links")
        return self._resolve(target.split("/"), "" if target.startswith("/") else parent)

    def _link_target(self, fd: int, real: str, name: str) -> str:
        """The target of a symlink at `real`; "" for a directory, which is made if it is not there."""
        status = _status(name, fd)
        if status is None:
            found = self._lower(real)
            if found is not None and stat.S_ISLNK(found.stat.st_mode):
                self.is_portable = False
                return os.readlink(found.path)
            self._make_parent(fd, real, found)
        elif merged.is_whiteout(status):
            self._make_over_whiteout(fd, real)
        elif stat.S_ISLNK(status.st_mode):
            return os.readlink(name, dir_fd=fd)
        elif not stat.S_ISDIR(status.st_mode):
            raise LayerError(f"path {real!r} is not a directory")
        return ""

    def _lower(self, real: str) -> Found | None:
        """What the lower layers show at a path that the destination does not have, unless it hides them."""
        if not self.has_lowers or real.rpartition("/")[0] in self._new:
            return None
        return merged.lookup_path(self._merged, real)

    def _make_parent(self, fd: int, real: str, found: Found | None) -> None:
        """A directory that the tar did not name: as in the lower layers, else 0755 root."""
        name = real.rpartition("/")[2]
        if found is not None and not stat.S_ISDIR(found.stat.st_mode):
            raise LayerError(f"path {real!r} is not a directory")
        os.mkdir(name, 0o755, dir_fd=fd)
        self.is_portable = False
        if found is None:
            self._new.add(real)
        else:
            os.chown(name, found.stat.st_uid, found.stat.st_gid, dir_fd=fd, follow_symlinks=False)
        os.chmod(name, stat.S_IMODE(found.stat.st_mode) if found is not None else _DIRECTORY_MODE, dir_fd=fd)
        self.note_time(real, found.stat.st_mtime_ns if found is not None else 0)

    def _make_over_whiteout(self, fd: int, real: str) -> None:
        name = real.rpartition("/")[2]
        os.unlink(name, dir_fd=fd)
        os.mkdir(name, 0o755, dir_fd=fd)
        os.chmod(name, _DIRECTORY_MODE, dir_fd=fd)
        below_fd = os.open(name, OPEN_DIRECTORY, dir_fd=fd)
        set_opaque(below_fd)
        os.close(below_fd)
        self.note_time(real, 0)


def set_opaque(fd: int) -> None:
    """Let a directory hide the lower ones; in a user namespace by what overlayfs's userxattr mode reads."""
    try:
        os.setxattr(fd, merged.OPAQUE_XATTRS[0], b"y")
    except PermissionError:
        os.setxattr(fd, merged.OPAQUE_XATTRS[1], b"y")


def make_whiteout(fd: int, name: str) -> None:
    """Hide a name of the lower directories (kernel documentation, overlayfs, whiteouts).

    LayerError on a filesystem that is an overlay itself: such a mark in it would delete something of its own.
    """
    try:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=fd)
    except PermissionError as error:
        raise LayerError(
            f"{name!r} was deleted, which the store's filesystem cannot note", hint=_NEEDS_VOLUME
        ) from error


def copy_up(found: Found, directory_fd: int, name: str) -> None:
    """Copy a lower non-directory with its attributes, as overlayfs does before a change."""
    status = found.stat
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(found.path), name, dir_fd=directory_fd)
    elif stat.S_ISREG(status.st_mode):
        _copy_file(found.path, directory_fd, name)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=directory_fd)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=directory_fd, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=directory_fd)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=directory_fd, follow_symlinks=False)


def _copy_file(source_path: str, directory_fd: int, name: str) -> None:
    source_fd = os.open(source_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        dest_fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory_fd)
        try:
            while chunk := read_limited(source_fd, _CHUNK):
                os.write(dest_fd, chunk)
        finally:
            os.close(dest_fd)
    finally:
        os.close(source_fd)


def _status(name: str, directory_fd: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
