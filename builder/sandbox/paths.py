"""Paths of a root as text: cleaned, joined, split, and their symlinks followed. Touches no file and loads nothing.

A clean path begins with one slash and has no empty, `.` or `..` part.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final

MAX_SYMLINKS: Final = 255

Owner = tuple[int, int]
"""A user and a group id."""

ROOT: Final[Owner] = (0, 0)


def clean(path: str) -> str:
    """`path` taken from the root: begins with one slash, without empty, `.` or `..` parts (lexically)."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def join(directory: str, name: str) -> str:
    """The clean path of `name` in the clean path `directory`."""
    return f"/{name}" if directory == "/" else f"{directory}/{name}"


def split(path: str) -> tuple[str, str]:
    """The parent and the last name of a clean path."""
    parent, _, name = path.rpartition("/")
    return parent or "/", name


def follow(path: str, readlink: Callable[[str], str | None], *, last: bool = True) -> str:
    """`path` with its symlinks resolved inside the root that `readlink` (None for anything but a link) looks into.

    A name that is missing stays as it is, so the result may be a path still to be made. `last` False keeps a link in
    the last place. Raises OSError ELOOP after 255 links.
    """
    done, links = "/", 0
    todo = clean(path).split("/")[:0:-1]
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = split(done)[0]
            continue
        here = join(done, part)
        target = readlink(here) if last or todo else None
        if target is None:
            done = here
            continue
        links += 1
        if links > MAX_SYMLINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith("/"):
            done = "/"
        todo.extend(reversed(target.split("/")))
    return done
