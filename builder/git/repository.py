"""What was fetched of git remotes, kept in the store for the next time.

    <root>/git/<sha256 of the remote>   a bare repository; refs/pybuild/<object> keeps what was fetched
    <root>/git/known_hosts              keys of the ssh hosts that were met

Only the holder of the lock `git:<remote>` touches a repository. It is made under another name and renamed; killed
fetches leave files that git ignores. The remote's name is kept without the secrets in it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from builder.errors import BuildError
from builder.git.command import Git, GitError, Place
from builder.git.refs import Revision
from cache.digest import sha256_hex
from cache.errors import os_errors
from cache.removal import remove_tree
from cache.store import Store


def git_dir(store: Store) -> str:
    """Where the store keeps what belongs to git; made when it is not there."""
    path = os.path.join(store.root, "git")
    with os_errors(path):
        os.makedirs(path, 0o700, exist_ok=True)
    return path


def known_hosts(store: Store) -> str:
    """The file for the keys of ssh hosts."""
    return os.path.join(git_dir(store), "known_hosts")


class Repository:
    """The bare repository of one remote."""

    def __init__(self, path: str, git: Git) -> None:
        self.path = path
        self.git = git

    def run(self, *words: str) -> str:
        """Run a git command on it."""
        return self.git.run(Place(self.path, self.path), *words)

    def fetch(self, revision: Revision) -> str:
        """Have a revision's files here; returns its commit. Raises BuildError when the remote does not give it."""
        ref = f"refs/pybuild/{revision.name}"
        if not self._has(ref):
            self._fetch(revision.name, ref)
        try:
            return self.run("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}").strip()
        except GitError as error:
            raise BuildError(f"{self.git.shown}: {revision.name} is not a commit") from error

    def committed_seconds(self, commit: str) -> int:
        """When a commit that is here was made, in seconds since 1970."""
        return int(self.run("show", "--no-patch", "--format=%ct", commit))

    def _has(self, ref: str) -> bool:
        try:
            self.run("rev-parse", "--verify", "--quiet", ref)
        except GitError:
            return False
        return True

    def _fetch(self, name: str, ref: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.path}/shallow.lock")
        wanted = f"+{name}:{ref}"
        try:
            self._pull("--no-tags", "--depth=1", refspecs=(wanted,))
        except GitError as error:
            if not error.wants_history and not error.wants_names:
                raise
            self._fetch_deep(name, wanted)

    def _fetch_deep(self, name: str, wanted: str) -> None:
        """For servers that give no single commit, or not without its history."""
        try:
            self._pull("--no-tags", refspecs=(wanted,))
        except GitError as error:
            if not error.wants_names:
                raise
            options = ("--tags", "--unshallow") if os.path.exists(f"{self.path}/shallow") else ("--tags",)
            self._pull(*options, refspecs=("+refs/heads/*:refs/remotes/origin/*",))
            self._keep(name, wanted.partition(":")[2])

    def _keep(self, name: str, ref: str) -> None:
        try:
            self.run("update-ref", ref, name)
        except GitError as error:
            raise BuildError(f"{self.git.shown}: the repository has no commit {name}") from error

    def _pull(self, *options: str, refspecs: tuple[str, ...]) -> None:
        self.run("fetch", "--quiet", "--force", "--no-write-fetch-head", *options, "--", self.git.access.url, *refspecs)


@contextlib.contextmanager
def opened(store: Store, git: Git, revision: Revision) -> Iterator[Repository]:
    """The repository of git's remote, made when it is not there; locked until the end of the block."""
    kind = object_format(revision.name)
    identity = sha256_hex(f"{git.access.url}\n{kind}".encode("utf-8", "surrogateescape"))
    path = os.path.join(git_dir(store), identity)
    with store.locks.exclusive(lock_name(identity)):
        if not os.path.isdir(path):
            _create(path, git, kind)
        os.utime(path)  # when it was used last
        yield Repository(path, git)


def lock_name(identity: str) -> str:
    """The lock that the user of a repository holds."""
    return f"git:{identity}"


def walk_repositories(root: str) -> Iterator[tuple[str, str, str]]:
    """Of every repository of the store at `root`, and of what killed processes left half made or half removed: its
    path, its lock, and its remote as it may be shown."""
    try:
        names = sorted(os.listdir(os.path.join(root, "git")))
    except FileNotFoundError:
        return
    for name in names:
        path = os.path.join(root, "git", name)
        identity, _, state = name.partition(".")
        if len(identity) == 64 and os.path.isdir(path):
            yield path, lock_name(identity), "half made or half removed" if state else _remote(path)


def _remote(path: str) -> str:
    try:
        with open(f"{path}/description", encoding="utf-8", errors="replace") as file:
            remote = file.readline().strip()
    except OSError:
        return ""
    return "" if remote.startswith("Unnamed repository") else remote


def object_format(name: str) -> str:
    """The option of `git init` for a repository of objects that are named like this one."""
    return f"--object-format={'sha256' if len(name) == 64 else 'sha1'}"


def _create(path: str, git: Git, kind: str) -> None:
    unfinished = f"{path}.new"
    with os_errors(unfinished):
        remove_tree(unfinished)
        os.mkdir(unfinished, 0o700)
    repository = Repository(unfinished, git)
    repository.run("init", "--quiet", "--bare", kind)
    with os_errors(path):
        with open(f"{unfinished}/description", "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"{git.shown}\n")
        os.rename(unfinished, path)
