"""ADD of a git repository: asks the remote what a reference means, and checks that commit out as a root.

The commit is what counts in the cache key, with the directory and the options; the remote is in it only where the
result names it (`.git/config`). Knows no Dockerfile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builder.errors import BuildError
from builder.git.access import SecretSource, access_to
from builder.git.checkout import Wanted, check_out
from builder.git.command import Git, Running
from builder.git.refs import Revision, resolve
from builder.git.repository import Repository, known_hosts, opened
from builder.plan import GitSourceOp
from cache.namedtuple import NamedTuple

if TYPE_CHECKING:
    from cache.snapshots import ActiveSnapshot
    from cache.store import Store


class Pinned(NamedTuple):
    """What a reference means, whatever its server says today."""

    revision: Revision
    hint: str
    """What to try when the server does not have it."""


class GitSource:
    """The repository of one GitSourceOp, with what is needed to reach it."""

    def __init__(
        self,
        op: GitSourceOp,
        store: Store,
        secrets: SecretSource | None,
        running: Running,
        *,
        pinned: Pinned | None = None,
    ) -> None:
        self._op = op
        self._store = store
        self._git = Git(access_to(op.remote, secrets, known_hosts=known_hosts(store)), running)
        self._revision = None if pinned is None else pinned.revision
        self._pinned = pinned

    @property
    def revision(self) -> Revision:
        """What the reference means, asked at the first use. Raises BuildError."""
        if self._revision is None:
            op = self._op
            self._revision = resolve(op.ref, op.checksum, self._git, fetch_by_commit=op.fetch_by_commit)
        return self._revision

    def key(self) -> dict[str, Any]:
        """What the cache key of the checkout is made of."""
        op, revision = self._op, self.revision
        key: dict[str, Any] = {"kind": "git", "commit": revision.commit or revision.name, "subdir": op.subdir}
        key |= {"submodules": op.submodules, "mtime": op.mtime or "commit"}
        if not op.keep_git_dir:
            return key
        return key | {"object": revision.name, "ref": revision.ref, "remote": self._git.access.url}

    def committed_seconds(self) -> int:
        """When the commit was made, in seconds since 1970. Raises BuildError."""
        with opened(self._store, self._git, self.revision) as repository:
            return repository.committed_seconds(self._fetch(repository))

    def _fetch(self, repository: Repository) -> str:
        try:
            return repository.fetch(self.revision)
        except BuildError as error:
            if self._pinned is not None:
                error.hint = f"{error.hint}; or {self._pinned.hint}" if error.hint else self._pinned.hint
            raise

    def materialise(self, active: ActiveSnapshot) -> None:
        """Check the commit out into an empty active snapshot. Raises BuildError."""
        op = self._op
        with opened(self._store, self._git, self.revision) as repository:
            commit = self._fetch(repository)
            wanted = Wanted(
                self.revision, commit, op.subdir, op.keep_git_dir, op.submodules, commit_mtime=op.mtime != "checkout"
            )
            check_out(repository, wanted, active.upper_dir, active.work_dir)
