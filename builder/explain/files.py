"""What differs between two lists of files that a copy read, by path and by what of each file. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeAlias

from builder.ops.wildcard import has_wildcard
from cache.namedtuple import NamedTuple

Files: TypeAlias = Sequence[tuple[str, str]]
"""Path as the copy names it, and state, as `ops.select` lists them."""


class FileList(NamedTuple):
    """What a copy read. `sources` are the paths of its sources in turn, and how many of `files` belong to each; a list
    that was only recorded has none."""

    files: Files
    sources: Sequence[tuple[str, int]] = ()


_Key: TypeAlias = tuple[str, int]
"""Path as the copy names it, and how many files of that name come before."""


class FileChange(NamedTuple):
    """One file: its path in the context or the root that is read, and what changed of it."""

    path: str
    what: tuple[str, ...]
    former_path: str = ""
    """What it was called, for one that was renamed."""


class _State(NamedTuple):
    """A state of `ops.select` in its parts: `f644 1:2 <digest> =first`, `d755`, `l target`, `c644 <device>`."""

    type: str
    mode: str
    owner: str
    content: str
    link: str


def file_changes(was: FileList, now: FileList, source: str) -> list[FileChange]:
    """The files that are not the same in both lists, by path; `source` is the copy's, to name them as a user would."""
    old, new = _numbered(was.files), _numbered(now.files)
    new_paths = dict(zip(new, _paths(now, source), strict=True))
    old_paths = dict(zip(old, _former_paths(old, new_paths, source), strict=True))
    gone = {key: state for key, state in old.items() if key not in new}
    by_state = {state: key for key, state in gone.items() if state[0] == "f"}
    found = []
    for key, state in new.items():
        if key in old:
            if state != old[key]:
                found.append(FileChange(new_paths[key], _what(_parsed(old[key]), _parsed(state))))
            continue
        former = by_state.pop(state, None)
        if former is not None:
            del gone[former]
        what = ("added",) if former is None else ("renamed",)
        found.append(FileChange(new_paths[key], what, old_paths[former] if former is not None else ""))
    found += [FileChange(old_paths[key], ("removed",)) for key in gone]
    return sorted(found, key=lambda change: change.path)


def _numbered(files: Files) -> dict[_Key, str]:
    """States by path; a wildcard can lead to the same path below several directories, so each is numbered."""
    found: dict[_Key, str] = {}
    for path, state in files:
        number = 0
        while (path, number) in found:
            number += 1
        found[path, number] = state
    return found


def _paths(listed: FileList, source: str) -> list[str]:
    """Where each file of a list is."""
    if not listed.sources:
        prefix = _prefix(next((path for path, _ in listed.files), ""), source)
        return [_joined(prefix, path) for path, _ in listed.files]
    rest, found = iter(listed.files), []
    for place, count in listed.sources:
        own = [path for path, _ in islice(rest, count)]
        # A directory's list begins with itself; else there is one file, which goes by its name alone.
        found += [_joined(place, path) for path in own] if own[:1] == ["."] else [place.strip("/")] * len(own)
    return found


def _former_paths(old: Iterable[_Key], new_paths: Mapping[_Key, str], source: str) -> Iterator[str]:
    """Where the files of a list were: those that are gone, where the one before them still is, since a list does not
    say where its directories are."""
    prefix = literal = _prefix(next((path for path, _ in old), ""), source)
    for key in old:
        if key in new_paths:
            path = new_paths[key]
            if key[0] == ".":
                prefix = "" if path == "." else path
            elif path.endswith("/" + key[0]):
                prefix = path[: -len(key[0]) - 1]
            yield path
        else:
            if key[0] == ".":
                prefix = literal
            yield _joined(prefix, key[0])


def _joined(prefix: str, path: str) -> str:
    prefix = prefix.strip("/")
    return path if not prefix else prefix if path == "." else f"{prefix}/{path}"


def _prefix(first: str, source: str) -> str:
    """What stands before the paths of a list that begins with `first`, if nothing else tells: the directory that is
    copied, or that the source is in."""
    path = source.strip("/")
    parts = path.split("/")
    wild = next((i for i, part in enumerate(parts) if has_wildcard(part)), None)
    if wild is not None:
        parts = parts[:wild]
    elif first != ".":
        parts = parts[:-1]
    return "/".join(part for part in parts if part not in ("", "."))


def _what(was: _State, now: _State) -> tuple[str, ...]:
    if was.type != now.type:
        return ("type",)
    names = ("mode", "owner", "target" if now.type == "l" else "content", "link")
    pairs = zip(was[1:], now[1:], names, strict=True)
    found = tuple(name for old, new, name in pairs if old != new)
    return tuple(sorted(found, key=lambda name: name not in ("content", "target")))


def _parsed(state: str) -> _State:
    kind, mode = state[:1], state[1:].partition(" ")[0]
    if kind == "l":
        return _State(kind, "", "", state[2:], "")
    words = state.split(" ")[1:]
    owner = words.pop(0) if words and ":" in words[0] else ""
    content = words.pop(0) if words else ""
    return _State(kind, mode, owner, content, " ".join(words))
