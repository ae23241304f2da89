"""What a build reads from outside: the local directories of its plan and the files behind its URLs, each once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from builder.context import BuildContext
from builder.plan import HttpSourceOp, Vertex
from cache.store import Store

if TYPE_CHECKING:
    from builder.ops.fetch import Fetched
    from builder.ops.localtree import ContextTree


class Inputs:
    """The inputs of one plan. Safe to use from several threads."""

    def __init__(self, context: BuildContext, vertices: Sequence[Vertex], store: Store) -> None:
        self._context = context
        self._vertices = vertices
        self._store = store
        self._trees: dict[str, ContextTree] = {}
        self._fetched: dict[HttpSourceOp, Fetched] = {}
        self._lock = threading.Lock()

    def tree(self, name: str) -> ContextTree:
        """The local directory of a LocalSourceOp, scanned at the first call. Raises BuildError."""
        from builder.ops.localtree import context_tree, sources_of

        with self._lock:
            if name not in self._trees:
                local = self._context.local(name)
                sources = sources_of(self._vertices, name)
                self._trees[name] = context_tree(local.path, local.matcher, self._store.statcache, sources=sources)
            return self._trees[name]

    def fetched(self, op: HttpSourceOp) -> Fetched:
        """The answer of an HttpSourceOp's server, asked at the first call. Raises BuildError."""
        from builder.ops.fetch import fetch_digest

        with self._lock:
            if op not in self._fetched:
                self._fetched[op] = fetch_digest(op, self._store)
            return self._fetched[op]

    def save(self) -> None:
        """Keep the digests of local files for the next build."""
        with self._lock:
            for tree in self._trees.values():
                tree.save()
