"""The lock file: which digest every name of a Dockerfile meant when it was written.

    {"version": 1,
     "frontend": {NAME: {"digest": "sha256:…", "used": false}},    what `# syntax` names; this program is its own
     "git": {"REMOTE#REF": {"commit": HEX, "object": HEX, "ref": "refs/…" or ""}},
     "http": {URL: {"digest": "sha256:…", "mtime": SECONDS}},      with the server's Last-Modified, 0 for none
     "images": {NAME: {"digest": "sha256:…"}}}                     of the index, where the name means one

Names of images are complete; URLs are without users and passwords. The same entries are the same bytes. Knows the
document alone: neither how names are looked up, nor who reads it.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from builder.errors import BuildError
from builder.plan import GitSourceOp
from builder.redact import redact
from cache.namedtuple import NamedTuple

VERSION = 1
_DIGEST = re.compile("sha256:[0-9a-f]{64}")
_COMMIT = re.compile("[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF = re.compile(r"(?:refs/(?![-.])[^\s~^:?*\[\\]+)?")
_REWRITE = "write it anew with `pybuild lock`"


class LockedImage(NamedTuple):
    """What the name of an image means: the digest of an index or a manifest."""

    digest: str


class LockedFrontend(NamedTuple):
    """What `# syntax` names. It is only recorded."""

    digest: str
    used: bool = False


class LockedFile(NamedTuple):
    """What is behind a URL: the sha256 of the bytes, and how old the server says they are, in seconds since 1970."""

    digest: str
    mtime: int


class LockedCommit(NamedTuple):
    """What a git reference means: the commit, the object that leads to it (an annotated tag's own), the remote's name
    for it."""

    commit: str
    object: str
    ref: str


Entry: TypeAlias = LockedImage | LockedFrontend | LockedFile | LockedCommit
_SECTIONS: dict[str, type[Entry]] = {
    "frontend": LockedFrontend,
    "git": LockedCommit,
    "http": LockedFile,
    "images": LockedImage,
}


class Key(NamedTuple):
    """An entry's place: the section, and the name in it."""

    section: str
    name: str


Lock: TypeAlias = Mapping[Key, Entry]


def git_key(op: GitSourceOp) -> Key:
    """The place of a reference to a repository; which of its directories is wanted does not count."""
    at_commit = f"@{op.checksum}" if op.fetch_by_commit else ""
    return Key("git", f"{redact(op.remote)}#{op.ref}{at_commit}")


def file_key(url: str) -> Key:
    """The place of a URL."""
    return Key("http", redact(url))


def render(lock: Lock) -> bytes:
    """The document of these entries."""
    document: dict[str, Any] = {"version": VERSION, **{section: {} for section in _SECTIONS}}
    for key, entry in lock.items():
        document[key.section][key.name] = entry._asdict()
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode("ascii")


def parse(source: bytes, shown: str) -> dict[Key, Entry]:
    """The entries of a document. Raises BuildError for one that is malformed or of another version."""
    try:
        document = json.loads(source)
    except (ValueError, RecursionError) as error:
        raise BuildError(f"{shown}: not a lock file: {error}", hint=_REWRITE) from error
    if not isinstance(document, dict) or "version" not in document:
        raise BuildError(f"{shown}: not a lock file: it has no version", hint=_REWRITE)
    version = document.pop("version")
    if version != VERSION or isinstance(version, bool):
        raise BuildError(f"{shown}: version {json.dumps(version)} is not known, expected {VERSION}", hint=_REWRITE)
    found = {}
    for section, entries in document.items():
        if section not in _SECTIONS or not isinstance(entries, dict):
            raise BuildError(f'{shown}: "{section}" is not a section of a lock file', hint=_REWRITE)
        for name, fields in entries.items():
            found[Key(section, name)] = _entry(section, name, fields, shown)
    return found


def _entry(section: str, name: str, fields: object, shown: str) -> Entry:
    kind = _SECTIONS[section]
    if isinstance(fields, dict) and set(fields) == set(kind._fields):
        entry = kind(**fields)
        if _is_right(entry):
            return entry
    raise BuildError(f'{shown}: "{name}" of {section} is malformed', hint=_REWRITE)


def _is_right(entry: Entry) -> bool:
    if isinstance(entry, LockedCommit):
        patterns = ((_COMMIT, entry.commit), (_COMMIT, entry.object), (_REF, entry.ref))
        return all(isinstance(text, str) and pattern.fullmatch(text) is not None for pattern, text in patterns)
    if isinstance(entry, LockedFile) and type(entry.mtime) is not int:
        return False
    if isinstance(entry, LockedFrontend) and entry.used is not False:
        return False
    return isinstance(entry.digest, str) and _DIGEST.fullmatch(entry.digest) is not None


def differences(old: Lock, new: Lock) -> list[str]:
    """A line for each entry that one of the two does not have, or has otherwise; in the order of the document."""
    lines = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if before is None or after is None:
            lines.append(f"{'removed' if after is None else 'added'} {key.name} {_shown(before or after)}")
        elif _shown(before) == _shown(after):
            lines.append(f"changed {key.name} {_shown(after)}: {_fields(before, after)}")
        else:
            lines.append(f"changed {key.name} {_shown(before)} -> {_shown(after)}")
    return lines


def _shown(entry: Entry | None) -> str:
    return entry.commit if isinstance(entry, LockedCommit) else entry.digest if entry is not None else ""


def _fields(before: Entry, after: Entry) -> str:
    old, new = before._asdict(), after._asdict()
    return ", ".join(f"{name} {old.get(name)} -> {new[name]}" for name in new if old.get(name) != new[name])


def named(text: str, keys: Iterable[Key]) -> list[Key]:
    """Those of the keys that a user means by `text`: an image as people write it, a URL, a repository with its
    reference. Raises BuildError as `git_op` does."""
    from builder.contexts.kinds import git_op
    from builder.errors import UsageError
    from builder.image.names import parse_name

    names = {text, redact(text)}
    with contextlib.suppress(UsageError):
        names.add(str(parse_name(text)))
    op = git_op(text)
    if op is not None:
        names.add(git_key(op).name)
    return sorted(key for key in keys if key.name in names)
