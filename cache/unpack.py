"""Applies a layer's tar to an overlayfs directory (OCI image-spec, layer, Applying Changesets). What a tar says is not
trusted.

Every path is walked by directory descriptors inside the destination. A parent that is a symlink, here or in a lower
layer, is resolved within the root, as containerd does it on a mounted snapshot; nothing is ever written through one.
`.wh.` names become character devices 0/0, `.wh..wh..opq` the opaque attribute. Names beginning with a slash are taken
below the root; names that climb out with `..` are refused. Parents that the tar does not name come from the lower
layers, or are 0755 root.
"""

from __future__ import annotations

import errno
import os
import stat

from cache import merged, tarreader
from cache.blobs import Readable
from cache.changes import WHITEOUT_PREFIX
from cache.dirfds import OPEN_DIRECTORY
from cache.errors import LayerError, from_os_error
from cache.merged import Stack
from cache.namedtuple import NamedTuple
from cache.rootpaths import RootPaths, make_whiteout, set_opaque
from cache.tarreader import TarMember, read_tar

OPAQUE_NAME = ".wh..wh..opq"
_WHITEOUT_META = ".wh..wh."
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEVICES = {tarreader.CHARDEV: stat.S_IFCHR, tarreader.BLOCKDEV: stat.S_IFBLK, tarreader.FIFO: stat.S_IFIFO}
_KEPT_XATTRS = ("security.capability", "system.posix_acl_access", "system.posix_acl_default")
_UNSUPPORTED = (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL)


class Unpacked(NamedTuple):
    """The number of members, whether the tree serves on any base (nothing was taken from the lower layers), and the
    names of device nodes that this process may not make, in the order of the tar."""

    entries: int
    portable: bool
    left_out: tuple[str, ...] = ()


def unpack_layer(stream: Readable, dest_dir: str, lower_dirs: Stack = ()) -> Unpacked:
    """Apply a plain tar stream to `dest_dir`, which lies over `lower_dirs` (top first). Not atomic: after an error the
    directory is to be thrown away. LayerError for a broken or unsafe tar, CacheError when the disk refuses."""
    unpacker = _Unpacker(dest_dir, lower_dirs)
    entries = 0
    try:
        for member in read_tar(stream):
            entries += 1
            try:
                unpacker.apply(member)
            except (OSError, OverflowError, ValueError) as error:
                raise _member_error(error, member) from error
        unpacker.finish()
    except OSError as error:
        raise from_os_error(error, dest_dir) from error
    finally:
        unpacker.paths.close()
    return Unpacked(entries, unpacker.paths.is_portable, tuple(unpacker.left_out))


