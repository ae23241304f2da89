"""Which commit a reference means, asked of the remote.

Source: git-ls-remote(1); BuildKit's order of branches and tags.
"""

from __future__ import annotations

import difflib
import re

from builder.errors import BuildError
from builder.git.command import Git, Place
from cache.namedtuple import NamedTuple

_COMMIT = re.compile("[0-9a-f]{40}(?:[0-9a-f]{24})?")
_CHECKSUM = re.compile("[0-9a-fA-F]+")
_BRANCH = re.compile(r"refs/heads/(?![-.])[^\s~^:?*\[\\]+")
_TOPLEVEL = Place("/")


class Revision(NamedTuple):
    """What to fetch: the object's name, the commit that it leads to, and the remote's name for it ("" for none).

    The two differ for an annotated tag, and `commit` is "" as long as only a fetch can tell.
    """

    name: str
    commit: str = ""
    ref: str = ""


def is_commit(text: str) -> bool:
    """Whether a text is the whole name of an object, in SHA-1 or SHA-256."""
    return _COMMIT.fullmatch(text) is not None


def resolve(ref: str, checksum: str, git: Git, *, fetch_by_commit: bool = False) -> Revision:
    """The revision that `ref` means now, the default branch for "". The server is not asked for a whole commit.

    Raises BuildError when there is none, when it is not what `checksum` says, and when the remote cannot be read.
    """
    if checksum and not _CHECKSUM.fullmatch(checksum):
        raise BuildError(f'{git.shown}: checksum "{checksum}" is not a commit: expected hex digits')
    if ref.startswith("-"):
        raise BuildError(f'{git.shown}: invalid git ref "{ref}"')
    if is_commit(ref):
        revision = Revision(ref)
    elif fetch_by_commit:
        revision = _by_commit(ref, checksum, git)
    else:
        revision = _asked(ref, git)
    names = [name for name in (revision.name, revision.commit) if name]
    if checksum and not any(name.startswith(checksum.lower()) for name in names):
        raise BuildError(
            f"{git.shown}: expected commit {checksum}, got {' or '.join(dict.fromkeys(names))}",
            hint="if the repository was meant to change, give its new commit as the checksum",
        )
    return revision


def _by_commit(ref: str, checksum: str, git: Git) -> Revision:
    if not is_commit(checksum):
        raise BuildError(f'{git.shown}: fetch-by-commit needs the checksum of a whole commit, got "{checksum}"')
    if ref and not ref.startswith("refs/"):
        ref = f"refs/heads/{ref}"
    return Revision(checksum, ref=ref)


def _asked(ref: str, git: Git) -> Revision:
    found = _listed(git, *([ref, f"{ref}^{{}}"] if ref else ["HEAD"]))
    if not ref:
        return _default(found, git)
    rest = ref.removeprefix("refs/")
    head, tag = f"refs/heads/{ref.removeprefix('refs/heads/')}", f"refs/tags/{ref.removeprefix('refs/tags/')}"
    for name in (f"refs/{rest}", head, tag):
        if is_commit(found.get(name, "")):
            return Revision(found[name], found.get(f"{name}^{{}}", found[name]), name)
    raise BuildError(f'{git.shown}: the repository has no branch or tag "{ref}"', hint=_similar(ref, git))


def _default(found: dict[str, str], git: Git) -> Revision:
    commit, branch = found.get("HEAD", ""), found.get("ref: HEAD", "")
    if not is_commit(commit):
        raise BuildError(
            f"{git.shown}: the repository has no default branch", hint="it may be empty; or name a branch: URL#branch"
        )
    return Revision(commit, commit, branch if _BRANCH.fullmatch(branch) else "")


def _listed(git: Git, *patterns: str) -> dict[str, str]:
    """Names and objects that match; `ref: HEAD` is the branch that HEAD stands for."""
    found: dict[str, str] = {}
    for line in git.run(_TOPLEVEL, "ls-remote", "--symref", "--", git.access.url, *patterns).splitlines():
        name, _, ref = line.partition("\t")
        if name.startswith("ref: "):
            found[f"ref: {ref}"] = name.removeprefix("ref: ")
        else:
            found[ref] = name
    return found


def _similar(ref: str, git: Git) -> str | None:
    if re.fullmatch("[0-9a-f]{7,63}", ref):
        return "a commit is named by all of its 40 digits"
    names = [name.split("/", 2)[2] for name in _listed(git, "refs/heads/*", "refs/tags/*") if name.count("/") > 1]
    near = difflib.get_close_matches(ref, names, 1)
    return f'did you mean "{near[0]}"?' if near else None
