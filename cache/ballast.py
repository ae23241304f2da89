"""A file of the store that is there to be removed.

    <root>/run/ballast    1 MiB of nothing

On a full disk SQLite cannot even be opened, so nothing could be read and nothing pruned. Whoever meets that removes the
file and tries again; a prune that made room puts it back. Knows nothing of what needs the room.
"""

from __future__ import annotations

import contextlib
import os

_SIZE = 1 << 20
_PLENTY = 64 * _SIZE


def drop_ballast(root: str) -> bool:
    """Remove the file; whether there was one."""
    try:
        os.unlink(_path(root))
    except OSError:
        return False
    return True


def put_ballast(root: str, *, plenty: int = _PLENTY) -> None:
    """Have the file if `plenty` bytes are free without it; what is missing for it is no error."""
    with contextlib.suppress(OSError):
        disk = os.statvfs(root)
        if os.path.exists(_path(root)) or disk.f_bavail * disk.f_frsize < plenty:
            return
        fd = os.open(_path(root), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, _SIZE)
        except OSError:
            drop_ballast(root)
        finally:
            os.close(fd)


def _path(root: str) -> str:
    return os.path.join(root, "run", "ballast")
