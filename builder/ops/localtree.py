"""The build context as a source: a directory of this machine seen through its ignore patterns.

Everything in it belongs to root and has no extended attributes. What is ignored is not there. Nothing is read through a
symbolic link, so none leads out of the directory. The tree is what one scan found: a file that is another one by the
time it is copied is an error, because the cache key was made of the first.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from builder.errors import BuildError
from builder.ops.failures import reported
from builder.ops.tree import entry_of, similar_name
from builder.ops.wildcard import has_wildcard, path_matcher
from builder.plan import CopyAction, ExecOp, FileOp, LocalSourceOp, Vertex
from builder.sandbox.paths import clean
from cache.contenthash import file_digest
from cache.dirlist import Keep
from cache.dirscan import FileEntry, Scan, scan
from cache.errors import CacheError
from cache.statcache import RACY_NS, FileDigests, StatCache

if TYPE_CHECKING:
    from builder.sandbox.fsops import Directory
    from grammar.ignore import IgnoreMatcher, MatchState


_GONE_KEPT = 10_000
"""Other Dockerfiles and ignore files on the same directory see other files, so their digests are worth keeping too."""


class ContextTree:
    """A directory of this machine, as one scan saw it. Any thread may read it."""

    keeps_owners = False

    def __init__(
        self,
        root_dir: str,
        matcher: IgnoreMatcher | None,
        statcache: StatCache | None,
        *,
        sources: Sequence[str] | None = None,
        modes: str = "full",
    ) -> None:
        self.root_dir = root_dir
        self.modes = modes
        self._matcher = matcher
        self._statcache = statcache
        self._sources = None if sources is None else tuple(clean(source)[1:] for source in sources)
        self._roots = () if self._sources is None else tuple({_literal(source) for source in self._sources})
        self._is_partial = "" not in self._roots and self._sources is not None
        self._digests: FileDigests | None = None
        self._top = entry_of("", os.stat(root_dir), "")
        self._scanned_ns = time.time_ns()
        self._scan = _scan(root_dir, matcher, self._roots if self._is_partial else None)
        self._members: dict[str, list[FileEntry]] | None = None
        self.is_widened = False
        """Whether more was looked at than the first scan found, so that `state` does not say everything."""

    @property
    def _found(self) -> dict[str, FileEntry]:
        return self._scan.entries()

    @property
    def _root_key(self) -> str:
        return os.path.abspath(self.root_dir)

    def save(self) -> None:
        """Keep the digests that were taken, for the next build; of files long gone only when they are many."""
        if self._statcache is None or self._digests is None:
            return
        if len(self._digests) > 2 * len(self._found) + _GONE_KEPT:
            for path in self._digests.keys() - self._found.keys():
                del self._digests[path]
        self._statcache.save(self._root_key, self._digests)

    def lstat(self, path: str) -> FileEntry | None:
        if not path:
            return self._top
        found = self._found.get(path)
        if found is None and self._is_partial and not _is_below_any(path, self._roots):
            self._widen()
            found = self._found.get(path)
        return found

    def entries(self, path: str) -> Sequence[FileEntry]:
        if self._members is None:
            members: dict[str, list[FileEntry]] = {}
            for entry in self._found.values():
                members.setdefault(entry.path.rpartition("/")[0], []).append(entry)
            self._members = members
        return self._members.get(path, [])

    def below(self, path: str) -> Iterable[FileEntry]:
        if not path:
            return self._found.values()
        prefix = path + "/"
        return [entry for name, entry in self._found.items() if name.startswith(prefix)]

    def open_dir(self, path: str) -> Directory:
        from builder.sandbox.fsops import Directory

        fd = os.open(self.root_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return Directory.beneath(fd, path)
        except OSError as error:
            raise _changed(path) from error
        finally:
            os.close(fd)

    def digest(self, entry: FileEntry) -> str:
        if self._digests is None:
            self._digests = FileDigests() if self._statcache is None else self._statcache.load(self._root_key)
        try:
            return file_digest(f"{self.root_dir}/{entry.path}", entry, self._digests)
        except CacheError as error:
            raise _hinted(error) from error

    def state(self) -> str:
        """A name for all that decides what copies read of the tree: while it is the same, so are their digests."""
        return f"{self.modes}:{self._scan.fingerprint()}:{chr(0).join(self._sources or ())}"

    def is_settled(self) -> bool:
        """Whether no file is so young that it could change again without a trace (the stat cache's rule)."""
        return not self.is_widened and all(
            entry.kind != "f" or max(entry.ctime_ns, entry.mtime_ns) < self._scanned_ns - RACY_NS
            for entry in self._found.values()
        )

    def capability(self, _fd: int) -> bytes | None:
        return None

    def check(self, entry: FileEntry, info: os.stat_result) -> None:
        found = stat.S_ISREG(info.st_mode), info.st_size, info.st_mtime_ns, info.st_ino
        if found != (True, entry.size, entry.mtime_ns, entry.ino):
            raise _changed(entry.path)

    def has_directory(self, path: str) -> bool:
        """A directory counts when some source takes something of it; a wildcard that matched nothing does not."""
        entry = self.lstat(path)
        if entry is None or entry.kind != "d":
            return False
        return self._sources is None or not path or any(self._touches(source, path) for source in self._sources)

    def why_missing(self, path: str) -> str | None:
        if self._matcher is not None and os.path.lexists(os.path.join(self.root_dir, path)):
            return f'"{path}" is excluded by the .dockerignore file'
        self._widen()
        return similar_name(self, path)

    def _widen(self) -> None:
        """See all of the directory, where `sources` first let only a part be scanned."""
        if self._is_partial:
            self._scan = _scan(self.root_dir, self._matcher, None)
            self._members = None
            self._is_partial = False
            self.is_widened = True

    def _touches(self, source: str, directory: str) -> bool:
        """Whether a source takes a directory, one above it, or something in it."""
        if not any(map(has_wildcard, source.split("/"))):
            return _is_below(directory, source) or (_is_below(source, directory) and source in self._found)
        matches, depth = path_matcher(source), source.count("/") + 1
        names = directory.split("/")
        if len(names) >= depth:
            return matches("/".join(names[:depth]))
        prefix = directory + "/"
        return any(path.startswith(prefix) and path.count("/") + 1 == depth and matches(path) for path in self._found)


def context_tree(
    root_dir: str,
    matcher: IgnoreMatcher | None,
    statcache: StatCache | None,
    *,
    sources: Sequence[str] | None = None,
    modes: str = "full",
) -> ContextTree:
    """The tree of a directory: one scan, ignored files left out.

    `sources` are all paths and wildcards that the plan reads from it (`sources_of`). Then only what they can mean is
    scanned, and a wildcard below a directory has to match something unless another source takes of that directory
    (BuildKit sends no more than that). With the `modes` "git" only a file's executable bit counts in digests. Raises
    BuildError for a directory that cannot be read.
    """
    with reported(f'read context "{root_dir}"'):
        try:
            return ContextTree(root_dir, matcher, statcache, sources=sources, modes=modes)
        except CacheError as error:
            raise _hinted(error) from error


def sources_of(vertices: Sequence[Vertex], name: str) -> tuple[str, ...]:
    """Every path and wildcard that the copies and mounts of a plan read from the local directory `name`."""
    return tuple(sorted(set(_reads(vertices, LocalSourceOp(name)))))


def _reads(vertices: Sequence[Vertex], local: LocalSourceOp) -> Iterator[str]:
    for vertex in vertices:
        if isinstance(vertex.op, FileOp):
            for action in vertex.op.actions:
                if isinstance(action, CopyAction) and action.input >= 0:
                    index = vertex.inputs[action.input]
                    if index >= 0 and vertices[index].op == local:
                        yield action.source
        elif isinstance(vertex.op, ExecOp):
            for mount in vertex.op.mounts:
                if mount.input >= 0 and vertices[vertex.inputs[mount.input]].op == local:
                    yield mount.source


def _literal(source: str) -> str:
    """What comes before a source's first wildcard."""
    parts = source.split("/")
    wild = next((i for i, part in enumerate(parts) if has_wildcard(part)), len(parts))
    return "/".join(parts[:wild])


def _scan(root_dir: str, matcher: IgnoreMatcher | None, roots: Sequence[str] | None) -> Scan:
    """What is not ignored, and of that, if `roots` are given, only what is on the way to them or below."""
    inner = None if matcher is None else _matched_by(matcher)
    if roots is None:
        return scan(root_dir, inner)
    above = {root.rsplit("/", count)[0] for root in roots for count in range(root.count("/") + 1)}

    def keep(path: str, is_dir: bool) -> bool | None:
        if path not in above:
            return None
        return True if inner is None else inner(path, is_dir)

    return scan(root_dir, keep, inside=dict.fromkeys(roots, inner))


def _hinted(error: CacheError) -> CacheError:
    is_forbidden = isinstance(error.__cause__, PermissionError)
    hint = "let it be read, or leave it out of the context by .dockerignore" if is_forbidden else error.hint
    return CacheError(str(error), hint=hint)


def _matched_by(matcher: IgnoreMatcher) -> Keep:
    states: dict[str, MatchState] = {}

    def keep(path: str, is_dir: bool) -> bool | None:
        ignored, state = matcher.match(path, states.get(path.rpartition("/")[0]))
        if is_dir:
            states[path] = state
        if not ignored:
            return True
        return False if is_dir and matcher.may_have_exceptions_below(path) else None

    return keep


def _is_below(path: str, directory: str) -> bool:
    return not directory or path == directory or path.startswith(directory + "/")


def _is_below_any(path: str, directories: Iterable[str]) -> bool:
    return any(_is_below(path, directory) for directory in directories)


def _changed(path: str) -> BuildError:
    return BuildError(
        f'"/{path}" changed while the build was reading it', hint="build again when nothing writes to the context"
    )
