"""--device and RUN --device: names and paths to what a process gets with them.

A name is a CDI device's, `VENDOR/CLASS=NAME`; a path, `HOST[:PATH[:rwm]]`, can only come from the command line. Whether
they are granted is the sandbox's gate to say.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from builder.errors import BuildError
from builder.sandbox.spec import Device, Mount, ProcessSpec
from cache.namedtuple import NamedTuple

if TYPE_CHECKING:
    from builder.cdi.registry import Registry


class Wanted(NamedTuple):
    """A device that was asked for, and whether the process cannot do without it."""

    name: str
    required: bool = True


class Given(NamedTuple):
    """What comes with devices."""

    devices: tuple[Device, ...] = ()
    mounts: tuple[Mount, ...] = ()
    env: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()

    def with_others(self, other: Given) -> Given:
        """Both, in this order."""
        return Given(
            self.devices + other.devices, self.mounts + other.mounts, self.env + other.env, self.groups + other.groups
        )

    def added(self, spec: ProcessSpec) -> ProcessSpec:
        """The spec with them; variables of a device win, as CDI says."""
        return spec._replace(
            devices=(*spec.devices, *self.devices),
            mounts=(*spec.mounts, *self.mounts),
            env=(*spec.env, *self.env),
            groups=(*spec.groups, *self.groups),
        )


def find_devices(wanted: Iterable[Wanted], registry: Registry | None = None) -> Given:
    """Everything that comes with some devices; one that is not there and not required is left out.

    Raises BuildError for one that is required and missing, that is malformed, or that needs what no sandbox does.
    """
    given = Given()
    for each in wanted:
        found = _of_path(each.name) if each.name.startswith("/") else _of_name(each, registry)
        given = given.with_others(found)
    return given


def _of_path(text: str) -> Given:
    source, _, rest = text.partition(":")
    path, _, permissions = rest.partition(":")
    if rest and not path.startswith("/"):
        path, permissions = "", rest
    if not set(permissions) <= set("rwm"):
        raise BuildError(f'device "{text}": permissions "{permissions}", expected some of rwm')
    if not os.path.exists(source):
        raise BuildError(f'device "{text}": {source} does not exist')
    if os.path.isdir(source):
        raise BuildError(f'device "{text}" is a directory', hint="name each device in it")
    return Given((Device(path or source, source, permissions or "rwm", source),))


def _of_name(wanted: Wanted, registry: Registry | None) -> Given:
    from builder.cdi.registry import Registry

    registry = registry or Registry()
    found = registry.find(wanted.name)
    if not found and wanted.required:
        raise BuildError(f"required device {wanted.name} is not available", hint=registry.hint(wanted.name))
    given = Given()
    for device in found:
        edits = device.edits
        if edits.unsupported:
            what = ", ".join(edits.unsupported)
            raise BuildError(
                f"device {device.name} needs {what}, which no sandbox here does",
                hint="name its nodes with --device PATH",
            )
        mounts = tuple(Mount("bind", each.path, each.host_path, each.read_only) for each in edits.mounts)
        nodes = tuple(
            Device(n.path, n.host_path, n.permissions, device.name, n.mode, n.uid, n.gid) for n in edits.nodes
        )
        # A device without nodes still is one, that has to be granted.
        nodes = nodes or (Device("", "", "", device.name),)
        given = Given(given.devices + nodes, given.mounts + mounts, given.env + edits.env, given.groups + edits.groups)
    return given
