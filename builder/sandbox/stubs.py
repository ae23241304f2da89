"""Mount points that a step needed and its layer must not have: removed when nothing runs in the sandbox any more."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Sequence

from builder.errors import SandboxError
from builder.sandbox.fsops import SafeRoot
from builder.sandbox.wire import Stub


def remove_stubs(upper_dir: str, stubs: Sequence[Stub]) -> None:
    """Remove mount points from the upper directory once nothing runs in the sandbox any more.

    Only what is still the very inode that was made, empty, and reached without a symlink: the step may have moved its
    parents away and put anything in their place (CVE-2024-23652). Idempotent.
    """
    try:
        upper_fd = os.open(upper_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SandboxError(f"remove mount points: {(error.strerror or '').lower()}: {upper_dir}") from error
    try:
        for stub in reversed(stubs):
            _remove_stub(upper_fd, stub)
    finally:
        os.close(upper_fd)


def _remove_stub(upper_fd: int, stub: Stub) -> None:
    parent, name = posixpath.split(stub.path)
    try:
        parent_fd = SafeRoot(upper_fd).open_plain(parent.lstrip("/") or ".", os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return
    try:
        found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        if found.st_ino != stub.inode:
            return
        before = os.fstat(parent_fd)
        if stat.S_ISDIR(found.st_mode):
            os.rmdir(name, dir_fd=parent_fd)
        elif stat.S_ISREG(found.st_mode) and found.st_size == 0:
            os.unlink(name, dir_fd=parent_fd)
        os.utime(f"/proc/self/fd/{parent_fd}", ns=(before.st_atime_ns, before.st_mtime_ns))
    except OSError:
        # Gone, or no longer empty: then it is the step's own.
        return
    finally:
        os.close(parent_fd)
