"""What a step changed: an overlay upper directory compared with the layers below it.

The rules are BuildKit's overlay differ (util/overlay, `Changes`): a character device 0/0 is a deletion, an opaque
directory is a deletion of each old member that is not there again, an entry that is the same as the one below is no
change, and a directory differs by mode and owner only, not by its mtime. The root directory is never listed; the
directories above a change always are.

Beside the changes the walk finds what in the upper directory says more than they do (`Repair`): `normalize` drops it,
and the directory then holds exactly what its tar will say, whatever it lies upon.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

from cache import merged
from cache.dirfds import DirectoryCache, read_limited
from cache.errors import LayerError, os_errors
from cache.merged import Found, Stack
from cache.namedtuple import NamedTuple

ADD = "add"
MODIFY = "modify"
DELETE = "delete"
WHITEOUT_PREFIX = ".wh."


class Change(NamedTuple):
    """One changed path, absolute in the root. `stat` is the new entry's, None for a deletion."""

    kind: str
    path: str
    stat: os.stat_result | None


class Repair(NamedTuple):
    """Something of the upper directory that is to be dropped, or for `whiteout` to be made; in the order to do it."""

    kind: str
    path: str


def changes(upper_dir: str, lower_dirs: Stack) -> Iterator[Change]:
    """The changes of `upper_dir` over `lower_dirs` (top first), sorted by the bytes of their paths. Reads only."""
    return iter(sorted(compare(upper_dir, lower_dirs)[0], key=_path_bytes))


def compare(
    upper_dir: str, lower_dirs: Stack, *, copied: Mapping[str, tuple[int, int]] | None = None
) -> tuple[list[Change], list[Repair]]:
    """The changes in the order of a layer, and the repairs that make `upper_dir` hold exactly them. LayerError for what
    no layer can hold.

    With `copied` (see `flatten`) the directory is no overlay's but began as a copy of all that is below, so that a name
    which is not there was deleted; what looks as it was copied is not read again.
    """
    with os_errors(upper_dir):
        directories = DirectoryCache(upper_dir)
        try:
            walk = _Comparison(directories, copied)
            walk.run(lower_dirs)
        finally:
            directories.close()
    walk.changes.sort(key=_entry_bytes)
    return walk.changes, walk.repairs


def tree_changes(tree_dir: str) -> list[Change]:
    """Every entry of a normalized layer directory as a change, in the order of a layer."""
    found: list[Change] = []
    with os_errors(tree_dir):
        directories = DirectoryCache(tree_dir)
        try:
            pending = [""]
            while pending:
                _list_directory(directories, pending.pop(), pending, found)
        finally:
            directories.close()
    found.sort(key=_entry_bytes)
    return found


def entry_name(change: Change) -> str:
    """The name of a change in a layer: relative to the root, and a deletion as a whiteout (OCI image-spec, layer)."""
    if change.stat is not None:
        return change.path[1:]
    parent, _, name = change.path.rpartition("/")
    return f"{parent}/{WHITEOUT_PREFIX}{name}"[1:]


def _entry_bytes(change: Change) -> bytes:
    return os.fsencode(change.path[1:] if change.stat is not None else entry_name(change))


def _path_bytes(change: Change) -> bytes:
    return os.fsencode(change.path)