class _Unpacker:
    """The state of one layer: open directories, and the times that directories get when everything is in them."""

    def __init__(self, dest_dir: str, lower_dirs: Stack) -> None:
        self.paths = RootPaths(dest_dir, lower_dirs)
        self.left_out: dict[str, None] = {}
        self._makers = {
            tarreader.REGULAR: self._file,
            tarreader.DIRECTORY: self._directory,
            tarreader.SYMLINK: self._symlink,
            tarreader.HARDLINK: self._hardlink,
            tarreader.CHARDEV: self._device,
            tarreader.BLOCKDEV: self._device,
            tarreader.FIFO: self._device,
        }

    def apply(self, member: TarMember) -> None:
        """Carry out one member."""
        path = clean_name(member.name)
        if not path:
            return self._root(member)
        parent, _, name = path.rpartition("/")
        if name.startswith(WHITEOUT_PREFIX):
            return self._whiteout(parent, name)
        maker = self._makers.get(member.type)
        if maker is None:
            raise LayerError(f"tar member {member.name!r}: unknown type {member.type!r}")
        try:
            maker(member, parent, name)
        except FileExistsError:
            if not self._replace(member, parent, name):
                maker(member, parent, name)
        return None

    def finish(self) -> None:
        """Set the directories' times."""
        self.paths.set_times()

    def _root(self, member: TarMember) -> None:
        if member.type != tarreader.DIRECTORY:
            raise LayerError(f"tar member {member.name!r}: the root can only be a directory")
        _set_attributes(self.paths.root_fd, member)
        self.paths.note_time("", member.mtime_ns)

    def _replace(self, member: TarMember, parent: str, name: str) -> bool:
        """Make room for a member whose name is taken. True when a directory that is there takes on the member's
        attributes."""
        directory_fd, _ = self.paths.directory(parent)
        status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        is_directory = member.type == tarreader.DIRECTORY
        if is_directory and stat.S_ISDIR(status.st_mode):
            self._update_directory(member, parent, name)
            return True
        self.paths.remove(parent, name)
        if is_directory and merged.is_whiteout(status):
            self._directory(member, parent, name, opaque=True)
            return True
        return False

    def _whiteout(self, parent: str, name: str) -> None:
        hidden = name.removeprefix(WHITEOUT_PREFIX)
        if name != OPAQUE_NAME and name.startswith(_WHITEOUT_META):
            return  # aufs's own files, of which an image means nothing
        if hidden in ("", ".", ".."):
            raise LayerError(f"tar member {name!r}: a whiteout of {hidden!r} is not allowed")
        if name != OPAQUE_NAME:
            self.paths.remove(parent, hidden)
        directory_fd, _ = self.paths.directory(parent)
        if not self.paths.has_lowers:
            self.paths.is_portable = False  # nothing lies below here, but on another base something may
        elif name == OPAQUE_NAME:
            set_opaque(directory_fd)
        else:
            make_whiteout(directory_fd, hidden)

    def _file(self, member: TarMember, parent: str, name: str) -> None:
        fd = os.open(name, _CREATE, 0o600, dir_fd=self.paths.directory(parent)[0])
        try:
            for chunk in member.chunks():
                _write(fd, chunk)
            _set_attributes(fd, member)
            os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
        finally:
            os.close(fd)

    def _directory(self, member: TarMember, parent: str, name: str, *, opaque: bool = False) -> None:
        os.mkdir(name, 0o700, dir_fd=self.paths.directory(parent)[0])
        self._update_directory(member, parent, name, opaque=opaque)

    def _update_directory(self, member: TarMember, parent: str, name: str, *, opaque: bool = False) -> None:
        directory_fd, real = self.paths.directory(parent)
        fd = os.open(name, OPEN_DIRECTORY, dir_fd=directory_fd)
        try:
            if opaque:
                set_opaque(fd)
            _set_attributes(fd, member)
        finally:
            os.close(fd)
        self.paths.note_time(f"{real}/{name}" if real else name, member.mtime_ns)

    def _symlink(self, member: TarMember, parent: str, name: str) -> None:
        if not member.linkname:
            raise LayerError(f"tar member {member.name!r}: a symlink without a target")
        directory_fd, _ = self.paths.directory(parent)
        os.symlink(member.linkname, name, dir_fd=directory_fd)
        os.chown(name, member.uid, member.gid, dir_fd=directory_fd, follow_symlinks=False)
        _set_time(member, directory_fd, name)

    def _hardlink(self, member: TarMember, parent: str, name: str) -> None:
        linked = clean_name(member.linkname)
        try:
            target_fd, target = self.paths.existing_file(linked)
        except LayerError:
            if linked not in self.left_out:
                raise
            self.left_out[clean_name(member.name)] = None
            return
        try:
            directory_fd, _ = self.paths.directory(parent)
            status = os.stat(target, dir_fd=target_fd, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) or merged.is_whiteout(status):
                raise LayerError(f"tar member {member.name!r}: {member.linkname!r} cannot be linked to")
            os.link(target, name, src_dir_fd=target_fd, dst_dir_fd=directory_fd, follow_symlinks=False)
            _update_link(member, directory_fd, name, status)
        finally:
            os.close(target_fd)

    def _device(self, member: TarMember, parent: str, name: str) -> None:
        device = os.makedev(member.devmajor, member.devminor)
        if member.type == tarreader.CHARDEV and device == 0:
            raise LayerError(
                f"tar member {member.name!r}: device 0/0 is not allowed, overlayfs takes it for a deletion"
            )
        directory_fd, _ = self.paths.directory(parent)
        try:
            os.mknod(name, _DEVICES[member.type] | 0o600, device, dir_fd=directory_fd)
        except PermissionError:
            if member.type == tarreader.FIFO:
                raise
            # None can be made in a user namespace. /dev of a step comes from the sandbox.
            self.left_out[clean_name(member.name)] = None
            return
        os.chown(name, member.uid, member.gid, dir_fd=directory_fd, follow_symlinks=False)
        os.chmod(name, member.mode, dir_fd=directory_fd)
        _set_time(member, directory_fd, name)


def clean_name(name: str) -> str:
    """A member's path relative to the root, "" for the root. LayerError when it climbs out or is absurdly long."""
    if "\0" in name or len(name) > 4096:
        raise LayerError(f"tar member {name[:100]!r}: the name is not valid")
    if name and name[0] not in "./" and "/." not in name and "//" not in name and name[-1] != "/":
        return name
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                raise LayerError(f"tar member {name!r}: the name leads out of the root")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _set_attributes(fd: int, member: TarMember) -> None:
    """Owner, then mode, then attributes: a change of owner clears set-id bits and capabilities."""
    os.fchown(fd, member.uid, member.gid)
    os.fchmod(fd, member.mode)
    if member.xattrs:
        _set_xattrs(fd, member)


def _set_xattrs(fd: int, member: TarMember) -> None:
    for key, value in member.xattrs.items():
        if key in _KEPT_XATTRS or (key.startswith("user.") and not key.startswith("user.overlay.")):
            _set_xattr(fd, key, value)


def _set_xattr(fd: int, key: str, value: bytes) -> None:
    try:
        os.setxattr(fd, key, value)
    except OSError as error:
        if key == "security.capability" or error.errno not in _UNSUPPORTED:
            raise


def _update_link(member: TarMember, directory_fd: int, name: str, status: os.stat_result) -> None:
    """A hard link's own header describes the file that it shares. Only differences are set, as any change of owner
    would take the file's capabilities away."""
    if (member.uid, member.gid) != (status.st_uid, status.st_gid):
        os.chown(name, member.uid, member.gid, dir_fd=directory_fd, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, member.mode, dir_fd=directory_fd)
    if stat.S_ISREG(status.st_mode) and member.xattrs:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
        try:
            _set_xattrs(fd, member)
        finally:
            os.close(fd)
    _set_time(member, directory_fd, name)


def _set_time(member: TarMember, directory_fd: int, name: str) -> None:
    os.utime(name, ns=(member.mtime_ns, member.mtime_ns), dir_fd=directory_fd, follow_symlinks=False)


def _write(fd: int, chunk: bytes) -> None:
    written = os.write(fd, chunk)
    while written < len(chunk):
        written += os.write(fd, memoryview(chunk)[written:])


def _member_error(error: OSError | OverflowError | ValueError, member: TarMember) -> Exception:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
        return from_os_error(error, f"unpacking {member.name[:200]!r}")
    reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)
    return LayerError(f"tar member {member.name[:200]!r}: {reason}")
