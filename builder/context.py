"""The build context: where the Dockerfile's text, the ignore patterns and the local files come from.

Owns the contexts of a build, directories and snapshots of what was fetched. Reads the Dockerfile and the ignore files
of directories; files for COPY are read by `ops`.
Source: docker buildx build reference (PATH, -f), Dockerfile reference (.dockerignore).
"""

import os
import stat
import sys
from collections.abc import Callable, Mapping
from typing import BinaryIO, Self

from builder.errors import BuildError
from cache.namedtuple import NamedTuple
from cache.snapshots import Snapshot
from grammar.errors import DockerfileError
from grammar.ignore import IgnoreMatcher, read_patterns

DOCKERFILE_LIMIT = 16 << 20
"""As BuildKit: what one gRPC message carries."""


class LocalDir(NamedTuple):
    """A directory to copy from, and what of it is ignored."""

    path: str
    matcher: IgnoreMatcher | None


class DockerfileText(NamedTuple):
    """A Dockerfile's name as messages show it, and its bytes."""

    name: str
    source: bytes


class BuildContext:
    """The main context, the Dockerfile, and the named contexts. The main one is called `context`."""

    def __init__(self, root: str, dockerfile: str, source: bytes) -> None:
        self.root = root
        self.dockerfile = dockerfile
        """The Dockerfile's name as messages show it."""
        self.source = source
        self.dockerfile_path = ""
        """Where the Dockerfile is, "" if it is no file of this machine."""
        self.named_dirs: dict[str, str] = {}
        self._ignore_path = ""
        self._remotes: dict[str, Callable[[], Snapshot]] = {}
        self._snapshots: dict[str, Snapshot] = {}

    @classmethod
    def open(cls, path: str, dockerfile: str, *, cwd: str, given: DockerfileText | None = None) -> Self:
        """The directory `path`, with `dockerfile` (default `Dockerfile` in it; `-` is standard input) or with the one
        that is given. Raises BuildError when one of them is missing or cannot be read."""
        root = os.path.normpath(os.path.join(cwd, path))
        _check_directory(root, f'context "{path}"')
        if given is None and dockerfile == "-":
            given = read_standard_input()
        if given is not None:
            return cls(root, *given)
        full = os.path.join(cwd, dockerfile) if dockerfile else _in_directory(root)
        context = cls(root, *read_dockerfile(full, dockerfile or "Dockerfile", near=root))
        context.dockerfile_path = full
        context._ignore_path = full + ".dockerignore"
        return context

    @classmethod
    def of_snapshot(cls, snapshot: Snapshot, dockerfile: DockerfileText) -> Self:
        """A context that is a snapshot of the store: no ignore file counts in it."""
        context = cls("", *dockerfile)
        context._snapshots["context"] = snapshot
        return context

    def add_named(self, contexts: Mapping[str, str], *, cwd: str) -> None:
        """Register the named contexts that are directories. Raises BuildError for one that is missing."""
        for name, value in contexts.items():
            path = os.path.normpath(os.path.join(cwd, value))
            _check_directory(path, f'context "{name}={value}"')
            self.named_dirs[name] = path

    def add_remote(self, name: str, fetch: Callable[[], Snapshot]) -> None:
        """Register a named context that `fetch` gets when the build reads it."""
        self._remotes[name] = fetch

    def snapshot(self, name: str) -> Snapshot | None:
        """What a context that is no directory holds, None for a directory. Raises what fetching it raises."""
        if name in self._remotes and name not in self._snapshots:
            self._snapshots[name] = self._remotes[name]()
        return self._snapshots.get(name)

    def local(self, name: str) -> LocalDir:
        """The directory behind a LocalSourceOp, with its own ignore file; a snapshot has neither.

        Raises BuildError for an ignore file that cannot be read.
        """
        if name in self._snapshots or name in self._remotes:
            return LocalDir("", None)
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
            f"{shown} cannot be read: {_reason(error)}",
            hint="a context is a directory, a git or http URL, or - for standard input",
        ) from error
    if not stat.S_ISDIR(mode):
        raise BuildError(f"{shown} is not a directory", hint="give the Dockerfile with -f, the context as a directory")
    if not os.access(path, os.R_OK | os.X_OK):
        raise BuildError(f"{shown} cannot be read: permission denied")


def _in_directory(root: str) -> str:
    """The Dockerfile of a directory, whose name may be all lower case."""
    path, lower = os.path.join(root, "Dockerfile"), os.path.join(root, "dockerfile")
    return lower if not os.path.lexists(path) and os.path.lexists(lower) else path


def read_standard_input() -> DockerfileText:
    """A Dockerfile that comes on standard input. Raises BuildError for one that is too large."""
    return DockerfileText("Dockerfile", _limited(sys.stdin.buffer, "on standard input"))


def read_dockerfile(path: str, shown: str, *, near: str) -> DockerfileText:
    """The Dockerfile at `path`, called `shown`. Raises BuildError; the hint names what the directory `near` has."""
    try:
        with open(path, "rb") as file:
            return DockerfileText(shown, _limited(file, shown))
    except OSError as error:
        raise BuildError(
            f"failed to read dockerfile: open {shown}: {_reason(error)}", hint=near_dockerfile(near)
        ) from error


def _limited(file: BinaryIO, shown: str) -> bytes:
    source = file.read(DOCKERFILE_LIMIT + 1)
    if len(source) > DOCKERFILE_LIMIT:
        raise BuildError(f"dockerfile {shown} is larger than {DOCKERFILE_LIMIT >> 20} MiB")
    return source


def near_dockerfile(root: str) -> str:
    """A hint for somebody whose Dockerfile is not there: the files of a directory that may be meant."""
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
