"""What the copy tests share: contexts and roots written as dicts, a copy in one call, a tree read back."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from builder.ops.fileop import apply, context_tree, root_tree
from builder.ops.tree import SourceTree
from builder.plan import CopyAction, FileOp
from builder.sandbox.fsops import SafeRoot
from grammar.ignore import IgnoreMatcher

Spec = Mapping[str, Any]
"""Path -> content (str or bytes), None for a directory, or a Link, Hard, Fifo, and Entry for more."""


class Link(str):
    """A symlink to this target."""


class Hard(str):
    """Another name of this earlier path."""


class Fifo:
    """A named pipe."""


class Entry:
    """Content with a mode, an owner or a time."""

    def __init__(
        self, content: Any = "", mode: int | None = None, owner: tuple[int, int] | None = None, mtime: int | None = None
    ) -> None:
        self.content, self.mode, self.owner, self.mtime = content, mode, owner, mtime


def write_tree(directory: Path, spec: Spec) -> Path:
    """Make the entries below `directory`; times of directories are set at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    times = []
    for name, value in spec.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        entry = value if isinstance(value, Entry) else Entry(value)
        _write(directory, path, entry.content)
        if entry.owner is not None:
            os.chown(path, *entry.owner, follow_symlinks=False)
        if entry.mode is not None:
            path.chmod(entry.mode)
        if entry.mtime is not None:
            times.append((path, entry.mtime))
    for path, mtime in reversed(times):
        os.utime(path, (mtime, mtime), follow_symlinks=False)
    return directory


def _write(directory: Path, path: Path, content: Any) -> None:
    if isinstance(content, Link):
        path.symlink_to(content)
    elif isinstance(content, Hard):
        os.link(directory / content, path)
    elif isinstance(content, Fifo):
        os.mkfifo(path)
    elif content is None:
        path.mkdir(exist_ok=True)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def opened(directory: Path) -> Iterator[int]:
    """A descriptor of a directory."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def context(directory: Path, *ignored: str, sources: tuple[str, ...] | None = None) -> SourceTree:
    """A directory as a build context with ignore patterns."""
    matcher = IgnoreMatcher(list(ignored)) if ignored else None
    return context_tree(str(directory), matcher, None, sources=sources)


def copy(root: Path, tree: SourceTree, source: str, dest: str, **options: Any) -> None:
    """One COPY, as the frontend would lower it."""
    run(root, tree, CopyAction(1, source, dest, **options))


def copy_from(root: Path, stage: Path, source: str, dest: str, **options: Any) -> None:
    """One COPY --from a directory that stands for a stage."""
    with opened(stage) as fd:
        copy(root, root_tree(fd), source, dest, **options)


def run(root: Path, tree: SourceTree, *actions: Any) -> None:
    """Apply actions to a directory that stands for the root."""
    root.mkdir(parents=True, exist_ok=True)
    with opened(root) as fd:
        apply(FileOp(actions), SafeRoot(fd), {1: tree})


def listing(directory: Path) -> dict[str, str]:
    """Relative path -> `type mode [uid:gid] [target or content]` of everything below a directory."""
    found = {}
    for path in sorted(directory.rglob("*")):
        info = path.lstat()
        kind = {stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFREG: "f", stat.S_IFIFO: "p"}.get(
            stat.S_IFMT(info.st_mode), "?"
        )
        line = kind if kind == "l" else f"{kind} {stat.S_IMODE(info.st_mode):o}"
        if (info.st_uid, info.st_gid) != (0, 0):
            line += f" {info.st_uid}:{info.st_gid}"
        if kind == "l":
            line += f" -> {os.readlink(path)}"
        elif kind == "f":
            line += f" {os.fsdecode(path.read_bytes())!r}"
        found[str(path.relative_to(directory))] = line
    return found
