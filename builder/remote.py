"""What ADD reads from elsewhere: the words of a source, as the operation that fetches it.

Source: Dockerfile reference, ADD; BuildKit's behaviour for git references and names of files.
"""

from __future__ import annotations

import posixpath
from urllib.parse import unquote, urlsplit

from builder.errors import BuildError
from builder.plan import GitSourceOp, HttpSourceOp
from grammar.errors import DockerfileError
from grammar.gitref import GitRef, parse_git_ref
from grammar.reference import is_digest


def is_url(text: str) -> bool:
    """Whether a source is fetched over HTTP(S), and not as a git repository."""
    return text.startswith(("http://", "https://")) and git_ref(text) is None


def git_ref(text: str) -> GitRef | None:
    """As parse_git_ref; one with a wrong query is none."""
    try:
        return parse_git_ref(text)
    except DockerfileError:
        return None


def http_source(url: str, checksum: str) -> HttpSourceOp:
    """The file behind a URL. Raises BuildError for a checksum that is none."""
    if checksum and not is_digest(checksum):
        raise BuildError(f'checksum "{checksum}" is not valid, expected sha256:<64 hex digits>')
    return HttpSourceOp(url, _filename(url), checksum)


def git_source(ref: GitRef, checksum: str, *, keep_git_dir: bool | None) -> GitSourceOp:
    """A repository; flag and reference may both say something, but not different things (BuildError)."""
    if None not in (keep_git_dir, ref.keep_git_dir) and keep_git_dir != ref.keep_git_dir:
        raise BuildError("inconsistent keep-git-dir configuration", hint="it is in the flag and in the URL")
    if checksum and ref.checksum and checksum != ref.checksum:
        raise BuildError(f'checksum mismatch "{checksum}" != "{ref.checksum}"')
    return GitSourceOp(
        ref.remote,
        ref.ref,
        ref.subdir,
        ref.checksum or checksum,
        keep_git_dir=bool(keep_git_dir if ref.keep_git_dir is None else ref.keep_git_dir),
        submodules=ref.submodules is not False,
        fetch_by_commit=ref.fetch_by_commit,
        mtime=ref.mtime,
    )


def _filename(url: str) -> str:
    """What a file fetched from `url` is called."""
    try:
        path = urlsplit(url).path
    except ValueError:
        path = ""
    return posixpath.basename(unquote(path).rstrip("/")) or "__unnamed__"
