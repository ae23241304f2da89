"""The store's own key for message authentication codes: what makes a digest of a secret say nothing to anybody else.

    <root>/mac.key           32 random bytes, mode 0600, made when first needed, never changed

It stays in this store: a cache that was exported has digests that no other store can make, so they are never found.
"""

from __future__ import annotations

import os

from cache.errors import StoreCorruptError, os_errors

NAME = "mac.key"
_SIZE = 32


def mac_key(root: str) -> bytes:
    """The key of the store at `root`; of several processes that make it, one does. StoreCorruptError, CacheError."""
    path = os.path.join(root, NAME)
    with os_errors(path):
        if not os.path.exists(path):
            _create(path, os.path.join(root, "run/tmp"))
        with open(path, "rb") as file:
            key = file.read(_SIZE + 1)
    if len(key) != _SIZE:
        hint = f"remove {path}: steps with secrets in their keys then run once more"
        raise StoreCorruptError(f"{path}: {len(key)} bytes, expected {_SIZE}", hint=hint)
    return key


def _create(path: str, tmp_dir: str) -> None:
    """Write a new key elsewhere and link it to its place, if nobody else was quicker."""
    temporary = f"{tmp_dir}/{NAME}.{os.urandom(6).hex()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, os.urandom(_SIZE))
        os.fsync(fd)
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        os.close(fd)
        os.unlink(temporary)
