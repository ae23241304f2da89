"""Dockerfiles that are not on this machine: in a context that was fetched, or behind a URL of their own."""

from __future__ import annotations

import errno
import os
import stat

from builder.context import DOCKERFILE_LIMIT, DockerfileText, near_dockerfile
from builder.errors import BuildError
from builder.fetcher import Fetcher
from builder.plan import HttpSourceOp
from builder.redact import redact
from cache.errors import CacheError
from cache.snapshots import Snapshot
from cache.store import Store

_DEFAULT = "Dockerfile"


def read_from_snapshot(snapshot: Snapshot, name: str, store: Store) -> DockerfileText:
    """The Dockerfile at the path `name` (default `Dockerfile`) in a context. Links in it are followed inside it.

    Raises BuildError when it is missing or no regular file.
    """
    from builder.sandbox.fsops import SafeRoot

    name = name or _DEFAULT
    root_dir = store.snapshots.lower_dirs(snapshot)[0]
    root_fd = os.open(root_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        root = SafeRoot(root_fd)
        path = name
        directory, base = os.path.split(name)
        if base == _DEFAULT and root.stat(name) is None:
            path = os.path.join(directory, _DEFAULT.lower())
        return DockerfileText(name, _read(root.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY), name))
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise BuildError(f"failed to read dockerfile: open {name}: {reason}", hint=near_dockerfile(root_dir)) from error
    finally:
        os.close(root_fd)


def _read(fd: int, name: str) -> bytes:
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
        source = file.read(DOCKERFILE_LIMIT + 1)
    return _limited(source, name)


def read_from_url(url: str, fetcher: Fetcher) -> DockerfileText:
    """The Dockerfile behind a URL. Raises BuildError."""
    try:
        fetched = fetcher.file(HttpSourceOp(url, _DEFAULT, ""))
        with fetcher.store.blobs.open(fetched.digest) as blob:
            return DockerfileText(redact(url), _limited(blob.read(DOCKERFILE_LIMIT + 1), redact(url)))
    except CacheError as error:
        raise BuildError(f"{redact(url)}: {error}", hint=error.hint) from error


def _limited(source: bytes, shown: str) -> bytes:
    if len(source) > DOCKERFILE_LIMIT:
        raise BuildError(f"dockerfile {shown} is larger than {DOCKERFILE_LIMIT >> 20} MiB")
    return source
