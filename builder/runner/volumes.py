"""The mounts of a container: what the command line asks for, and the volumes that its image declares.

An anonymous volume is an overlay over the image's layers with an upper directory of its own, of which only the volume's
path is seen: it begins with what the image has there, as Docker's does, and nothing is copied.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from builder.errors import BuildError
from builder.runner.container import Container
from builder.runner.options import Volume, check_targets
from builder.sandbox.spec import Mount


def mounts_of(
    volumes: Sequence[Volume], config: Mapping[str, Any], container: Container, lower_dirs: Sequence[str]
) -> tuple[Mount, ...]:
    """The mounts, in no order. UsageError when two options want the same target."""
    if not volumes and not config.get("Volumes"):
        return ()
    check_targets(volumes)
    taken = {volume.target for volume in volumes}
    wanted = [*volumes, *(volume for volume in _declared(config) if volume.target not in taken)]
    return tuple(_mount(volume, number, container, lower_dirs) for number, volume in enumerate(wanted))


def _declared(config: Mapping[str, Any]) -> list[Volume]:
    return [Volume("anonymous", posixpath.normpath("/" + path.lstrip("/"))) for path in config.get("Volumes") or {}]


def _mount(volume: Volume, number: int, container: Container, lower_dirs: Sequence[str]) -> Mount:
    if volume.kind == "tmpfs":
        return Mount("tmpfs", volume.target, None, volume.is_read_only, dict(volume.settings))
    if volume.kind == "bind":
        _make_source(volume.source)
        return Mount("bind", volume.target, volume.source, volume.is_read_only)
    upper_dir, work_dir = container.make_volume(number)
    _make_target(volume.target, lower_dirs, upper_dir, work_dir)
    options = {"lower_dirs": list(lower_dirs), "upper_dir": upper_dir, "work_dir": work_dir, "subpath": volume.target}
    return Mount("overlay", volume.target, None, volume.is_read_only, options)


def _make_source(path: str) -> None:
    """A host's directory that is missing is made, as `docker run -v` does."""
    if os.path.lexists(path):
        return
    try:
        os.makedirs(path, 0o755, exist_ok=True)
    except OSError as error:
        raise BuildError(f'volume source "{path}": {(error.strerror or str(error)).lower()}') from error


def _make_target(target: str, lower_dirs: Sequence[str], upper_dir: str, work_dir: str) -> None:
    """Make the volume's path where the image lacks it: only what is there can be mounted."""
    from builder.sandbox.fsops import SafeRoot
    from builder.sandbox.overlay import mount_detached

    fd = mount_detached(lower_dirs, upper_dir, work_dir)
    try:
        SafeRoot(fd).mkdir_all(target)
    except OSError as error:
        raise BuildError(f'volume "{target}": {(error.strerror or str(error)).lower()}') from error
    finally:
        os.close(fd)
