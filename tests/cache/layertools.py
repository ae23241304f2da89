"""Overlay mounts, and a description of what lies in a tree (needs root and overlayfs)."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def overlay(target: Path, lower_dirs: tuple[str, ...], upper_dir: str = "", work_dir: str = "") -> Iterator[Path]:
    target.mkdir(exist_ok=True)
    options = "lowerdir=" + ":".join(lower_dirs)
    if upper_dir:
        options += f",upperdir={upper_dir},workdir={work_dir},index=off,redirect_dir=off,metacopy=off"
    elif len(lower_dirs) == 1:
        options += f":{target}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(target)], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", str(target)], check=True)


def tree(root: Path | str) -> dict[str, tuple[object, ...]]:
    """Everything below a directory: type and mode, owner, seconds, content, capability, link group."""
    found: dict[str, tuple[object, ...]] = {}
    inodes: dict[int, str] = {}
    for directory, names, files in os.walk(root):
        for name in sorted(names + files):
            path = os.path.join(directory, name)
            relative = os.path.relpath(path, root)
            found[relative] = _describe(path, relative, inodes)
    return found


def _describe(path: str, relative: str, inodes: dict[int, str]) -> tuple[object, ...]:
    status = os.lstat(path)
    is_link = os.path.islink(path)
    content: object = os.readlink(path) if is_link else status.st_rdev
    capability = None
    if os.path.isfile(path) and not is_link:
        content = Path(path).read_bytes()
        if "security.capability" in os.listxattr(path):
            capability = os.getxattr(path, "security.capability")
    first = inodes.setdefault(status.st_ino, relative) if not os.path.isdir(path) or is_link else relative
    time = status.st_mtime_ns // 10**9
    return oct(status.st_mode), status.st_uid, status.st_gid, time, content, capability, first
