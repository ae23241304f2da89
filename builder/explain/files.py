"""What differs between two lists of files that a copy read, by path and by what of each file. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from builder.ops.wildcard import has_wildcard
from cache.namedtuple import NamedTuple

Files: TypeAlias = Sequence[tuple[str, str]]
"""Path as the copy names it, and state, as `ops.select` lists them."""


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


def file_changes(was: Files, now: Files, source: str) -> list[FileChange]:
    """The files that are not the same in both lists, by path; `source` is the copy's, to name them as a user would."""
    old, new = _by_path(was), _by_path(now)
    prefix = _prefix(now or was, source)
    gone = {path: state for path, state in old.items() if path not in new}
    by_state = {state: path for path, state in gone.items() if state[0] == "f"}
    found = []
    for path, state in new.items():
        if path in old:
            if state != old[path]:
                found.append(FileChange(prefix + path[0], _what(_parsed(old[path]), _parsed(state))))
            continue
        former = by_state.pop(state, None)
        if former is not None:
            del gone[former]
        what = ("added",) if former is None else ("renamed",)
        found.append(FileChange(prefix + path[0], what, prefix + former[0] if former is not None else ""))
    found += [FileChange(prefix + path[0], ("removed",)) for path in gone]
    return sorted(found, key=lambda change: change.path)


def _by_path(files: Files) -> dict[tuple[str, int], str]:
    """States by path; a wildcard can lead to the same path below several directories, so each is numbered."""
    found: dict[tuple[str, int], str] = {}
    for path, state in files:
        number = 0
        while (path, number) in found:
            number += 1
        found[path, number] = state
    return found


def _prefix(files: Files, source: str) -> str:
    """What stands before a listed path: the directory that is copied, or the one that the source is in."""
    path = source.strip("/")
    parts = path.split("/")
    wild = next((i for i, part in enumerate(parts) if has_wildcard(part)), None)
    if wild is not None:
        parts = parts[:wild]
    elif not any(path == "." for path, _ in files[:1]):
        parts = parts[:-1]
    joined = "/".join(part for part in parts if part not in ("", "."))
    return f"{joined}/" if joined else ""


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
