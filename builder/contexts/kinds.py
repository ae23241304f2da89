"""What the text of a context means: a directory, a git repository, or a URL."""

from __future__ import annotations

from builder.errors import BuildError
from builder.plan import GitSourceOp
from builder.redact import redact
from grammar.errors import DockerfileError

_IMAGES = ("oci-layout://", "docker-image://")


def is_url(text: str) -> bool:
    """Whether a text is an address on the web; that of a git repository is one, too."""
    return text.startswith(("http://", "https://"))


def is_remote(text: str) -> bool:
    """Whether a context is somewhere else. Raises BuildError for a git reference with a wrong query."""
    return is_url(text) or git_op(text) is not None


def is_git_over_ssh(text: str) -> bool:
    """Whether a context is a repository that needs an ssh agent. Raises as `is_remote`."""
    op = git_op(text)
    return op is not None and (op.remote.startswith("ssh:") or "://" not in op.remote)


def git_op(text: str, *, keep_git_dir: bool | None = None) -> GitSourceOp | None:
    """The repository that a context's text names, None if it names none.

    `keep_git_dir` is what to do where the text does not say. Raises BuildError for a wrong query.
    """
    if text.startswith(_IMAGES) or not ("://" in text or "@" in text or text.startswith("github.com/")):
        return None
    from grammar.gitref import parse_git_ref

    try:
        ref = parse_git_ref(text)
    except DockerfileError as error:
        raise BuildError(f'context "{redact(text)}": {error.message}', hint=error.hint) from error
    if ref is None:
        return None
    return GitSourceOp(
        f"https://{ref.remote}" if ref.is_like_local else ref.remote,
        ref.ref,
        ref.subdir,
        ref.checksum,
        keep_git_dir=bool(ref.keep_git_dir or keep_git_dir),
        submodules=ref.submodules is not False,
        fetch_by_commit=ref.fetch_by_commit,
        mtime=ref.mtime,
    )
