"""The one tree that several overlay lower directories show, walked without mounting them.

Rules of the kernel (Documentation/filesystems/overlayfs.rst): the upper entry hides the lower one, directories merge
until one is opaque or meets something that is no directory, a character device 0/0 is a whiteout. Reads only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from cache.merged import OVERLAY_XATTRS
from cache.namedtuple import NamedTuple


class MergedEntry(NamedTuple):
    """One path of the merged tree: `path` in it ("/a/b"), `source` on this machine, `layer` counted from the top."""

    path: str
    source: str
    layer: int
    stat: os.stat_result


class _Node:
    """A name while its directory is merged: what shows, and for a directory all that it is made of."""

    __slots__ = ("closed", "directories", "layer", "source", "stat")

    def __init__(self, source: str, layer: int, status: os.stat_result) -> None:
        self.source, self.layer, self.stat = source, layer, status
        self.directories: list[tuple[int, str]] = []
        self.closed = not stat.S_ISDIR(status.st_mode)

    @property
    def is_whiteout(self) -> bool:
        return stat.S_ISCHR(self.stat.st_mode) and self.stat.st_rdev == 0


def walk_merged(lower_dirs: Sequence[str]) -> Iterator[MergedEntry]:
    """Yield every path below the root of the merged tree; `lower_dirs` are top first.

    A directory comes before what is in it, and that before its next sibling; siblings by the bytes of their names.
    """
    levels = [_children("", tuple(enumerate(lower_dirs)))]
    while levels:
        found = next(levels[-1], None)
        if found is None:
            levels.pop()
            continue
        entry, directories = found
        yield entry
        if directories:
            levels.append(_children(entry.path, directories))


def _children(
    path: str, directories: tuple[tuple[int, str], ...]
) -> Iterator[tuple[MergedEntry, tuple[tuple[int, str], ...]]]:
    nodes: dict[str, _Node] = {}
    for layer, directory in directories:
        with os.scandir(directory) as entries:
            for entry in entries:
                _merge(nodes, entry, layer)
    for name in sorted(nodes, key=os.fsencode):
        node = nodes[name]
        if not node.is_whiteout:
            yield MergedEntry(f"{path}/{name}", node.source, node.layer, node.stat), tuple(node.directories)


def _merge(nodes: dict[str, _Node], entry: os.DirEntry[str], layer: int) -> None:
    node = nodes.get(entry.name)
    if node is not None and node.closed:
        return
    status = entry.stat(follow_symlinks=False)
    if node is None:
        node = nodes[entry.name] = _Node(entry.path, layer, status)
    if not stat.S_ISDIR(status.st_mode):
        node.closed = True
        return
    node.directories.append((layer, entry.path))
    node.closed = _is_opaque(entry.path)


def _is_opaque(path: str) -> bool:
    for prefix in OVERLAY_XATTRS:
        try:
            if os.getxattr(path, prefix + "opaque", follow_symlinks=False) == b"y":
                return True
        except OSError:
            continue
    return False
