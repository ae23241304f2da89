"""Merged roots as plain copies: works on every filesystem, and every step pays for the whole of its root.

A copy lies in the work directory that overlayfs would have used. When the step has ended, the upper directory is
replaced by what the copy differs in, so that layers are the same whoever made them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from builder.sandbox.spec import Mount, RootMount
from builder.snapshotters.directories import Scratch
from cache.flatten import copy_merged, to_upper
from cache.removal import remove_tree

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Native:
    """See the module; `scratch` gives directories for roots that nobody keeps."""

    name = "native"

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch

    @contextmanager
    def mounted(self, root: RootMount) -> Iterator[RootMount]:
        with self._directory(root.lower_dirs, root.upper_dir, root.work_dir) as directory:
            if root.upper_dir is None:
                yield root._replace(lower_dirs=(directory,))
            else:
                yield root._replace(lower_dirs=(), upper_dir=directory, work_dir=None)

    @contextmanager
    def attached(self, mount: Mount) -> Iterator[Mount]:
        if mount.kind != "overlay":
            yield mount
            return
        given = mount.options
        upper_dir = given.get("upper_dir")
        lower_dirs = tuple(given["lower_dirs"])
        if upper_dir is None and not mount.read_only:
            with self._scratch() as directory:
                copy_merged(lower_dirs, directory)
                yield mount._replace(options={**given, "lower_dirs": [], "upper_dir": directory, "work_dir": None})
            return
        with self._directory(lower_dirs, upper_dir, given.get("work_dir")) as directory:
            merged = {"lower_dirs": [directory]} if upper_dir is None else {"lower_dirs": [], "upper_dir": directory}
            yield mount._replace(options={**given, "work_dir": None, **merged})

    @contextmanager
    def opened(
        self,
        lower_dirs: Sequence[str],
        upper_dir: str | None = None,
        work_dir: str | None = None,
        *,
        volatile: bool = False,
    ) -> Iterator[int]:
        with self._directory(tuple(lower_dirs), upper_dir, work_dir) as directory:
            fd = os.open(directory, _OPEN)
            try:
                yield fd
            finally:
                os.close(fd)

    @contextmanager
    def _directory(self, lower_dirs: tuple[str, ...], upper_dir: str | None, work_dir: str | None) -> Iterator[str]:
        """The merged tree as one directory; changes end up in the upper directory, if there is one."""
        if upper_dir is None and len(lower_dirs) == 1:
            yield lower_dirs[0]
        elif upper_dir is None:
            with self._scratch() as directory:
                copy_merged(lower_dirs, directory, keep_links=True)
                yield directory
        elif not lower_dirs:
            yield upper_dir
        else:
            assert work_dir is not None, "an upper directory comes with a work directory"
            directory = os.path.join(work_dir, "copy")
            remove_tree(directory)
            os.mkdir(directory, 0o700)
            copied = copy_merged((upper_dir, *lower_dirs), directory)
            try:
                yield directory
            finally:
                to_upper(directory, lower_dirs, copied)
                remove_tree(upper_dir)
                os.rename(directory, upper_dir)
