"""What a copy reads: its sources expanded, filtered and listed, and the digest of all that for the cache key.

The copier walks the same list, so what was hashed is what is copied. Semantics: BuildKit's file operation (FollowPaths,
wildcards, include and exclude patterns). Knows nothing of destinations.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from builder.errors import BuildError
from builder.ops.failures import reported
from builder.ops.tree import SourceTree
from builder.ops.wildcard import component_matcher, has_wildcard
from builder.plan import CopyAction
from builder.sandbox.paths import clean, follow, join, split
from cache.digest import sha256_hex
from cache.dirscan import FileEntry
from cache.namedtuple import NamedTuple

if TYPE_CHECKING:
    from grammar.ignore import MatchState

Item = tuple[str, FileEntry, bool]
"""Path below the source, what is there, and whether it is only there for what lies below it (a parent)."""


class Source(NamedTuple):
    """One thing to copy: the path it was called by, its last name, and what that leads to in the tree."""

    path: str
    name: str
    entry: FileEntry


class Selection(NamedTuple):
    """What a copy reads: a digest of it all, and (path, digest) of every entry to explain a changed key.

    `sources` are the paths that the copy's path or wildcard means, in order, and of how many entries each consists.
    """

    digest: str
    files: tuple[tuple[str, str], ...]
    sources: tuple[tuple[str, int], ...]

    def text(self) -> bytes:
        """What `digest` is the sha256 of: paths and states in turn, a zero byte between."""
        return "\0".join(f"{path}\0{state}" for path, state in self.files).encode("utf-8", "surrogateescape")


def files_of(text: bytes) -> list[tuple[str, str]]:
    """The files of a Selection from its `text`."""
    words = text.decode("utf-8", "surrogateescape").split("\0") if text else []
    return list(zip(words[::2], words[1::2], strict=True))


class _States(NamedTuple):
    include: MatchState | None
    exclude: MatchState | None


def selection(action: CopyAction, tree: SourceTree) -> Selection:
    """The Selection of one copy: type, mode, owner, link target, links and bytes of entries, by names as they land.

    Modification times are not in it; nor are the owners that `--chown` and the modes that an octal `--chmod` replace.
    Of a tree whose `modes` are "git" only the executable bit of files is.
    Raises BuildError for a source that is missing, where BuildKit does.
    """
    files: list[tuple[str, str]] = []
    sources: list[tuple[str, int]] = []
    with reported(f'calculate checksum of "{action.source}"'):
        for source in expand(action, tree):
            before = len(files)
            files += _states(list(_listed(action, tree, source)), action, tree)
            sources.append((source.path, len(files) - before))
    found = Selection("", tuple(files), tuple(sources))
    return found._replace(digest=sha256_hex(found.text()))


def expand(action: CopyAction, tree: SourceTree) -> list[Source]:
    """The sources that the action's path or wildcard means, in order; none for a wildcard that matched nothing."""
    path = clean(action.source)
    names = [path]
    if action.allow_wildcard and any(has_wildcard(part) for part in path.split("/")):
        names = _matches(path, tree)
        if not names and not action.allow_empty_wildcard:
            raise not_found(path, tree)
    sources = [_resolve(name, action, tree) for name in names]
    for required in action.required_paths:
        _require(clean(required), path, action, tree, sources)
    return sources


def items_of(action: CopyAction, tree: SourceTree, source: Source) -> Iterator[Item]:
    """What to copy below a directory source, depth first; a parent that only leads to a match comes right before it."""
    top = source.entry.path
    skip = len(top) + 1 if top else 0
    if not action.include_patterns and not action.exclude_patterns:
        for entry in tree.below(top):
            yield entry.path[skip:], entry, False
        return
    yield from _Filter(action, tree, skip).below(top, _States(None, None), [])


def not_found(path: str, tree: SourceTree) -> BuildError:
    """The error for a source that is not there, with what may have been meant."""
    return BuildError(f'failed to calculate checksum of "{path}": not found', hint=tree.why_missing(path[1:]))


def _listed(action: CopyAction, tree: SourceTree, source: Source) -> Iterator[Item]:
    if source.entry.kind != "d":
        yield source.name, source.entry, False
        return
    is_copied = source.entry.path and not action.dir_contents_only
    # Else only that it is a directory counts: its own mode and owner are not copied.
    yield ".", source.entry if is_copied else source.entry._replace(mode=0, uid=0, gid=0), False
    yield from items_of(action, tree, source)


