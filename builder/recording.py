"""Making a lock: every name that a build looks up is asked for anew, and what it means is written down.

Nothing of it comes to be known to builds that are not locked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from builder.contexts.times import context_op
from builder.errors import BuildError
from builder.fetcher import Fetcher
from builder.image.names import parse_name
from builder.image.pins import get_pin
from builder.image.platform import host_platform
from builder.image.stored import StoredImage, find_record, resolve_image
from builder.locked import LockedSources
from builder.lockfile import Entry, Key, LockedCommit, LockedFile, LockedFrontend, LockedImage, file_key, git_key
from builder.ops.definition import located
from builder.plan import GitSourceOp, HttpSourceOp, LocalSourceOp, Plan, Vertex
from cache.digest import Digest
from cache.namedtuple import NamedTuple

if TYPE_CHECKING:
    from builder.ops.fetch import Fetched
    from builder.ops.git import Pinned
    from builder.pulling import RemoteImages


class _Found(NamedTuple):
    top: Digest
    image: StoredImage


class Recorder:
    """Says what names mean now, and remembers what it said. `kept` says it of those that are not to be asked for."""

    def __init__(self, images: RemoteImages, kept: LockedSources | None = None) -> None:
        self.found: dict[Key, Entry] = {}
        self._images = images
        self._kept = kept

    def image(self, where: str, platform: str) -> StoredImage:
        """See Pins."""
        key = Key("images", str(parse_name(where)))
        kept = self._keeps(key)
        if kept is not None:
            return kept.image(where, platform)
        found = self._own(where, platform)
        if found is None:
            resolved = self._images.look(where, platform)
            found = _Found(resolved.top, resolved.image)
        self._record(key, LockedImage(str(found.top)))
        return found.image

    def file(self, op: HttpSourceOp, ask: Callable[[], Fetched]) -> Fetched:
        """See Pins."""
        key = file_key(op.url)
        kept = self._keeps(key)
        if kept is not None:
            return kept.file(op, ask)
        fetched = ask()
        self._record(key, LockedFile(str(fetched.digest), fetched.mtime_ns // 10**9))
        return fetched

    def revision(self, op: GitSourceOp) -> Pinned | None:
        """See Pins."""
        kept = self._keeps(git_key(op))
        return None if kept is None else kept.revision(op)

    def repository(self, op: GitSourceOp, fetcher: Fetcher) -> None:
        """Ask what a git reference means. Raises BuildError."""
        if self._keeps(git_key(op)) is None:
            name, commit, ref = fetcher.repository(op).revision
            self._record(git_key(op), LockedCommit(commit or name, name, ref))

    def frontend(self, name: str) -> str:
        """See Pins."""
        key = Key("frontend", str(parse_name(name)))
        kept = self._keeps(key)
        if kept is not None:
            return kept.frontend(name)
        digest = str(self._images.look(name, host_platform()).top)
        self._record(key, LockedFrontend(digest))
        return digest

    def _own(self, where: str, platform: str) -> _Found | None:
        """An image of the store that is no copy of a registry's: it was built or loaded here. A build finds it before
        anybody is asked."""
        store = self._images.store
        record = find_record(store, where)
        if record is None:
            return None
        pin = get_pin(store, str(parse_name(where)), platform)
        if pin is not None and record.manifest_digest in pin:
            return None
        image = resolve_image(store, where, platform)
        return None if image is None else _Found(Digest(record.manifest_digest), image)

    def _keeps(self, key: Key) -> LockedSources | None:
        if self._kept is None or key not in self._kept.lock:
            return None
        self.found[key] = self._kept.lock[key]
        return self._kept

    def _record(self, key: Key, entry: Entry) -> None:
        if self.found.setdefault(key, entry) != entry:
            raise BuildError(f"{key.name} has changed while it was being locked", hint="try again")


def record(plan: Plan, recorder: Recorder, fetcher: Fetcher, named: Mapping[str, str]) -> None:
    """Record what a plan fetches besides images. `named` are the contexts by name. Raises
    BuildError with the place."""
    for vertex, op in _fetched(plan, named):
        with located(vertex):
            if isinstance(op, HttpSourceOp):
                fetcher.file(op)
            else:
                recorder.repository(op, fetcher)
    for repository in fetcher.repositories:  # the main context, and what only the date of was asked for
        recorder.repository(repository, fetcher)


def _fetched(plan: Plan, named: Mapping[str, str]) -> Iterator[tuple[Vertex, HttpSourceOp | GitSourceOp]]:
    """What the plan fetches, the named contexts among it."""
    for vertex in plan.vertices:
        op = vertex.op
        if isinstance(op, HttpSourceOp | GitSourceOp):
            yield vertex, op
        elif isinstance(op, LocalSourceOp) and op.name in named:
            source = context_op(named[op.name])
            if source is not None:
                yield vertex, source
