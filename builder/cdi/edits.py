"""What a CDI spec does to a container: variables, device nodes, mounts, groups (CDI spec, "containerEdits").

Plain values out of a document. What a sandbox cannot do, hooks above all, which would run on the machine, is kept as
the reason why the device cannot be had.
"""

from __future__ import annotations

from typing import Any

from cache.namedtuple import NamedTuple

_READ_ONLY, _KNOWN_OPTIONS = "ro", {"ro", "rw", "bind", "rbind", "nosuid", "nodev", "noexec", "private", "rprivate"}
_TYPES = {"", "b", "c", "u"}


class DeviceNode(NamedTuple):
    """A node in /dev: `host_path` is what it is on the machine; `permissions` of r, w and m.

    Numbers are those of the machine's node, mode and owners as well unless the spec has others.
    """

    path: str
    host_path: str
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    permissions: str = "rwm"


class HostMount(NamedTuple):
    """A file or a directory of the machine."""

    host_path: str
    path: str
    read_only: bool


class Edits(NamedTuple):
    """Everything that comes with a device; `unsupported` says what of it no sandbox does."""

    env: tuple[str, ...] = ()
    nodes: tuple[DeviceNode, ...] = ()
    mounts: tuple[HostMount, ...] = ()
    groups: tuple[int, ...] = ()
    unsupported: tuple[str, ...] = ()


def read_edits(fields: Any) -> Edits:
    """The edits of a document, none for None. Raises KeyError, TypeError or ValueError where they are malformed."""
    if not fields:
        return Edits()
    unsupported = [name for name in ("hooks", "intelRdt", "netDevices") if fields.get(name)]
    return Edits(
        tuple(_variable(text) for text in fields.get("env") or ()),
        tuple(_node(node) for node in fields.get("deviceNodes") or ()),
        tuple(_mount(mount) for mount in fields.get("mounts") or ()),
        tuple(_id(number) for number in fields.get("additionalGids") or () if number),
        tuple(unsupported),
    )


def together(one: Edits, other: Edits) -> Edits:
    """Both, `one` first."""
    return Edits(
        one.env + other.env,
        one.nodes + other.nodes,
        one.mounts + other.mounts,
        one.groups + other.groups,
        one.unsupported + other.unsupported,
    )


def _variable(text: Any) -> str:
    if not isinstance(text, str) or not text.partition("=")[0] or "=" not in text or "\0" in text:
        raise ValueError(f'variable "{text}" is not NAME=VALUE')
    return text


def _node(fields: Any) -> DeviceNode:
    path = _absolute(fields["path"])
    permissions = fields.get("permissions") or "rwm"
    if not set(permissions) <= set("rwm"):
        raise ValueError(f'permissions "{permissions}" of {path}, expected some of rwm')
    if (fields.get("type") or "") not in _TYPES:
        raise ValueError(f'type "{fields["type"]}" of {path}, expected b, c or u')
    for name in ("major", "minor"):
        _optional(fields, name)
    mode, uid, gid = (_optional(fields, name) for name in ("fileMode", "uid", "gid"))
    return DeviceNode(path, _absolute(fields.get("hostPath") or path), mode, uid, gid, permissions)


def _mount(fields: Any) -> HostMount:
    options = [str(option) for option in fields.get("options") or ()]
    unknown = [option for option in options if option not in _KNOWN_OPTIONS]
    if unknown or fields.get("type") not in (None, "", "bind", "none"):
        raise ValueError(
            f'mount of {fields["containerPath"]}: "{(unknown or [fields.get("type")])[0]}" is not supported'
        )
    return HostMount(_absolute(fields["hostPath"]), _absolute(fields["containerPath"]), _READ_ONLY in options)


def _absolute(path: Any) -> str:
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        raise ValueError(f'path "{path}" is not absolute')
    return path


def _optional(fields: Any, name: str) -> int | None:
    return None if fields.get(name) is None else _id(fields[name])


def _id(number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 32:
        raise ValueError(f'number "{number}", expected one of 32 bits')
    return number