class _Comparison:
    """The state of one walk: what was found so far. It keeps lists instead of recursing, so that any depth will do."""

    def __init__(self, directories: DirectoryCache, copied: Mapping[str, tuple[int, int]] | None) -> None:
        self._copied = copied
        self.changes: list[Change] = []
        self.repairs: list[Repair] = []
        self._open = directories
        self._pending: list[tuple[str, Stack, bool]] = []
        self._seen: list[tuple[str, os.stat_result, Found | None]] = []
        self._touched: set[str] = set()
        """Directories with a change in them."""

    def run(self, lower_dirs: Stack) -> None:
        """Walk everything from the top down, then decide about the directories from the bottom up."""
        self._pending.append(("", lower_dirs, self._copied is not None))
        while self._pending:
            self._directory(*self._pending.pop())
        for path, status, lower in reversed(self._seen):
            if lower is None or path in self._touched or not _is_same_stat(status, lower.stat):
                self._changed(path, status, lower)
            else:
                self.repairs.append(Repair("remove", path))

    def _directory(self, path: str, stack: Stack, is_hidden: bool) -> None:
        """Compare the members of one upper directory with the merged lower directory `stack`.

        `is_hidden` says that a directory above is opaque: then this one shows nothing of what is below, either.
        """
        fd = self._open.open(path[1:])
        if path and merged.is_opaque(fd):
            self.repairs.append(Repair("opaque", path))
            is_hidden = True
        with os.scandir(fd) as entries:
            members = {entry.name: entry.stat(follow_symlinks=False) for entry in entries}
        for name, status in members.items():
            lower = merged.lookup(stack, name) if stack else None
            below = f"{path}/{name}"
            if stat.S_ISDIR(status.st_mode):
                self._seen.append((below, status, lower))
                self._pending.append((below, lower.stack if lower is not None else (), is_hidden))
            else:
                self._member(fd, below, status, lower)
        if is_hidden:
            for name in merged.names(stack) - members.keys():
                self._deleted(f"{path}/{name}")
                self.repairs.append(Repair("whiteout", f"{path}/{name}"))

    def _member(self, fd: int, path: str, status: os.stat_result, lower: Found | None) -> None:
        if merged.is_whiteout(status):
            if lower is not None:
                self._deleted(path)
            else:
                self.repairs.append(Repair("remove", path))
        elif stat.S_ISSOCK(status.st_mode) or (
            lower is not None and (self._is_untouched(path, status) or _is_same(fd, path, status, lower))
        ):
            self.repairs.append(Repair("remove", path))
        else:
            self._changed(path, status, lower)

    def _is_untouched(self, path: str, status: os.stat_result) -> bool:
        return self._copied is not None and self._copied.get(path) == (status.st_ino, status.st_ctime_ns)

    def _changed(self, path: str, status: os.stat_result, lower: Found | None) -> None:
        parent, _, name = path.rpartition("/")
        if name.startswith(WHITEOUT_PREFIX):
            hint = "in an image layer such a name means that a file was deleted; remove it in the step that makes it"
            raise LayerError(
                f"{path}: a name that starts with {WHITEOUT_PREFIX!r} cannot be kept in a layer", hint=hint
            )
        self._touched.add(parent)
        self.changes.append(Change(ADD if lower is None else MODIFY, path, status))

    def _deleted(self, path: str) -> None:
        self._touched.add(path.rpartition("/")[0])
        self.changes.append(Change(DELETE, path, None))


def _is_same_stat(upper: os.stat_result, lower: os.stat_result) -> bool:
    return (
        upper.st_mode == lower.st_mode
        and upper.st_uid == lower.st_uid
        and upper.st_gid == lower.st_gid
        and upper.st_rdev == lower.st_rdev
    )


def _is_same(fd: int, path: str, status: os.stat_result, lower: Found) -> bool:
    """Whether an entry that was copied up is still what it was. Times equal to the nanosecond prove nothing: a program
    may have set them back, so the content is compared too."""
    if not _is_same_stat(status, lower.stat) or status.st_mtime_ns != lower.stat.st_mtime_ns:
        return False
    name = os.path.basename(path)
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(name, dir_fd=fd) == os.readlink(lower.path)
    return not stat.S_ISREG(status.st_mode) or (
        status.st_size == lower.stat.st_size and _is_same_file(fd, name, lower.path)
    )


def _is_same_file(fd: int, name: str, lower_path: str) -> bool:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    upper_fd = os.open(name, flags, dir_fd=fd)
    try:
        lower_fd = os.open(lower_path, flags)
        try:
            return _is_same_content(upper_fd, lower_fd)
        finally:
            os.close(lower_fd)
    finally:
        os.close(upper_fd)


def _is_same_content(upper_fd: int, lower_fd: int) -> bool:
    if capability(upper_fd) != capability(lower_fd):
        return False
    while True:
        chunk = read_limited(upper_fd, 1 << 20)
        if chunk != read_limited(lower_fd, 1 << 20):
            return False
        if not chunk:
            return True


def capability(fd: int) -> bytes | None:
    """The `security.capability` of an open file, the one extended attribute that layers carry."""
    return os.getxattr(fd, "security.capability") if "security.capability" in os.listxattr(fd) else None


def _list_directory(directories: DirectoryCache, path: str, pending: list[str], found: list[Change]) -> None:
    with os.scandir(directories.open(path[1:])) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            below = f"{path}/{entry.name}"
            is_deletion = merged.is_whiteout(status)
            found.append(Change(DELETE, below, None) if is_deletion else Change(ADD, below, status))
            if stat.S_ISDIR(status.st_mode):
                pending.append(below)
