"""What a build reads from outside: its contexts, each scanned once, and what it fetches."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from builder.context import BuildContext
from builder.fetcher import Fetcher
from builder.plan import CopyAction, Vertex
from cache.digest import sha256_hex
from cache.errors import StoreFullError
from cache.memo import Memo
from cache.mutex import Lock
from cache.snapshots import Snapshot

if TYPE_CHECKING:
    from builder.ops.localtree import ContextTree
    from builder.ops.select import Selection


class _Read:
    """One local directory: its tree, and the digests of what copies read of it, from this build and earlier ones."""

    def __init__(self, tree: ContextTree, memo: Memo) -> None:
        self.tree = tree
        self.key = "tree:" + sha256_hex(tree.state().encode("utf-8", "surrogateescape"))
        self.digests: dict[str, str] = json.loads(memo.get(self.key) or b"{}")
        self.selections: dict[str, Selection] = {}
        self.lock = Lock()
        self._known = len(self.digests)

    def selection(self, copy: CopyAction) -> Selection:
        """What a copy reads. Raises BuildError where BuildKit does."""
        from builder.ops.select import selection

        identity = _identity(copy)
        with self.lock:
            if identity not in self.selections:
                self.selections[identity] = selection(copy, self.tree)
                self.digests[identity] = self.selections[identity].digest
            return self.selections[identity]

    def save(self, memo: Memo) -> None:
        """Keep what was learned, if no file can have changed unseen."""
        self.tree.save()
        if len(self.digests) > self._known and self.tree.is_settled():
            with contextlib.suppress(StoreFullError):  # what is not remembered costs time, not the build
                memo.put(self.key, json.dumps(self.digests).encode("ascii"))


def _identity(copy: CopyAction) -> str:
    """What of a copy decides what it reads: everything but where it reads from and where it puts it."""
    return json.dumps([str(value) if isinstance(value, bool) else value for value in copy._replace(input=0, dest="")])


class Inputs:
    """The inputs of one plan. Safe to use from several threads."""

    def __init__(
        self, context: BuildContext, vertices: Sequence[Vertex], fetcher: Fetcher, *, modes: str = "full"
    ) -> None:
        self._context = context
        self.modes = modes
        """What of a context file's mode is in keys: `full` or `git` (--cache-key-mode)."""
        self._vertices = vertices
        self.fetcher = fetcher
        self._trees: dict[str, _Read] = {}
        self._lock = Lock()

    @property
    def project(self) -> str:
        """A name for what is built here: the context's directory and the Dockerfile."""
        return f"{self._context.root}\0{self._context.dockerfile}"

    def snapshot(self, name: str) -> Snapshot | None:
        """What a LocalSourceOp stands for if it is no directory, fetched at the first call. Raises BuildError."""
        with self._lock:
            return self._context.snapshot(name)

    def tree(self, name: str) -> ContextTree:
        """The directory of a LocalSourceOp, scanned at the first call. Raises BuildError."""
        return self._read(name).tree

    def digest(self, name: str, copy: CopyAction) -> str:
        """The digest of what a copy reads of a LocalSourceOp's directory: remembered while no file of it changes.

        Raises BuildError where BuildKit does.
        """
        read = self._read(name)
        return read.digests.get(_identity(copy)) or read.selection(copy).digest

    def selection(self, name: str, copy: CopyAction) -> Selection:
        """The same with the files behind the digest. Raises BuildError."""
        return self._read(name).selection(copy)

    def _read(self, name: str) -> _Read:
        from builder.ops.localtree import context_tree, sources_of

        with self._lock:
            if name not in self._trees:
                local, store = self._context.local(name), self.fetcher.store
                sources = sources_of(self._vertices, name)
                tree = context_tree(local.path, local.matcher, store.statcache, sources=sources, modes=self.modes)
                self._trees[name] = _Read(tree, store.memo)
            return self._trees[name]

    def save(self) -> None:
        """Keep the digests of local files for the next build."""
        with self._lock:
            for read in self._trees.values():
                read.save(self.fetcher.store.memo)
