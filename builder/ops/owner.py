"""Who `--chown` and WORKDIR make the owner: numbers as they are, names by the destination's passwd and group files."""

from __future__ import annotations

from builder.errors import BuildError
from builder.sandbox import passwd
from builder.sandbox.fsops import SafeRoot
from builder.sandbox.paths import Owner

MAX_ID = (1 << 31) - 1
"""Numbers beyond it are read as names, as BuildKit does."""


def owner_of(spec: str, root: SafeRoot) -> Owner:
    """The ids that `user[:group]` means in a root.

    A user given by name brings its passwd entry's group, one given by number the same number as group; an empty or
    unknown name is 0 (BuildKit). Raises BuildError for a passwd or group file that is no regular file.
    """
    user, colon, group = spec.partition(":")
    uid = gid = _number(user)
    if uid is None:
        uid, gid = _find_user(user, root)
    if colon:
        number = _number(group)
        gid = number if number is not None else _find_group(group, root, gid or 0)
    return uid, gid or 0


def refuse_names(spec: str) -> None:
    """Raise BuildError for a name: there is no root yet whose files could say what it means (BuildKit)."""
    names = [name for name in spec.split(":", 1) if _number(name) is None]
    if names:
        raise BuildError(
            f'invalid user index: -1: "{names[0]}" has no passwd and group files to be looked up in',
            hint="give a number: the destination is an empty root, as it is with --link",
        )


def _number(text: str) -> int | None:
    if text in ("", "root"):
        return 0
    digits = text.removeprefix("+")
    if not (digits.isascii() and digits.isdigit()) or int(digits) > MAX_ID:
        return None
    return int(digits)


def _find_user(name: str, root: SafeRoot) -> Owner:
    for entry in passwd.parse_passwd(passwd.read_file(root.fd, "/etc/passwd") or b""):
        if entry.name == name:
            return entry.uid, entry.gid
    return 0, 0


def _find_group(name: str, root: SafeRoot, fallback: int) -> int:
    for entry in passwd.parse_group(passwd.read_file(root.fd, "/etc/group") or b""):
        if entry.name == name:
            return entry.gid
    return fallback
