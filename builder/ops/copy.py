"""Copying one selected source into a root, entry by entry, through directory descriptors on both sides.

Follows what BuildKit's copy does: which directories get made and how, when metadata of what exists changes, what may
replace what. Knows no patterns (`select` lists the entries) and no archives.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable

from builder.errors import BuildError
from builder.ops.chmod import Change
from builder.ops.content import copy_content
from builder.ops.select import Item, Source
from builder.ops.tree import CAPABILITY, SourceTree
from builder.sandbox.fsops import Directory, SafeRoot
from builder.sandbox.paths import ROOT, Owner, clean, join, split
from cache.dirscan import FileEntry
from cache.namedtuple import NamedTuple

_TYPES = {"p": stat.S_IFIFO, "c": stat.S_IFCHR, "b": stat.S_IFBLK, "s": stat.S_IFREG}


class Attributes(NamedTuple):
    """What a copy does to metadata: owner None keeps the source's; `parent_mode` is for directories it has to make."""

    owner: Owner | None
    change: Change
    parent_mode: int


class _Level(NamedTuple):
    """A directory of the destination that is being filled, and the time it gets once that is done."""

    path: str
    target: str
    directory: Directory
    mtime_ns: int | None


def prepare_target(root: SafeRoot, dest: str, source: Source, *, contents_only: bool, attributes: Attributes) -> str:
    """Make the directories that the destination needs; returns the clean path that the source goes to.

    A destination that ends in a slash, or is a directory, takes a file under its own name; a directory's contents go
    into the destination itself when `contents_only`.
    """
    owner = attributes.owner
    is_into = dest.endswith(("/", "/."))
    root.mkdir_all(dest if is_into else split(clean(dest))[0], attributes.parent_mode, owner)
    target = root.real_path(dest)
    info = root.lstat(target)
    is_dir = source.entry.kind == "d"
    if info is not None and (stat.S_ISDIR(info.st_mode) if not is_dir else not contents_only):
        target = join(target, source.name)
    needed = target if is_dir and contents_only and info is None else split(target)[0]
    root.mkdir_all(needed, attributes.parent_mode, owner)
    return target


