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
from builder.sandbox.fsops import SafeRoot
from builder.sandbox.snapshotter import Snapshotter
from builder.sandbox.spec import Mount


def mounts_of(
    volumes: Sequence[Volume],
    config: Mapping[str, Any],
    container: Container,
    *,
    lower_dirs: Sequence[str],
    snapshotter: Snapshotter,
) -> tuple[Mount, ...]:
    """The mounts, in no order. UsageError when two options want the same target."""
    if not volumes and not config.get("Volumes"):
        return ()
    check_targets(volumes)
    taken = {volume.target for volume in volumes}
    wanted = [*volumes, *(volume for volume in _declared(config) if volume.target not in taken)]
    found = []
    for number, volume in enumerate(wanted):
        if volume.kind == "anonymous":
            found.append(_anonymous(volume, container.make_volume(number), lower_dirs, snapshotter))
        else:
            found.append(_mount(volume))
    return tuple(found)


def _declared(config: Mapping[str, Any]) -> list[Volume]:
    return [Volume("anonymous", posixpath.normpath("/" + path.lstrip("/"))) for path in config.get("Volumes") or {}]


def _mount(volume: Volume) -> Mount:
    if volume.kind == "tmpfs":
        return Mount("tmpfs", volume.target, None, volume.is_read_only, dict(volume.settings))
    _make_source(volume.source)
    return Mount("bind", volume.target, volume.source, volume.is_read_only)


def _anonymous(
    volume: Volume, directories: tuple[str, str], lower_dirs: Sequence[str], snapshotter: Snapshotter
) -> Mount:
    upper_dir, work_dir = directories
    # Made where the image lacks it: only what is there can be mounted.
    try:
        with snapshotter.opened(lower_dirs, upper_dir, work_dir) as fd:
            SafeRoot(fd).mkdir_all(volume.target)
    except OSError as error:
        raise BuildError(f'volume "{volume.target}": {(error.strerror or str(error)).lower()}') from error
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
