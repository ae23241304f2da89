"""The users and groups of an image: its /etc/passwd and /etc/group as text, and what a USER value means by them.

Owns the parsing and the lookup rules of BuildKit and runc. Knows no descriptors besides the root's: the files are read
in the root, regular files only and of bounded size. Runs under `python -I -S`.
"""

from __future__ import annotations

import os
import re
import stat

from builder.errors import BuildError
from builder.sandbox.fsops import SafeRoot
from cache.namedtuple import NamedTuple

MAX_FILE_SIZE = 10 << 20
MAX_ID = (1 << 32) - 2
"""The last user or group id: all ones means "no change" to chown(2)."""
MAX_LOOKED_UP_ID = (1 << 31) - 1
"""The last id that may stand for an entry, or without its other half."""

_NUMBER = re.compile("[+-]?[0-9]+", re.ASCII)


class PasswdEntry(NamedTuple):
    """A line of /etc/passwd (passwd(5))."""

    name: str
    uid: int
    gid: int
    home: str


class GroupEntry(NamedTuple):
    """A line of /etc/group (group(5))."""

    name: str
    gid: int
    members: tuple[str, ...]


class User(NamedTuple):
    """Who a process runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...]


ROOT = User(0, 0, ())


def parse_passwd(source: bytes) -> tuple[PasswdEntry, ...]:
    """The entries in file order; missing fields are empty and unreadable numbers 0, as BuildKit reads them."""
    return tuple(PasswdEntry(f[0], _number(f[2]), _number(f[3]), f[5]) for f in _lines(source, 7))


def parse_group(source: bytes) -> tuple[GroupEntry, ...]:
    """The entries in file order, read as leniently as passwd; lines that begin with `#` are none."""
    fields = (fields for fields in _lines(source, 4) if not fields[0].startswith("#"))
    return tuple(GroupEntry(f[0], _number(f[2]), tuple(f[3].split(",")) if f[3] else ()) for f in fields)


def read_file(root_fd: int, path: str) -> bytes | None:
    """The content of `path` in the root, None if it is not there.

    Symlinks are followed inside the root. Raises BuildError for anything but a regular file of at most 10 MiB: a fifo
    or a device there would hang or flood the one who reads it.
    """
    root = SafeRoot(root_fd)
    try:
        # Looked at before it is opened, because opening a device can already do something.
        probe = root.open(path, os.O_PATH)
        is_regular = stat.S_ISREG(os.fstat(probe).st_mode)
        os.close(probe)
        if not is_regular:
            raise BuildError(f"{path} of the image: expected a regular file")
        fd = root.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BuildError(f"{path} of the image: {error.strerror}") from error
    with open(fd, "rb") as file:
        source = file.read(MAX_FILE_SIZE + 1)
    if len(source) > MAX_FILE_SIZE:
        raise BuildError(f"{path} of the image: larger than {MAX_FILE_SIZE} bytes")
    return source


def resolve_user(spec: str, passwd: bytes | None, group: bytes | None) -> User:
    """The ids that USER `spec` (name or uid, then optionally `:` and group or gid) stands for.

    None for a file means that the image lacks it. Raises BuildError for a name that no entry has. As BuildKit does it:
    `uid:gid` needs no file; a bare uid without an entry gets gid 0; supplementary groups come from /etc/group unless
    a group is given. No user at all is root, who may be in more groups, too.
    """
    both = _two_numbers(spec)
    if both is not None:
        return User(*both, ())
    user, group_name = [*(spec or "0").split(":"), ""][:2]
    uid, gid = _id(user), _id(group_name)
    entry = _find_user(user, uid, passwd)
    if entry is None:
        entry = PasswdEntry("", uid or 0, 0, "")
    groups = parse_group(group or b"")
    if not group_name:
        found = tuple(g.gid for g in groups if entry.name and entry.name in g.members)
        return User(entry.uid, entry.gid, found)
    for candidate in groups:
        if candidate.gid == gid if gid is not None else candidate.name == group_name:
            return User(entry.uid, candidate.gid, ())
    if gid is None:
        raise _unknown("group", group_name, "group", is_missing=group is None)
    return User(entry.uid, gid, ())


def home_of(uid: int, passwd: bytes | None) -> str:
    """The home directory of the first entry with this uid, `/` if there is none or it is empty."""
    for entry in parse_passwd(passwd or b""):
        if entry.uid == uid:
            return entry.home or "/"
    return "/"


def _find_user(name: str, uid: int | None, passwd: bytes | None) -> PasswdEntry | None:
    """The first entry for a name, or for a uid; a number is never looked up as a name (CVE-2016-3697)."""
    if not name:
        uid = 0
    for entry in parse_passwd(passwd or b""):
        if entry.uid == uid if uid is not None else entry.name == name:
            return entry
    if uid is None:
        raise _unknown("user", name, "passwd", is_missing=passwd is None)
    return None


def _unknown(kind: str, name: str, file: str, *, is_missing: bool) -> BuildError:
    reason = f"the image has no /etc/{file}" if is_missing else f"no matching entries in {file} file"
    return BuildError(
        f"unable to find {kind} {name}: {reason}", hint=f"create the {kind} in the image first, or give a number"
    )


def _two_numbers(spec: str) -> tuple[int, int] | None:
    """`uid:gid`, where `root` is a number, too; None when one half has to be looked up."""
    user, colon, group = spec.partition(":")
    halves = ["0" if half == "root" else half for half in (user, group)]
    if not colon or not all(half.isascii() and half.isdigit() for half in halves):
        return None
    # The length first: int() refuses thousands of digits with an error of its own.
    if any(len(half) > 20 or int(half) > MAX_ID for half in halves):
        raise BuildError(f'user or group id in "{spec}": expected at most {MAX_ID}')
    return int(halves[0]), int(halves[1])


def _id(text: str) -> int | None:
    """The number that `text` is, None if it is a name."""
    if not _NUMBER.fullmatch(text):
        return None
    if len(text) > 20 or not 0 <= int(text) <= MAX_LOOKED_UP_ID:
        raise BuildError(f'user or group id "{text}": uids and gids must be in range 0-{MAX_LOOKED_UP_ID}')
    return int(text)


def _number(text: str) -> int:
    is_number = text.isascii() and text.isdigit() and len(text) <= 20
    return int(text) if is_number and int(text) <= MAX_ID else 0


def _lines(source: bytes, count: int) -> list[list[str]]:
    """The fields of each line that is not blank, filled up to `count`."""
    lines = (line.strip() for line in os.fsdecode(source).split("\n"))
    return [(line.split(":") + [""] * count)[:count] for line in lines if line]
