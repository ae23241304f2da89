"""How layers become one root: the contract, and overlayfs, which needs nothing but to be asked for.

A snapshotter is asked for by whoever reads a merged root himself (`opened`), and by the launcher, before a step mounts
its root and its mounts (`mounted`, `attached`). Whatever it does in between, afterwards the upper directory says what
overlayfs would have said there. Knows no snapshots.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from builder.sandbox.spec import Mount, RootMount


class Snapshotter(Protocol):
    """One way to merge directories. Safe to use from several threads."""

    name: str

    def mounted(self, root: RootMount) -> AbstractContextManager[RootMount]:
        """What a step can mount in the place of `root`, good while the block runs."""

    def attached(self, mount: Mount) -> AbstractContextManager[Mount]:
        """The same for a mount of kind `overlay`; every other is left as it is."""

    def opened(
        self,
        lower_dirs: Sequence[str],
        upper_dir: str | None = None,
        work_dir: str | None = None,
        *,
        volatile: bool = False,
    ) -> AbstractContextManager[int]:
        """A descriptor of the merged root (`lower_dirs` top first), which can be written if it has an upper directory.

        Nothing is synced if it is `volatile`; its work directory is then of no use to another mount.

        Raises SandboxError.
        """


class Overlay:
    """The kernel's overlayfs: every mount is made where it is used."""

    name = "overlay"

    @contextmanager
    def mounted(self, root: RootMount) -> Iterator[RootMount]:
        yield root

    @contextmanager
    def attached(self, mount: Mount) -> Iterator[Mount]:
        yield mount

    @contextmanager
    def opened(
        self,
        lower_dirs: Sequence[str],
        upper_dir: str | None = None,
        work_dir: str | None = None,
        *,
        volatile: bool = False,
    ) -> Iterator[int]:
        from builder.sandbox.overlay import mount_detached

        fd = mount_detached(lower_dirs, upper_dir, work_dir, volatile=volatile)
        try:
            yield fd
        finally:
            os.close(fd)


def make_like(directory: str, lower_dirs: Sequence[str]) -> None:
    """Make an upper directory with the owner of what it covers, since the merged root shows the upper's own."""
    os.mkdir(directory, 0o755)
    if lower_dirs:
        below = os.stat(lower_dirs[0])
        os.chown(directory, below.st_uid, below.st_gid)


OVERLAY: Snapshotter = Overlay()
