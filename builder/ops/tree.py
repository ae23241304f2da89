"""Where a copy reads from: the build context on this machine, or the merged view of a snapshot.

Both look like one tree whose paths are relative to its root (`""` is the root, `a/b` below it) and never lead out of
it. Owns what of the source's metadata counts; knows nothing of destinations, patterns or cache keys.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from builder.errors import BuildError
from cache.dirscan import KIND_OF_TYPE, FileEntry

if TYPE_CHECKING:
    from builder.sandbox.fsops import Directory

CAPABILITY = "security.capability"


class SourceTree(Protocol):
    """What selecting and copying ask of a source. Paths have no symlinks on the way, except in the last place."""

    keeps_owners: bool
    """Whether the users and groups of its entries count; if not, everything is root's."""

    modes: str
    """`full` when every bit of a mode counts in digests, `git` when only a file's executable bit does."""

    def lstat(self, path: str) -> FileEntry | None:
        """The entry at `path`, None if it is not in the tree."""

    def entries(self, path: str) -> Sequence[FileEntry]:
        """What the directory at `path` holds, names by bytes."""

    def below(self, path: str) -> Iterable[FileEntry]:
        """Everything below the directory at `path`: depth first, names by bytes, a directory before its members."""

    def open_dir(self, path: str) -> Directory:
        """The directory at `path`, to open files in; the caller closes it."""

    def digest(self, entry: FileEntry) -> str:
        """A digest of a regular file's bytes, xxh3-128 in hex, and of the capability that is copied with it."""

    def capability(self, fd: int) -> bytes | None:
        """The `security.capability` attribute that goes with an open file of the tree."""

    def check(self, entry: FileEntry, info: os.stat_result) -> None:
        """Raise BuildError if an open file is no longer what `entry` says."""

    def has_directory(self, path: str) -> bool:
        """Whether the directory before a wildcard counts as there when nothing in it matched."""

    def why_missing(self, path: str) -> str | None:
        """A hint for the user who named `path`, which is not in the tree."""


class RootTree:
    """A snapshot's merged view behind a directory descriptor, which the caller owns: owners and modes as they are."""

    keeps_owners = True
    modes = "full"

    def __init__(self, fd: int) -> None:
        from builder.sandbox.fsops import SafeRoot

        self._root = SafeRoot(fd)

    def lstat(self, path: str) -> FileEntry | None:
        info = self._root.lstat(path)
        if info is None or _is_whiteout(info):
            return None
        is_link = stat.S_ISLNK(info.st_mode)
        return entry_of(path, info, (self._root.readlink(path) or "") if is_link else "")

    def entries(self, path: str) -> Sequence[FileEntry]:
        prefix = f"{path}/" if path else ""
        found = []
        with self.open_dir(path) as directory:
            for name in directory.names():
                info = directory.lstat(name)
                if info is not None and not _is_whiteout(info):
                    target = directory.readlink(name) if stat.S_ISLNK(info.st_mode) else ""
                    found.append(entry_of(prefix + name, info, target))
        return found

    def below(self, path: str) -> Iterator[FileEntry]:
        levels = [iter(self.entries(path))]
        while levels:
            entry = next(levels[-1], None)
            if entry is None:
                levels.pop()
                continue
            yield entry
            if entry.kind == "d":
                levels.append(iter(self.entries(entry.path)))

    def open_dir(self, path: str) -> Directory:
        return self._root.open_dir(path or "/")

    def digest(self, entry: FileEntry) -> str:
        from xxhash import xxh3_128

        hasher = xxh3_128()
        parent, _, name = entry.path.rpartition("/")
        with self.open_dir(parent) as directory, open(directory.open_file(name), "rb", buffering=0) as file:
            for chunk in iter(partial(file.read, 1 << 20), b""):
                hasher.update(chunk)
            capability = self.capability(file.fileno())
        return hasher.hexdigest() if capability is None else f"{hasher.hexdigest()}+{capability.hex()}"

    def capability(self, fd: int) -> bytes | None:
        from builder.sandbox.fsops import getxattr

        return getxattr(fd, CAPABILITY)

    def check(self, entry: FileEntry, info: os.stat_result) -> None:
        if not stat.S_ISREG(info.st_mode):
            raise BuildError(f'"/{entry.path}": expected a regular file')

    def has_directory(self, path: str) -> bool:
        return self._root.stat(path or "/") is not None

    def why_missing(self, path: str) -> str | None:
        return similar_name(self, path)


def _is_whiteout(info: os.stat_result) -> bool:
    """A single layer is not mounted but looked at as it is, with the marks that delete from the layers below."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def entry_of(path: str, info: os.stat_result, linkname: str) -> FileEntry:
    """A stat result as a FileEntry of `path`."""
    kind = KIND_OF_TYPE[stat.S_IFMT(info.st_mode)]
    return FileEntry(
        path=path,
        kind=kind,
        mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
        size=info.st_size if kind == "f" else 0,
        mtime_ns=info.st_mtime_ns,
        ino=info.st_ino,
        ctime_ns=info.st_ctime_ns,
        linkname=linkname,
        rdev=info.st_rdev,
    )


def similar_name(tree: SourceTree, path: str) -> str | None:
    """The hint "did you mean" for the first missing name on `path`, None if nothing is like it."""
    from difflib import get_close_matches

    here = ""
    for name in path.split("/"):
        names = {entry.path.rpartition("/")[2]: entry for entry in tree.entries(here)}
        entry = names.get(name)
        if entry is None:
            folded = {known.lower(): known for known in names}
            close = get_close_matches(name.lower(), folded, n=1)
            return f'did you mean "/{_below(here, folded[close[0]])}"?' if close else None
        if entry.kind != "d":
            return f'"/{entry.path}" is not a directory'
        here = entry.path
    return None


def _below(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


class EmptyTree:
    """What copies from an empty root read: nothing."""

    keeps_owners = False
    modes = "full"

    def lstat(self, path: str) -> FileEntry | None:
        return None if path else FileEntry("", "d", 0o755, 0, 0, 0, 0, 0, 0, "", 0)

    def entries(self, _path: str) -> Sequence[FileEntry]:
        return ()

    def below(self, _path: str) -> Iterable[FileEntry]:
        return ()

    def open_dir(self, path: str) -> Directory:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def digest(self, entry: FileEntry) -> str:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), entry.path)

    def capability(self, _fd: int) -> bytes | None:
        return None

    def check(self, entry: FileEntry, info: os.stat_result) -> None:
        pass

    def has_directory(self, path: str) -> bool:
        return not path

    def why_missing(self, _path: str) -> str | None:
        return "the source is an empty image"


EMPTY_TREE = EmptyTree()
