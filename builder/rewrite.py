"""Writing a user's own file anew, as `fmt` and `check --fix` do."""

from __future__ import annotations

import contextlib
import os

from cache.atomic import AtomicFile


def replace_file(path: str, content: bytes) -> None:
    """Replace the file, or what the link leads to; readers see the old text or the new. Mode and owner are kept."""
    target = os.path.realpath(path)
    status = os.stat(target)
    with AtomicFile(f"{target}.{os.urandom(6).hex()}.tmp", target) as file:
        with contextlib.suppress(PermissionError):
            os.chown(file.temporary_path, status.st_uid, status.st_gid)
        os.chmod(file.temporary_path, status.st_mode & 0o7777)
        file.write(content)