class Copier:
    """Copies one source. Hard links are kept among the entries of one Copier."""

    def __init__(self, root: SafeRoot, tree: SourceTree, attributes: Attributes) -> None:
        self._root = root
        self._tree = tree
        self._change = attributes.change
        self._owner = attributes.owner if attributes.owner or tree.keeps_owners else ROOT
        self._links: dict[tuple[int, int], tuple[str, str]] = {}
        self._from: tuple[str, Directory] | None = None

    def __enter__(self) -> Copier:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave_source()

    def copy_one(self, entry: FileEntry, target: str) -> None:
        """Copy what is not a directory to `target`, whose parent exists; replaces anything but a directory."""
        parent, name = split(target)
        with self._root.open_dir(parent) as directory:
            self._place(entry, directory, parent, name)

    def copy_tree(self, top: FileEntry, items: Iterable[Item], target: str) -> None:
        """Merge a directory's items into the directory `target`, made if missing with the source's own metadata."""
        info = self._root.lstat(target)
        if info is None:
            parent, name = split(target)
            with self._root.open_dir(parent) as directory:
                os.close(self._make_dir(top, directory, name).fd)
        elif not stat.S_ISDIR(info.st_mode):
            raise _not_a_directory(top, target, info)
        levels = [_Level("", target, self._root.open_dir(target), top.mtime_ns)]
        try:
            for path, entry, is_parent in items:
                above = path.rpartition("/")[0]
                while levels[-1].path != above:
                    self._close(levels.pop())
                if entry.kind == "d":
                    levels.append(self._enter(path, entry, levels[-1], is_parent))
                else:
                    self._place(entry, levels[-1].directory, levels[-1].target, path.rpartition("/")[2])
            while levels:
                self._close(levels.pop())
        finally:
            for level in levels:
                os.close(level.directory.fd)

    def _close(self, level: _Level) -> None:
        with level.directory as directory:
            if level.mtime_ns is not None:
                os.utime(directory.fd, ns=(level.mtime_ns, level.mtime_ns))

    def _enter(self, path: str, entry: FileEntry, above: _Level, is_parent: bool) -> _Level:
        """Make or take over a subdirectory. One that is there only for its members keeps its owner and time."""
        name = path.rpartition("/")[2]
        target = join(above.target, name)
        info = above.directory.lstat(name)
        if info is None:
            return _Level(path, target, self._make_dir(entry, above.directory, name), entry.mtime_ns)
        if not stat.S_ISDIR(info.st_mode):
            raise _not_a_directory(entry, target, info)
        directory = above.directory.open_dir(name)
        if is_parent:
            os.fchmod(directory.fd, entry.mode)
            return _Level(path, target, directory, None)
        os.fchown(directory.fd, *(self._owner or (entry.uid, entry.gid)))
        os.fchmod(directory.fd, self._change(entry.mode, True))
        return _Level(path, target, directory, entry.mtime_ns)

    def _make_dir(self, entry: FileEntry, directory: Directory, name: str) -> Directory:
        owner = self._owner or (entry.uid, entry.gid)
        return directory.make_dir(name, self._change(entry.mode, True), owner)

    def _place(self, entry: FileEntry, directory: Directory, target_dir: str, name: str) -> None:
        """Copy one entry that is not a directory under a name, in place of what has it."""
        try:
            self._create(entry, directory, target_dir, name)
        except FileExistsError:
            info = directory.lstat(name)
            if info is not None and stat.S_ISDIR(info.st_mode):
                raise BuildError(
                    f'cannot replace directory "{join(target_dir, name)}" with file "/{entry.path}"'
                ) from None
            directory.unlink(name)
            self._create(entry, directory, target_dir, name)

    def _create(self, entry: FileEntry, directory: Directory, target_dir: str, name: str) -> None:
        if entry.kind == "f":
            self._create_file(entry, directory, target_dir, name)
            return
        owner = self._owner or (entry.uid, entry.gid)
        if entry.kind == "l":
            directory.symlink(entry.linkname, name)
        elif entry.kind == "c" and entry.rdev == 0:
            raise BuildError(f'cannot copy "/{entry.path}": device 0/0 is how a layer marks a deleted file')
        else:
            directory.mknod(name, _TYPES[entry.kind] | 0o600, entry.rdev if entry.kind in "cb" else 0)
        if not directory.gives(owner):
            directory.chown(name, owner)
        if entry.kind != "l":
            directory.chmod(name, self._change(entry.mode, False))
        directory.utime(name, entry.mtime_ns)

    def _create_file(self, entry: FileEntry, directory: Directory, target_dir: str, name: str) -> None:
        source_fd = self._open(entry)
        try:
            info = os.fstat(source_fd)
            self._tree.check(entry, info)
            if info.st_nlink > 1 and self._link(info, directory, target_dir, name):
                return
            fd = directory.create(name)
            try:
                copy_content(source_fd, fd, info.st_size)
                self._tree.check(entry, os.fstat(source_fd))
                self._finish(entry, source_fd, fd, directory)
            finally:
                os.close(fd)
        finally:
            os.close(source_fd)

    def _finish(self, entry: FileEntry, source_fd: int, fd: int, directory: Directory) -> None:
        """Owner first: it clears the mode's special bits and the capabilities."""
        owner = self._owner or (entry.uid, entry.gid)
        if not directory.gives(owner):
            os.fchown(fd, *owner)
        os.fchmod(fd, self._change(entry.mode, False))
        capability = self._tree.capability(source_fd)
        if capability is not None:
            os.setxattr(fd, CAPABILITY, capability)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    def _link(self, info: os.stat_result, directory: Directory, target_dir: str, name: str) -> bool:
        """Link to the name that the same file was copied under before; False if this is the first."""
        known = self._links.setdefault((info.st_dev, info.st_ino), (target_dir, name))
        if known == (target_dir, name):
            return False
        with self._root.open_dir(known[0]) as first:
            directory.link(first, known[1], name)
        return True

    def _open(self, entry: FileEntry) -> int:
        """The source file, by way of its directory, which stays open while its files are copied."""
        parent, _, name = entry.path.rpartition("/")
        if self._from is None or self._from[0] != parent:
            self._leave_source()
            self._from = parent, self._tree.open_dir(parent)
        try:
            return self._from[1].open_file(name)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                raise
            raise BuildError(f'"/{entry.path}" changed while it was being copied') from error

    def _leave_source(self) -> None:
        if self._from is not None:
            os.close(self._from[1].fd)
            self._from = None


def _not_a_directory(entry: FileEntry, target: str, info: os.stat_result) -> BuildError:
    hint = "a symbolic link there is not followed; copy to what it leads to" if stat.S_ISLNK(info.st_mode) else None
    return BuildError(f'cannot copy directory "/{entry.path}" over "{target}": not a directory', hint=hint)
