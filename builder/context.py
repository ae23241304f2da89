"""The build context: where the Dockerfile's text, the ignore patterns and the local files come from.

Owns the named directories of a build. Reads the Dockerfile and the ignore files; files for COPY are read by `ops`.
Source: docker buildx build reference (PATH | -, -f), Dockerfile reference (.dockerignore).
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from typing import NamedTuple

from builder.errors import BuildError, UsageError
from grammar.errors import DockerfileError
from grammar.ignore import IgnoreMatcher, read_patterns

DOCKERFILE_LIMIT = 64 << 20


class LocalDir(NamedTuple):
    """A directory to copy from, and what of it is ignored."""

    path: str
    matcher: IgnoreMatcher | None


class BuildContext:
    """The main context directory, the Dockerfile, and the named directory contexts."""

    def __init__(self, root: str, dockerfile: str, source: bytes) -> None:
        self.root = root
        self.dockerfile = dockerfile
        """The Dockerfile's name as messages show it."""
        self.source = source
        self.named_dirs: dict[str, str] = {}
        self._ignore_path = ""

    @classmethod
    def open(cls, path: str, dockerfile: str, *, cwd: str) -> BuildContext:
        """The context at `path`, with `dockerfile` (default `Dockerfile` in the context; `-` is standard input).

        Raises BuildError when either is missing or cannot be read, UsageError for contexts of a kind that this
        version does not take.
        """
        if path == "-" or "://" in path or path.startswith("git@"):
            raise UsageError(
                f'context "{path}" is not a directory',
                hint="tar, git and URL contexts are not supported; give a directory",
            )
        root = os.path.normpath(os.path.join(cwd, path))
        _check_directory(root, f'context "{path}"')
        if dockerfile == "-":
            return cls(root, "Dockerfile", sys.stdin.buffer.read(DOCKERFILE_LIMIT))
        full = os.path.join(cwd, dockerfile) if dockerfile else os.path.join(root, "Dockerfile")
        context = cls(root, dockerfile or "Dockerfile", _read_dockerfile(full, dockerfile or "Dockerfile", root))
        context._ignore_path = full + ".dockerignore"
        return context

    def add_named(self, contexts: Mapping[str, str], *, cwd: str) -> None:
        """Register the named contexts that are directories. Raises BuildError for one that is missing."""
        for name, value in contexts.items():
            path = os.path.normpath(os.path.join(cwd, value))
            _check_directory(path, f'context "{name}={value}"')
            self.named_dirs[name] = path

    def local(self, name: str) -> LocalDir:
        """The directory behind a LocalSourceOp, with its own ignore file. Raises DockerfileError for a bad pattern."""
        path = self.root if name == "context" else self.named_dirs[name]
        sources = [os.path.join(path, ".dockerignore")]
        if name == "context" and self._ignore_path:
            sources.insert(0, self._ignore_path)
        for ignore_path in sources:
            patterns = _read_ignore(ignore_path)
            if patterns is not None:
                return LocalDir(path, IgnoreMatcher(patterns) if patterns else None)
        return LocalDir(path, None)


def _check_directory(path: str, shown: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise BuildError(
            f"{shown} cannot be read: {_reason(error)}", hint="the last argument is the context directory"
        ) from error
    if not stat.S_ISDIR(mode):
        raise BuildError(f"{shown} is not a directory", hint="give the Dockerfile with -f, the context as a directory")
    if not os.access(path, os.R_OK | os.X_OK):
        raise BuildError(f"{shown} cannot be read: permission denied")


def _read_dockerfile(path: str, shown: str, root: str) -> bytes:
    try:
        with open(path, "rb") as file:
            source = file.read(DOCKERFILE_LIMIT + 1)
    except OSError as error:
        raise BuildError(
            f"failed to read dockerfile: open {shown}: {_reason(error)}", hint=_near_dockerfile(root)
        ) from error
    if len(source) > DOCKERFILE_LIMIT:
        raise BuildError(f"dockerfile {shown} is larger than {DOCKERFILE_LIMIT >> 20} MiB")
    return source


def _near_dockerfile(root: str) -> str:
    try:
        found = sorted(name for name in os.listdir(root) if "dockerfile" in name.lower() or name == "Containerfile")
    except OSError:
        found = []
    files = [name for name in found if not name.endswith(".dockerignore")]
    return f"the context has {', '.join(files)}: name it with -f" if files else "name the Dockerfile with -f"


def _read_ignore(path: str) -> list[str] | None:
    try:
        with open(path, "rb") as file:
            return read_patterns(file.read())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BuildError(f"ignore file {path} cannot be read: {_reason(error)}") from error
    except DockerfileError as error:
        raise BuildError(f"ignore file {path}: {error.message}", hint=error.hint) from error


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
