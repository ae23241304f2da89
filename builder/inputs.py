"""What a build reads from outside: its contexts, each scanned once, and what it fetches."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from builder.context import BuildContext
from builder.fetcher import Fetcher
from builder.plan import Vertex
from cache.snapshots import Snapshot

if TYPE_CHECKING:
    from builder.ops.localtree import ContextTree


class Inputs:
    """The inputs of one plan. Safe to use from several threads."""

    def __init__(self, context: BuildContext, vertices: Sequence[Vertex], fetcher: Fetcher) -> None:
        self._context = context
        self._vertices = vertices
        self.fetcher = fetcher
        self._trees: dict[str, ContextTree] = {}
        self._lock = threading.Lock()

    def snapshot(self, name: str) -> Snapshot | None:
        """What a LocalSourceOp stands for if it is no directory, fetched at the first call. Raises BuildError."""
        with self._lock:
            return self._context.snapshot(name)

    def tree(self, name: str) -> ContextTree:
        """The directory of a LocalSourceOp, scanned at the first call. Raises BuildError."""
        from builder.ops.localtree import context_tree, sources_of

        with self._lock:
            if name not in self._trees:
                local = self._context.local(name)
                statcache, sources = self.fetcher.store.statcache, sources_of(self._vertices, name)
                self._trees[name] = context_tree(local.path, local.matcher, statcache, sources=sources)
            return self._trees[name]

    def save(self) -> None:
        """Keep the digests of local files for the next build."""
        with self._lock:
            for tree in self._trees.values():
                tree.save()