def _states(items: list[Item], action: CopyAction, tree: SourceTree) -> Iterator[tuple[str, str]]:
    """Each entry with what of it is copied. In one piece, since it runs for every file of every build."""
    hides_mode, shows_owner = action.chmod[:1].isdigit(), tree.keeps_owners and not action.chown
    links, digest_of, by_git = _link_groups(items), tree.digest, tree.modes == "git"
    for path, entry, is_parent in items:
        kind, mode, uid, gid = entry[1:5]
        if by_git:
            mode = 0o755 if kind == "d" or mode & 0o100 else 0o644
        # A parent that is there already gets the source's mode whatever --chmod says.
        state = kind if hides_mode and not is_parent else f"{kind}{mode:o}"
        if shows_owner and (uid or gid):
            state = f"{state} {uid}:{gid}"
        if kind == "f":
            state = f"{state} {digest_of(entry)}{links.get(path, '')}"
        elif kind == "l":
            state = f"l {entry.linkname}"
        elif kind in "cb":
            state = f"{state} {entry.rdev}"
        yield path, state


def _link_groups(items: list[Item]) -> dict[str, str]:
    """For each further name of a hard-linked file, a mark with the first name."""
    regular = [(entry.ino, path) for path, entry, _ in items if entry.kind == "f"]
    if len({ino for ino, _ in regular}) == len(regular):
        return {}
    first: dict[int, str] = {}
    return {path: f" ={first[ino]}" for ino, path in regular if first.setdefault(ino, path) != path}


def _resolve(path: str, action: CopyAction, tree: SourceTree) -> Source:
    real = follow(path, lambda link: _readlink(link, tree), last=action.follow_symlinks)
    entry = tree.lstat(real[1:])
    if entry is None:
        raise not_found(path, tree)
    return Source(path, split(path)[1], entry)


def _readlink(path: str, tree: SourceTree) -> str | None:
    entry = tree.lstat(path[1:])
    return entry.linkname if entry is not None and entry.kind == "l" else None


def _matches(path: str, tree: SourceTree) -> list[str]:
    """The paths that a wildcard matches. Links before the first wildcard are followed, links that match are not."""
    parts = path[1:].split("/")
    first = next(i for i, part in enumerate(parts) if has_wildcard(part))
    base = "/" + "/".join(parts[:first])
    real = follow(base, lambda link: _readlink(link, tree))[1:]
    found: list[str] = []
    directory = tree.lstat(real)
    if directory is not None and directory.kind == "d":
        found = [join(base, match) for match in _match_below(real, parts[first:], tree)]
    if not found and not tree.has_directory(real):
        raise not_found(base if directory is None else path, tree)
    return found


def _match_below(directory: str, parts: list[str], tree: SourceTree) -> Iterator[str]:
    matches = component_matcher(parts[0])
    for entry in tree.entries(directory):
        name = entry.path.rpartition("/")[2]
        if not matches(name):
            continue
        if len(parts) == 1:
            yield name
        elif entry.kind == "d":
            for rest in _match_below(entry.path, parts[1:], tree):
                yield f"{name}/{rest}"


def _require(required: str, path: str, action: CopyAction, tree: SourceTree, sources: list[Source]) -> None:
    """COPY --parents: a path named without wildcards has to be among what is copied."""
    for source in sources:
        if source.entry.kind != "d":
            continue
        for item, _, is_parent in items_of(action, tree, source):
            here = clean(f"{path}/{item}")
            if not is_parent and (here == required or here.startswith(required + "/")):
                return
    raise not_found(required, tree)


class _Filter:
    """Include and exclude patterns over a walk: what matches is yielded, after the parents it needs."""

    def __init__(self, action: CopyAction, tree: SourceTree, skip: int) -> None:
        from grammar.ignore import IgnoreMatcher

        self._tree = tree
        self._skip = skip
        self._include = IgnoreMatcher(action.include_patterns) if action.include_patterns else None
        self._exclude = IgnoreMatcher(action.exclude_patterns) if action.exclude_patterns else None
        self._has_exceptions = self._exclude is not None and self._exclude.has_exceptions

    def below(self, directory: str, parent: _States, pending: list[Item]) -> Iterator[Item]:
        """What is kept below a directory; `pending` are the parents that nothing has needed so far."""
        for entry in self._tree.entries(directory):
            path = entry.path[self._skip :]
            included, excluded, states = self._judge(path, parent)
            if included and not excluded:
                yield from pending
                pending.clear()
                yield path, entry, False
            if entry.kind != "d" or (excluded and not self._has_exceptions):
                continue
            if included and not excluded:
                yield from self.below(entry.path, states, [])
            else:
                deeper = [*pending, (path, entry, True)]
                count = len(deeper)
                yield from self.below(entry.path, states, deeper)
                if len(deeper) < count:
                    pending.clear()

    def _judge(self, path: str, parent: _States) -> tuple[bool, bool, _States]:
        included, excluded = True, False
        include, exclude = parent
        if self._include is not None:
            included, include = self._include.match(path, parent.include)
        if self._exclude is not None:
            excluded, exclude = self._exclude.match(path, parent.exclude)
        return included, excluded, _States(include, exclude)
