"""How old a source from elsewhere is: as its commit, as its server says, or as the youngest file in an archive.

Source: BuildKit's behaviour for SOURCE_DATE_EPOCH=context.
"""

from __future__ import annotations

from builder.contexts.kinds import git_op, is_url
from builder.contexts.materialise import CONTEXT_FILE
from builder.fetcher import Fetcher
from builder.plan import GitSourceOp, HttpSourceOp
from cache.compression import open_decompressed
from cache.errors import CacheError
from cache.tarreader import REGULAR, read_tar


def context_op(text: str) -> GitSourceOp | HttpSourceOp | None:
    """What fetches the context that `text` names, None for what is on this machine. Raises BuildError."""
    op = git_op(text)
    if op is None and is_url(text):
        return HttpSourceOp(text, CONTEXT_FILE, "")
    return op


def seconds_of(op: GitSourceOp | HttpSourceOp, fetcher: Fetcher) -> int | None:
    """Seconds since 1970, None when nothing says when it was made. Raises BuildError when it cannot be fetched."""
    if isinstance(op, GitSourceOp):
        return fetcher.repository(op).committed_seconds()
    fetched = fetcher.file(op)
    if fetched.mtime_ns:
        return fetched.mtime_ns // 10**9
    try:
        with fetcher.store.blobs.open(fetched.digest) as blob:
            members = read_tar(open_decompressed(blob))
            return max((member.mtime_ns // 10**9 for member in members if member.type == REGULAR), default=None)
    except CacheError:
        return None
