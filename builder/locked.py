"""A build from a lock file: names mean what is written there, and nobody is asked what they mean today.

Bytes that the store has not got are fetched by their digest; what is missing in the lock or gone at its origin is
refused. Keys are those of a build that is not locked and finds the same. Loads nothing heavy: a warm build comes here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from builder.errors import BuildError
from builder.image.names import parse_name
from builder.lockfile import Entry, Key, Lock, LockedCommit, LockedFile, LockedFrontend, LockedImage, file_key, git_key
from builder.plan import GitSourceOp, HttpSourceOp
from cache.digest import Digest

if TYPE_CHECKING:
    from builder.image.stored import StoredImage
    from builder.ops.fetch import Fetched
    from builder.ops.git import Pinned
    from builder.pulling import RemoteImages

_Entry = TypeVar("_Entry", bound=Entry)


class Pins(Protocol):
    """Who says what names mean, instead of the store and the servers."""

    def image(self, where: str, platform: str) -> StoredImage:
        """The image of a name; its layers may not be here. Raises BuildError."""

    def file(self, op: HttpSourceOp, ask: Callable[[], Fetched]) -> Fetched:
        """What a URL gives, whose server `ask` asks; the bytes are in the store then. Raises BuildError."""

    def revision(self, op: GitSourceOp) -> Pinned | None:
        """What a git reference means, None when its server is to be asked. Raises BuildError."""

    def frontend(self, name: str) -> str:
        """The digest of an image that `# syntax` names. Raises BuildError."""


class LockedSources:
    """What a lock says. Any thread may use it."""

    def __init__(self, lock: Lock, shown: str, images: RemoteImages) -> None:
        self.lock = lock
        self.shown = shown
        """The lock's name as messages show it."""
        self._images = images

    def image(self, where: str, platform: str) -> StoredImage:
        """See Pins."""
        name = parse_name(where)
        key = Key("images", str(name))
        entry = self._entry(key, LockedImage)
        if name.digest and name.digest != entry.digest:
            raise self._changed(key, f"is locked to {entry.digest}")
        try:
            return self._images.ask(str(name._replace(tag="", digest=entry.digest)), platform)
        except BuildError as error:
            hint = f"{error.hint}; or {_update(key)}" if error.hint else _update(key)
            raise BuildError(f"{where}, as {self.shown} has it: {error}", hint=hint) from error

    def file(self, op: HttpSourceOp, ask: Callable[[], Fetched]) -> Fetched:
        """See Pins."""
        from builder.ops.fetch import Fetched

        key = file_key(op.url)
        entry = self._entry(key, LockedFile)
        expected = Digest.parse(entry.digest)
        if op.checksum and op.checksum.lower() != entry.digest:
            raise self._changed(key, f"is locked to {expected}, but its checksum is {op.checksum}")
        if self._images.store.blobs.size(expected) is None:
            found = ask()
            if found.digest != expected:
                raise self._changed(key, f"has changed: got {found.digest}, locked to {expected}")
        return Fetched(expected, entry.mtime * 10**9)

    def revision(self, op: GitSourceOp) -> Pinned:
        """See Pins."""
        from builder.git.refs import Revision, is_commit
        from builder.ops.git import Pinned

        key = git_key(op)
        entry = self._entry(key, LockedCommit)
        names = (entry.commit, entry.object)
        if is_commit(op.ref) and op.ref not in names:
            raise self._changed(key, f"is locked to commit {entry.commit}")
        if op.checksum and not any(name.startswith(op.checksum.lower()) for name in names):
            raise self._changed(key, f"is locked to commit {entry.commit}, but its checksum is {op.checksum}")
        # A tag's own object counts only where the repository stays: the tag may be made anew for the same commit.
        revision = Revision(entry.object if op.keep_git_dir else entry.commit, entry.commit, entry.ref)
        return Pinned(revision, f"{_update(key)} ({self.shown} wants {revision.name})")

    def frontend(self, name: str) -> str:
        """See Pins. The image itself is not needed."""
        return self._entry(Key("frontend", str(parse_name(name))), LockedFrontend).digest

    def _entry(self, key: Key, kind: type[_Entry]) -> _Entry:
        entry = self.lock.get(key)
        if isinstance(entry, kind):
            return entry
        raise BuildError(f"{key.name} is not in {self.shown}", hint=_update(key, "to add it"))

    def _changed(self, key: Key, how: str) -> BuildError:
        return BuildError(f"{key.name} {how} in {self.shown}", hint=_update(key))


def _update(key: Key, purpose: str = "if it was meant to change") -> str:
    return f"{purpose}: pybuild lock --update {key.name}"
