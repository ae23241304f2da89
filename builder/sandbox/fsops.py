"""Paths inside a root: `SafeRoot` resolves them, `Directory` acts on one name in an open directory.

Nothing else in the project joins container paths, and nothing else calls openat2(2): a test of the source sees to it.
Every lookup goes through it with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS, every change through a directory descriptor
and a single name that is never followed, so no symlink of the root, planted before or meanwhile, reaches outside. Knows
no images, copies or archives. (A layer that is unpacked lies over others that are not mounted, which openat2 cannot
see through: `cache.rootpaths` walks those, one descriptor after the other.) Runs under `python -I -S`.

All methods raise OSError whose `filename` is the path or name it was about; the operations above turn it into a
BuildError with the instruction's place.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from builder.sandbox import syscalls
from builder.sandbox.paths import ROOT, Owner, clean, follow, join, split

_RESOLVE: Final = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_BENEATH: Final = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Directory:
    """An open directory. Names are single path components; a symlink is acted on itself, never followed."""

    __slots__ = ("_hands_down_group", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._hands_down_group: bool | None = None

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    @classmethod
    def beneath(cls, fd: int, path: str) -> Directory:
        """The directory `path` below the directory `fd`, without a symlink on the way (openat2(2))."""
        return cls(SafeRoot(fd).open_plain(path or ".", os.O_RDONLY | os.O_DIRECTORY))

    def names(self) -> list[str]:
        """The names in it, by bytes."""
        return sorted(os.listdir(self.fd), key=os.fsencode)

    def lstat(self, name: str) -> os.stat_result | None:
        """What `name` is, None if there is no such name."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def readlink(self, name: str) -> str:
        """The target of the symlink `name`."""
        return os.readlink(name, dir_fd=self.fd)

    def open_dir(self, name: str) -> Directory:
        """The directory `name`; NotADirectoryError for anything else, links included."""
        return Directory(os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=self.fd))

    def open_file(self, name: str) -> int:
        """A descriptor to read `name`; a fifo does not block, a symlink is an error (ELOOP)."""
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=self.fd)

    def create(self, name: str, mode: int = 0o600) -> int:
        """A descriptor to write the new file `name`; the umask applies to `mode`."""
        return os.open(name, _CREATE, mode, dir_fd=self.fd)

    @property
    def hands_down_group(self) -> bool:
        """Whether what is made in it gets its group, as setgid directories want (inode(7))."""
        if self._hands_down_group is None:
            self._hands_down_group = bool(os.fstat(self.fd).st_mode & stat.S_ISGID)
        return self._hands_down_group

    def gives(self, owner: Owner) -> bool:
        """Whether what is made in it has this owner already."""
        return owner == ROOT and not self.hands_down_group

    def make_dir(self, name: str, mode: int, owner: Owner = ROOT) -> Directory:
        """Make a directory with exactly this mode and owner; returns it open."""
        os.mkdir(name, 0o700, dir_fd=self.fd)
        directory = self.open_dir(name)
        if not self.gives(owner):
            os.fchown(directory.fd, *owner)
        os.fchmod(directory.fd, mode)
        return directory

    def make_dir_as_told(self, name: str, mode: int, owner: Owner | None) -> None:
        """Make a directory as mkdir(2) does, whose parent's setgid bit counts; without an owner its group, too."""
        os.mkdir(name, 0o700, dir_fd=self.fd)
        with self.open_dir(name) as directory:
            if owner is not None and not self.gives(owner):
                os.fchown(directory.fd, *owner)
            os.fchmod(directory.fd, mode | (stat.S_ISGID if self.hands_down_group else 0))

    def symlink(self, target: str, name: str) -> None:
        """Make the symlink `name`."""
        os.symlink(target, name, dir_fd=self.fd)

    def link(self, source: Directory, source_name: str, name: str) -> None:
        """Make `name` another name of `source_name` in `source` (a symlink there is linked itself)."""
        os.link(source_name, name, src_dir_fd=source.fd, dst_dir_fd=self.fd, follow_symlinks=False)

    def mknod(self, name: str, mode: int, device: int) -> None:
        """Make a fifo, a device or an empty file; `mode` holds type and permissions (mknod(2))."""
        os.mknod(name, mode, device, dir_fd=self.fd)

    def unlink(self, name: str) -> None:
        """Remove a name that is not a directory."""
        os.unlink(name, dir_fd=self.fd)

    def remove_all(self, name: str) -> None:
        """Remove `name` with everything below it; idempotent, never leaves the directory."""
        try:
            os.unlink(name, dir_fd=self.fd)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            with self.open_dir(name) as directory:
                for child in os.listdir(directory.fd):
                    directory.remove_all(child)
            os.rmdir(name, dir_fd=self.fd)

    def chown(self, name: str, owner: Owner) -> None:
        """Give `name` to a user and a group; the kernel clears setuid, setgid and capabilities of a file."""
        os.chown(name, *owner, dir_fd=self.fd, follow_symlinks=False)

    def chmod(self, name: str, mode: int) -> None:
        """Set the permission bits of anything but a symlink (EOPNOTSUPP)."""
        with self._handle(name) as path:
            os.chmod(path, mode)

    def utime(self, name: str, mtime_ns: int) -> None:
        """Set both times to nanoseconds since the epoch."""
        os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=self.fd, follow_symlinks=False)

    def getxattr(self, name: str, attribute: str) -> bytes | None:
        """The value of an extended attribute, None if it has none of that name."""
        with self._handle(name) as path:
            return getxattr(path, attribute)

    def setxattr(self, name: str, attribute: str, value: bytes) -> None:
        """Set an extended attribute of anything but a symlink."""
        with self._handle(name) as path:
            os.setxattr(path, attribute, value)

    @contextmanager
    def _handle(self, name: str) -> Iterator[str]:
        """A path through /proc that means exactly the file `name` is now: chmod(2) cannot be told not to follow."""
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), name)
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)


