"""What an operation gets to work with: the store, the context's files, the sandbox, the secrets and the reporter.

One bundle for one build, made by the command; operations keep nothing of their own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from builder.context import BuildContext
from builder.errors import BuildError
from builder.options import SecretSource
from builder.plan import HttpSourceOp, Vertex
from builder.progress import Reporter
from cache.snapshots import Snapshot
from cache.store import Store

if TYPE_CHECKING:
    from builder.ops.fetch import Fetched
    from builder.ops.localtree import ContextTree
    from builder.ops.tree import SourceTree
    from builder.sandbox.launcher import Launcher

SECRET_LIMIT = 500 << 10


class Secrets:
    """The secrets and the ssh agent sockets that the command line gave; bytes are read when a step asks for them."""

    def __init__(self, sources: tuple[SecretSource, ...], ssh: Mapping[str, str], environ: Mapping[str, str]) -> None:
        self._sources = {source.id: source for source in sources}
        self._environ = environ
        self.ssh = ssh

    def read(self, secret_id: str) -> bytes | None:
        """The secret's bytes, None when it was not given. Raises BuildError when its file cannot be read."""
        source = self._sources.get(secret_id)
        if source is None:
            return None
        if source.env:
            value = self._environ.get(source.env)
            return None if value is None else os.fsencode(value)
        try:
            with open(source.path, "rb") as file:
                found = file.read(SECRET_LIMIT + 1)
        except OSError as error:
            raise BuildError(f'secret "{secret_id}" cannot be read: {(error.strerror or "").lower()}') from error
        if len(found) > SECRET_LIMIT:
            raise BuildError(f'secret "{secret_id}" is larger than {SECRET_LIMIT >> 10} KiB')
        return found


class Worker:
    """See the module. Safe to use from several threads."""

    def __init__(
        self,
        store: Store,
        context: BuildContext,
        *,
        reporter: Reporter,
        secrets: Secrets,
        clock: Callable[[], int],
        vertices: Sequence[Vertex],
        allowed: frozenset[str] = frozenset(),
    ) -> None:
        self.store = store
        self.context = context
        self.reporter = reporter
        self.secrets = secrets
        self.clock = clock
        self.vertices = vertices
        self.allowed = allowed
        """Entitlements that --allow granted."""
        self._trees: dict[str, ContextTree] = {}
        self._fetched: dict[HttpSourceOp, Fetched] = {}
        self._launcher: Launcher | None = None
        self._lock = threading.Lock()

    def tree(self, name: str) -> ContextTree:
        """The local directory of a LocalSourceOp, scanned once a build."""
        from builder.ops.localtree import context_tree, sources_of

        with self._lock:
            if name not in self._trees:
                local = self.context.local(name)
                sources = sources_of(self.vertices, name)
                self._trees[name] = context_tree(local.path, local.matcher, self.store.statcache, sources=sources)
            return self._trees[name]

    def fetched(self, op: HttpSourceOp) -> Fetched:
        """The answer of an HttpSourceOp's server, asked once a build. Raises BuildError."""
        from builder.ops.fetch import fetch_digest

        with self._lock:
            if op not in self._fetched:
                self._fetched[op] = fetch_digest(op, self.store)
            return self._fetched[op]

    @property
    def launcher(self) -> Launcher:
        """The sandbox, started at its first use."""
        from builder.sandbox.launcher import Launcher

        with self._lock:
            if self._launcher is None:
                self._launcher = Launcher()
                self._launcher.start()
            return self._launcher

    @contextmanager
    def view(self, snapshot: Snapshot) -> Iterator[SourceTree]:
        """The merged files of a snapshot, to read from."""
        from builder.ops.fileop import root_tree
        from builder.sandbox.overlay import mount_detached

        fd = mount_detached(self.store.snapshots.lower_dirs(snapshot))
        try:
            yield root_tree(fd)
        finally:
            os.close(fd)

    def cancel(self) -> None:
        """End every process of the build."""
        with self._lock:
            if self._launcher is not None:
                self._launcher.close()

    def close(self) -> None:
        """End the sandbox and write down what was learned about the context's files."""
        with self._lock:
            if self._launcher is not None:
                self._launcher.close()
                self._launcher = None
            for tree in self._trees.values():
                tree.save()
