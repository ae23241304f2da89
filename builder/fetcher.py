"""What a build fetches from other machines: files behind URLs, git repositories and images, each asked for once.

The door to `ops.fetch` and `git`, which a build that fetches nothing does not load.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from builder.plan import GitSourceOp, HttpSourceOp
from cache.mutex import Lock
from cache.store import Store

if TYPE_CHECKING:
    from builder.git.access import SecretSource
    from builder.git.command import Running
    from builder.locked import Pins
    from builder.ops.fetch import Fetched
    from builder.ops.git import GitSource
    from builder.pulling import RemoteImages


class Fetcher:
    """The sources of one build that are not on this machine. Any thread may use it."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], int],
        secrets: SecretSource | None = None,
        images: RemoteImages | None = None,
    ) -> None:
        self.store = store
        self.images = images
        """The images of registries; None where nothing is to be asked of them."""
        self.clock = clock
        """Nanoseconds since the epoch."""
        self.pins: Pins | None = None
        """Who says what URLs and references mean, if it is not their servers."""
        self._secrets = secrets
        self._files: dict[HttpSourceOp, Fetched] = {}
        self._repositories: dict[GitSourceOp, GitSource] = {}
        self._running: Running | None = None
        self._lock = Lock()

    def file(self, op: HttpSourceOp) -> Fetched:
        """The answer of an HttpSourceOp's server, asked at the first call. Raises BuildError."""
        with self._lock:
            if op not in self._files:
                ask = partial(self._ask, op)
                self._files[op] = ask() if self.pins is None else self.pins.file(op, ask)
            return self._files[op]

    def _ask(self, op: HttpSourceOp) -> Fetched:
        from builder.ops.fetch import fetch_digest

        return fetch_digest(op, self.store, self._secrets)

    def repository(self, op: GitSourceOp) -> GitSource:
        """The repository of a GitSourceOp; its server is asked when something of it is. Raises BuildError."""
        from builder.git.command import Running
        from builder.ops.git import GitSource

        with self._lock:
            if self._running is None:
                self._running = Running()
            if op not in self._repositories:
                pinned = None if self.pins is None else self.pins.revision(op)
                self._repositories[op] = GitSource(op, self.store, self._secrets, self._running, pinned=pinned)
            return self._repositories[op]

    @property
    def repositories(self) -> list[GitSourceOp]:
        """The repositories that were asked for until now."""
        with self._lock:
            return list(self._repositories)

    def cancel(self) -> None:
        """End the programs that fetch. Idempotent."""
        if self._running is not None:
            self._running.cancel()
        if self.images is not None:
            self.images.cancel()
