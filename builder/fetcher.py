"""What a build fetches from other machines: files behind URLs, git repositories and images, each asked for once.

The door to `ops.fetch` and `git`, which a build that fetches nothing does not load.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from builder.plan import GitSourceOp, HttpSourceOp
from cache.store import Store

if TYPE_CHECKING:
    from builder.git.access import SecretSource
    from builder.git.command import Running
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
        self._secrets = secrets
        self._files: dict[HttpSourceOp, Fetched] = {}
        self._repositories: dict[GitSourceOp, GitSource] = {}
        self._running: Running | None = None
        self._lock = threading.Lock()

    def file(self, op: HttpSourceOp) -> Fetched:
        """The answer of an HttpSourceOp's server, asked at the first call. Raises BuildError."""
        from builder.ops.fetch import fetch_digest

        with self._lock:
            if op not in self._files:
                self._files[op] = fetch_digest(op, self.store, self._secrets)
            return self._files[op]

    def repository(self, op: GitSourceOp) -> GitSource:
        """The repository of a GitSourceOp; its server is asked when something of it is. Raises BuildError."""
        from builder.git.command import Running
        from builder.ops.git import GitSource

        with self._lock:
            if self._running is None:
                self._running = Running()
            if op not in self._repositories:
                self._repositories[op] = GitSource(op, self.store, self._secrets, self._running)
            return self._repositories[op]

    def cancel(self) -> None:
        """End the programs that fetch. Idempotent."""
        if self._running is not None:
            self._running.cancel()
        if self.images is not None:
            self.images.cancel()
