"""The directories that a snapshotter merges, and a place for changes that nobody keeps."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from builder.sandbox.snapshotter import make_like
from builder.sandbox.spec import Mount
from cache.namedtuple import NamedTuple

Scratch = Callable[[], AbstractContextManager[str]]


class Directories(NamedTuple):
    """What to merge, top first, and where changes go."""

    lower_dirs: tuple[str, ...]
    upper_dir: str | None = None
    work_dir: str | None = None

    @property
    def is_single(self) -> bool:
        """Whether there is nothing to merge."""
        return len(self.lower_dirs) + (self.upper_dir is not None) < 2

    @property
    def common_dir(self) -> str:
        """A directory that all are in: upper and work directory have to be on one mount."""
        given = [path for path in (*self.lower_dirs, self.upper_dir, self.work_dir) if path is not None]
        return os.path.commonpath([os.path.dirname(path) for path in given])


def directories_of(mount: Mount, scratch: Scratch, stack: ExitStack) -> Directories:
    """Those of a mount of kind `overlay`: one that is written to and keeps nothing gets a place that `stack` closes."""
    given = mount.options
    found = Directories(tuple(given["lower_dirs"]), given.get("upper_dir"), given.get("work_dir"))
    if found.upper_dir is not None or mount.read_only:
        return found
    place = stack.enter_context(scratch())
    found = found._replace(upper_dir=f"{place}/upper", work_dir=f"{place}/work")
    make_like(f"{place}/upper", found.lower_dirs)
    os.mkdir(f"{place}/work", 0o700)
    return found