def getxattr(file: int | str, attribute: str) -> bytes | None:
    """The value of an extended attribute of a descriptor or path, None if it has none or cannot have any."""
    try:
        return os.getxattr(file, attribute)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return None
        raise


class SafeRoot:
    """A root filesystem behind a directory descriptor, which it does not own. Paths are taken from the root."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def open(self, path: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
        """A descriptor of `path`, symlinks followed inside the root (flags and mode as of open(2))."""
        return syscalls.openat2(self.fd, path, flags, mode, _RESOLVE)

    def open_plain(self, path: str, flags: int = os.O_PATH) -> int:
        """A descriptor of the relative `path`; a symlink on the way is an error (ELOOP), as is one at its end unless
        `flags` have O_NOFOLLOW and O_PATH, and `..` that leads out (EXDEV)."""
        return syscalls.openat2(self.fd, path, flags, 0, _BENEATH)

    def open_dir(self, path: str) -> Directory:
        """The directory at `path`, symlinks followed inside the root."""
        return Directory(self.open(path, os.O_RDONLY | os.O_DIRECTORY))

    def directory_of(self, path: str) -> tuple[Directory, str]:
        """The directory that holds `path` and its name there; the caller closes it. The root itself has no name."""
        parent, name = split(clean(path))
        if not name:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), "/")
        return self.open_dir(parent), name

    def stat(self, path: str) -> os.stat_result | None:
        """What `path` leads to, None if there is nothing."""
        try:
            fd = self.open(path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def lstat(self, path: str) -> os.stat_result | None:
        """What `path` is, a link in the last place not followed; None if there is nothing."""
        if clean(path) == "/":
            return self.stat("/")
        try:
            directory, name = self.directory_of(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with directory:
            return directory.lstat(name)

    def readlink(self, path: str) -> str | None:
        """The target of the symlink at `path`, None for anything else and for nothing."""
        try:
            fd = self.open(path, os.O_PATH | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
        finally:
            os.close(fd)

    def names(self, path: str) -> list[str]:
        """The names in the directory at `path`, by bytes."""
        with self.open_dir(path) as directory:
            return directory.names()

    def real_path(self, path: str) -> str:
        """The clean path that `path` means, every symlink resolved inside the root; missing names are kept."""
        cleaned = clean(path)
        try:
            os.close(syscalls.openat2(self.fd, cleaned, os.O_PATH, 0, _RESOLVE | syscalls.RESOLVE_NO_SYMLINKS))
        except OSError:
            return follow(cleaned, self.readlink)
        return cleaned

    def mkdir_all(self, path: str, mode: int = 0o755, owner: Owner | None = None) -> list[str]:
        """Make the directory at `path` and its missing parents, all with this mode and owner; idempotent.

        Without an owner they are the process's, or have the group of the setgid directory they are made in. Symlinks
        are followed, also to what is not there yet. Returns the clean paths it made, parents first. Raises
        NotADirectoryError where something else is in the way.
        """
        real = self.real_path(path)
        info = self.stat(real)
        if info is not None and stat.S_ISDIR(info.st_mode):
            return []
        created, here = [], "/"
        for part in real.split("/")[1:]:
            with self.open_dir(here) as parent:
                here = join(here, part)
                info = parent.lstat(part)
                if info is None:
                    parent.make_dir_as_told(part, mode, owner)
                    created.append(here)
                elif not stat.S_ISDIR(info.st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), here)
        return created
