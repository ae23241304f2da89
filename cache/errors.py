"""What can go wrong between the store and the disk. Knows no Dockerfile; whoever catches one adds the place.

A `CacheError` says what failed, subject first; its `hint` says what to try.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager


class CacheError(Exception):
    """The store could not do what was asked, because of the world outside."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class StoreCorruptError(CacheError):
    """A file of the store does not hold what it must."""


class StoreFullError(CacheError):
    """No space, or no quota, is left where the store lies."""


class StoreVersionError(CacheError):
    """The store was written in a format that this program does not know."""


class BlobCorruptError(CacheError):
    """A blob's bytes do not have the digest that it is named by."""


class BlobMissingError(CacheError):
    """A blob is not in the store."""


class LayerError(CacheError):
    """A layer tar, or the tree that one is made from, is malformed or unsafe."""


class LayerLostError(CacheError):
    """A recorded layer cannot be used any more and was forgotten; building again makes it anew."""


def from_os_error(error: OSError, subject: str) -> CacheError:
    """The CacheError for an operating system's error while `subject` (a path or a deed) was at work."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    message = f"{subject}: {reason.lower()}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space on that file system (`pybuild prune`), or choose another store with PYBUILD_ROOT"
        return StoreFullError(message, hint=hint)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return CacheError(message, hint="choose a store that you may write to with PYBUILD_ROOT")
    return CacheError(message)


@contextmanager
def os_errors(subject: str) -> Iterator[None]:
    """Turn an OSError of the block into a CacheError about `subject`."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, subject) from error
