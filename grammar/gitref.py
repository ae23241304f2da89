"""Git repositories as ADD and build contexts name them: `https://host/repo.git#ref:dir`, `git@host:repo?tag=v1`.

It says what a text means, and asks no server. URLs are cut as Go's net/url cuts them.
Source: Dockerfile reference, ADD (Git URL fragments and queries); BuildKit's git references.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, unquote_to_bytes

from grammar.characters import quoted
from grammar.errors import DockerfileError
from grammar.values import parse_bool

SCHEMES = ("http", "https", "ssh", "git")

_SCHEME = re.compile("([a-zA-Z0-9]+)://")
_SCP = re.compile(r"([a-zA-Z0-9_-]+)@([a-zA-Z0-9.-]+):([^\n]*?)(?:\?([^\n]*?))?(?:#([^\n]*))?")
_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_HOST = re.compile(r"""(?:(?:[A-Za-z0-9._~!$&'()*+,;=:\[\]<>"-]|%25|%[89A-Fa-f][0-9A-Fa-f]|[^\x00-\x7f])*)""")
_PORT = re.compile(r"(?:[^:\[\]]*|\[[^\]]*\])(?::[0-9]*)?")
_USER = re.compile("[A-Za-z0-9._:~!$&'()*+,;=%@-]*")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@\[\]%/-]*")
_PATH_SAFE = "$&+,/:;=@~"
_FLAGS = ("submodules", "keep-git-dir", "fetch-by-commit")
"""Parameters that need no value."""


class GitRef(NamedTuple):
    """A repository, and what of it is wanted; what was not said is "" or None."""

    remote: str
    """What git is given."""
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    """The commit that it must be."""
    keep_git_dir: bool | None = None
    submodules: bool | None = None
    mtime: str = ""
    fetch_by_commit: bool = False
    is_like_local: bool = False
    """`github.com/a/b`: only a build context takes that for a repository, for COPY and ADD it is a path."""
    is_unencrypted: bool = False

    @property
    def short_name(self) -> str:
        """The repository's own name."""
        return self.remote.rpartition("/")[2].removesuffix(".git")


class _Url(NamedTuple):
    remote: str
    scheme: str
    path: str
    query: list[tuple[str, str]]
    fragment: str


def parse_git_ref(text: str) -> GitRef | None:
    """The repository that `text` names, None if it names none. Raises DockerfileError if its query is wrong."""
    if text.startswith(("./", "../")):
        return None
    scheme = _SCHEME.match(text)
    is_like_local = text.startswith("github.com/")
    if is_like_local:
        url = _parse_url("https", text)
    elif scheme is not None:
        name = scheme[1].lower()
        url = _parse_url(name, text[scheme.end() :]) if name in SCHEMES else None
    else:
        url = _parse_scp(text)
    if url is None or (not is_like_local and url.scheme in ("http", "https") and not url.path.endswith(".git")):
        return None
    remote = url.remote.partition("://")[2] if is_like_local else url.remote
    ref, _, subdir = url.fragment.partition(":")
    subdir = posixpath.normpath("/" + subdir.lstrip("/"))[1:] if subdir else ""
    found = GitRef(remote, ref, subdir, is_like_local=is_like_local)
    found = found._replace(is_unencrypted=not is_like_local and url.scheme in ("http", "git"))
    return _with_query(found, url.query)


def _parse_url(scheme: str, rest: str) -> _Url | None:
    """A URL without its scheme; None if it is not one."""
    if _CONTROL.search(rest):
        return None
    rest, _, fragment = rest.partition("#")
    rest, mark, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    user, at_sign, host = authority.rpartition("@")
    path = slash + path
    if any(_BAD_ESCAPE.search(part) for part in (fragment, path, user, host)) or not _USER.fullmatch(user):
        return None
    if not _HOST.fullmatch(host) or not _PORT.fullmatch(host):
        return None
    shown = path if _PLAIN_PATH.fullmatch(path) else quote(unquote_to_bytes(_bytes(path)), safe=_PATH_SAFE)
    remote = f"{scheme}:" + ("//" if authority or path else "") + user + at_sign + _decoded(host) + shown
    pairs, _ = _parse_query(query)
    return _Url(remote + ("?" if mark and not query else ""), scheme, _decoded(path), pairs, _decoded(fragment))


def _parse_scp(text: str) -> _Url | None:
    """`user@host:path`, as ssh writes it."""
    match = _SCP.fullmatch(text)
    if match is None:
        return None
    pairs, is_valid = _parse_query(match[4] or "")
    if not is_valid:
        return None
    return _Url(f"{match[1]}@{match[2]}:{match[3]}", "ssh", match[3], pairs, match[5] or "")


def _parse_query(query: str) -> tuple[list[tuple[str, str]], bool]:
    """The pairs that can be read, and whether these are all."""
    pairs: list[tuple[str, str]] = []
    words = [word for word in query.split("&") if word]
    for word in words:
        if ";" not in word and not _BAD_ESCAPE.search(word):
            name, _, value = word.replace("+", " ").partition("=")
            pairs.append((_decoded(name), _decoded(value)))
    return pairs, len(pairs) == len(words)


def _with_query(found: GitRef, pairs: list[tuple[str, str]]) -> GitRef:
    """`found` with what the query says. Raises DockerfileError."""
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise DockerfileError(f"git query {quoted(name)} has multiple values", subject=name)
        if not value and name not in _FLAGS:
            raise DockerfileError(f"git query {quoted(name)} has no value", subject=name)
        values[name] = value
    for name, value in values.items():
        found = _with_parameter(found, name, value)
    tag, branch = values.get("tag", ""), values.get("branch", "")
    if tag:
        found = _agreeing(found, "ref", tag if tag.startswith("refs/tags/") else f"refs/tags/{tag}")
    if tag and branch:
        raise DockerfileError("git query branch conflicts with tag", subject=branch)
    if branch:
        found = _agreeing(found, "ref", branch if branch.startswith("refs/heads/") else f"refs/heads/{branch}")
    return found


def _with_parameter(found: GitRef, name: str, value: str) -> GitRef:
    match name:
        case "tag" | "branch":
            return found
        case "ref" | "subdir":
            return _agreeing(found, name, value)
        case "checksum" | "commit":
            return found._replace(checksum=value)
        case "mtime" if value in ("checkout", "commit"):
            return found._replace(mtime=value)
        case "keep-git-dir" | "submodules" | "fetch-by-commit":
            switch = parse_bool(value or "true")
            if switch is not None:
                return _with_field(found, name.replace("-", "_"), switch)
        case "mtime":
            pass
        case _:
            raise DockerfileError(f"unexpected git query {quoted(name)}", subject=name)
    raise DockerfileError(f"git query {name} has an invalid value {quoted(value)}", subject=value)


def _agreeing(found: GitRef, name: str, value: str) -> GitRef:
    """With a field that may be said twice, but not differently."""
    before = getattr(found, name)
    if before and before != value:
        raise DockerfileError(f"git {name} conflicts: {quoted(before)} and {quoted(value)}", subject=value)
    return _with_field(found, name, value)


def _with_field(found: GitRef, name: str, value: Any) -> GitRef:
    return found._replace(**{name: value})


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _decoded(text: str) -> str:
    return unquote(text, errors="surrogateescape") if "%" in text else text
