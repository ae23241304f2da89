"""The context that the command line names, whatever it is, with its Dockerfile.

A local directory is never mistaken for anything else. `-f` is a path in a context that is not one, unless it is
absolute. Source: docker buildx build reference (PATH | URL | -, -f), and what buildx does with both.
"""

import os
import sys
from collections.abc import Callable, Mapping
from functools import partial

from builder.context import BuildContext, DockerfileText, read_dockerfile, read_standard_input
from builder.contexts import kinds
from builder.errors import BuildError, UsageError
from builder.fetcher import Fetcher
from builder.redact import redact
from cache.namedtuple import NamedTuple
from cache.snapshots import EMPTY, Snapshot


class Source(NamedTuple):
    """What opening a context may use: what fetches, the directory that paths begin at, and the --build-arg."""

    fetcher: Fetcher
    cwd: str
    build_args: Mapping[str, str] = {}
    say: Callable[[str], None] = lambda _text: None
    """Called with a line for the user before something is fetched, which may take its time."""


def open_context(path: str, dockerfile: str, source: Source) -> BuildContext:
    """The context `path` with its Dockerfile, fetched if it has to be.

    Raises BuildError when one of them is not there, cannot be fetched or is unsafe, UsageError when both want standard
    input.
    """
    if path == "-":
        return _from_standard_input(dockerfile, source)
    given = _given(dockerfile, source)
    if os.path.isdir(os.path.join(source.cwd, path)) or not kinds.is_remote(path):
        return BuildContext.open(path, dockerfile, cwd=source.cwd, given=given)
    if given is None and os.path.isabs(dockerfile):
        given = read_dockerfile(dockerfile, dockerfile, near=os.path.dirname(dockerfile))
    op = kinds.git_op(path, keep_git_dir=_is_true(source.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "")))
    source.say(f"loading context {redact(path)}")
    if op is not None:
        from builder.contexts.materialise import git_snapshot

        snapshot = git_snapshot(op, source.fetcher)
        return BuildContext.of_snapshot(snapshot, given or _inside(snapshot, dockerfile, source.fetcher))
    return _from_url(path, dockerfile, given, source.fetcher)


def add_named(context: BuildContext, values: Mapping[str, str], source: Source) -> None:
    """Register the named contexts that are directories, repositories or URLs; these are fetched when they are read.

    Raises BuildError for a directory that is missing.
    """
    remotes = {name: value for name, value in values.items() if kinds.is_remote(value)}
    for name, value in remotes.items():
        context.add_remote(name, partial(_fetch_named, value, source.fetcher))
    directories = {name: value for name, value in values.items() if name not in remotes}
    context.add_named(directories, cwd=source.cwd)


def _fetch_named(value: str, fetcher: Fetcher) -> Snapshot:
    """A repository's files; of any other URL the file itself, as BuildKit does."""
    from builder.contexts.materialise import file_snapshot, git_snapshot

    op = kinds.git_op(value)
    return file_snapshot(value, fetcher) if op is None else git_snapshot(op, fetcher)


def _from_standard_input(dockerfile: str, source: Source) -> BuildContext:
    """An archive with the Dockerfile in it, or a Dockerfile without any context."""
    from builder.contexts.materialise import HEADER_SIZE, looks_like_archive, stream_snapshot
    from cache.compression import PeekedStream

    if dockerfile == "-":
        raise UsageError("standard input cannot be both the context and the Dockerfile")
    if sys.stdin.isatty():
        raise UsageError("standard input is a terminal", hint="pipe a tar or a Dockerfile into it: tar c . | pybuild -")
    stream = PeekedStream(sys.stdin.buffer)
    head = stream.peek(HEADER_SIZE)
    if not head:
        raise BuildError("standard input is empty", hint='the context "-" is a tar, or a Dockerfile, on standard input')
    if looks_like_archive(head):
        given = _given(dockerfile, source)
        snapshot = stream_snapshot(stream, source.fetcher.store)
        return BuildContext.of_snapshot(snapshot, given or _inside(snapshot, dockerfile, source.fetcher))
    if dockerfile:
        raise UsageError(
            "there are two Dockerfiles: one on standard input, one that -f names",
            hint="standard input is not a tar; for a context without files leave out -f",
        )
    rest = read_standard_input()
    return BuildContext.of_snapshot(EMPTY, rest._replace(source=head + rest.source))


def _from_url(url: str, dockerfile: str, given: DockerfileText | None, fetcher: Fetcher) -> BuildContext:
    """What is behind a URL: an archive that is unpacked, or else a Dockerfile, which then is all of the context."""
    from builder.contexts.dockerfile import read_from_snapshot
    from builder.contexts.materialise import CONTEXT_FILE, archive_snapshot, file_snapshot

    snapshot = archive_snapshot(url, fetcher)
    if snapshot is not None:
        return BuildContext.of_snapshot(snapshot, given or _inside(snapshot, dockerfile, fetcher))
    snapshot = file_snapshot(url, fetcher)
    return BuildContext.of_snapshot(snapshot, given or read_from_snapshot(snapshot, CONTEXT_FILE, fetcher.store))


def _given(dockerfile: str, source: Source) -> DockerfileText | None:
    """A Dockerfile that does not come from the context, wherever that is: on standard input, or behind a URL."""
    if dockerfile == "-":
        return read_standard_input()
    if kinds.is_url(dockerfile):
        from builder.contexts.dockerfile import read_from_url

        return read_from_url(dockerfile, source.fetcher)
    return None


def _inside(snapshot: Snapshot, dockerfile: str, fetcher: Fetcher) -> DockerfileText:
    from builder.contexts.dockerfile import read_from_snapshot

    return read_from_snapshot(snapshot, dockerfile, fetcher.store)


def _is_true(text: str) -> bool:
    if not text:
        return False
    from grammar.values import parse_bool

    return bool(parse_bool(text))
