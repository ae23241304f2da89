"""Paths that instructions name, made absolute for the system the image is for. It touches no file.

On Windows a drive letter is dropped and backslashes separate; elsewhere an absolute path stays as it was written.
Source: BuildKit's rules for WORKDIR, COPY and ADD.
"""

from __future__ import annotations

import posixpath

from builder.errors import BuildError

WINDOWS = "windows"


def clean(path: str) -> str:
    """The shortest equal path, by its text alone; exactly one leading slash is kept."""
    cleaned = posixpath.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def to_slash(path: str, system: str) -> str:
    """The path with slashes, whatever the system separates with."""
    return path.replace("\\", "/") if system == WINDOWS else path


def is_absolute(path: str, system: str) -> bool:
    """Whether a path needs no working directory; a bad drive makes it none."""
    try:
        return without_drive(path, system).startswith("/")
    except BuildError:
        return False


def absolute(parent: str, path: str, system: str, *, keep_slash: bool = False) -> str:
    """`path` below `parent` with slashes; `keep_slash` keeps `/` or `/.` at its end, which tells a directory.

    Raises BuildError for a Windows path that is on another drive.
    """
    written = to_slash(path, system)
    parent = without_drive(to_slash(parent, system) or "/", system, keep_slash=keep_slash)
    if not parent.startswith("/"):
        parent = clean("/" + parent)
    found = without_drive(written or parent, system, keep_slash=keep_slash)
    if not found.startswith("/"):
        found = clean(parent + "/" + found)
    if keep_slash and written.endswith("/") and not found.endswith("/"):
        found += "/"
    elif keep_slash and written.endswith("/."):
        found = "/." if found == "/" else found + "/."
    return found


def workdir(current: str, path: str, system: str) -> str:
    """The new working directory, separated as the image's config wants it. Raises BuildError as `absolute` does."""
    found = absolute(current, path, system)
    return found.replace("/", "\\") if system == WINDOWS else found


def destination(cwd: str, path: str, system: str) -> str:
    """Where COPY and ADD write to. Raises BuildError as `absolute` does."""
    path = without_drive(path, system, keep_slash=True)
    if is_absolute(path, system):
        return absolute("/", path, system, keep_slash=True)
    return absolute(cwd, "./" if path in ("", ".") else path, system, keep_slash=True)


def without_drive(path: str, system: str, *, keep_slash: bool = False) -> str:
    """A Windows path without `C:`, cleaned; on other systems the path as it is. Raises BuildError."""
    if system != WINDOWS:
        return path
    if len(path) == 2 and path[1] == ":":
        raise BuildError(f'path "{path}" is a drive without a path')
    if to_slash(path[:2], system) == "//":
        raise BuildError(f'path "{path}" is a UNC path, which is not supported')
    drive, colon, rest = path.partition(":")
    if colon and drive.lower() != "c":
        raise BuildError(f'path "{path}" is not on the system drive (C:)')
    rest = to_slash(rest if colon else path, system)
    cleaned = clean(rest)
    return cleaned + "/" if keep_slash and len(cleaned) > 1 and rest.endswith("/") else cleaned
