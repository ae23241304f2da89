"""The values of `RUN --mount` and `RUN --device`: comma-separated fields.

Most of a mount is checked only when its variables are known, so the same text is read twice: without an expander
while the file is parsed, with one when the step is made. It does not know what a mount does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from grammar.characters import quoted, to_lower
from grammar.errors import DockerfileError, nearest
from grammar.values import parse_bool, parse_size, parse_uint

TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARING_MODES = ("shared", "private", "locked")


class MountFlag(NamedTuple):
    """One mount; what was not given is "", 0 or None."""

    type: str = "bind"
    source: str = ""
    target: str = ""
    from_: str = ""
    read_only: bool = False
    id: str = ""
    sharing: str = ""
    required: bool = False
    size: int = 0
    """Bytes."""
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    env: str | None = None
    """Name of the variable that holds a secret; "" stands for the default name."""


class Device(NamedTuple):
    """`RUN --device`: a CDI name and whether the step fails without it."""

    name: str
    required: bool


_FIELDS = {
    **{name: name for name in ("type", "source", "target", "id", "sharing", "required", "size", "mode", "uid", "gid")},
    **{"src": "source", "dst": "target", "destination": "target", "from": "from_", "env": "env"},
    **{"readonly": "read_only", "ro": "read_only", "readwrite": "writable", "rw": "writable"},
}
_TYPES_WITH = {"size": ("tmpfs",), "required": ("secret", "ssh")}
"""Fields that are refused at once where the type, as known so far, has none."""
_SWITCHES = ("read_only", "writable", "required")


def parse_mount(value: str, expand: Callable[[str], str] | None) -> MountFlag:
    """The mount in `value`, each field's value expanded. Without `expand` only `from` is read, which must not need
    expansion. Raises DockerfileError."""
    mount = MountFlag()
    read_only: bool | None = None
    for field in split_fields(value):
        name, has_value, text = field.partition("=")
        key = to_lower(name)
        attribute = _FIELDS.get(key, "")
        if expand is None:
            if key == "from" and has_value:
                mount = mount._replace(from_=_constant(text))
            continue
        if not has_value and attribute not in _SWITCHES:
            raise DockerfileError(f"mount field {quoted(field)} has no value, expected key=value")
        parsed = _parsed(mount, key, expand(text) if has_value else "true")
        if attribute in ("read_only", "writable"):
            read_only = parsed if attribute == "read_only" else not parsed
        else:
            mount = mount._replace(**{attribute: parsed})
    if read_only is None:
        read_only = mount.type not in ("cache", "tmpfs")
    mount = mount._replace(read_only=read_only)
    _check(mount)
    return mount


def _constant(text: str) -> str:
    if "$" in text[:-1]:
        raise DockerfileError(
            f"mount from={text} has a variable in it, expected a stage or an image",
            hint="name the image in a stage of its own: FROM image AS name",
            subject=f"from={text}",
        )
    return text


def _parsed(mount: MountFlag, key: str, text: str) -> Any:
    """The value of one field; `mount` is what the fields before it gave."""
    attribute = _FIELDS.get(key, "")
    if mount.type not in _TYPES_WITH.get(attribute, TYPES):
        raise DockerfileError(f"mount field {key} is not for type {mount.type}", subject=key)
    match attribute:
        case "type":
            value: Any = _one_of(text, TYPES, "mount type")
        case "sharing":
            value = _one_of(text, SHARING_MODES, "sharing mode")
        case "read_only" | "writable" | "required":
            value = _valid(parse_bool(text), key, text, "true or false")
        case "size":
            value = parse_size(text)
        case "mode":
            value = _valid(parse_uint(text, base=8), key, text, "an octal number")
        case "uid" | "gid":
            value = _valid(parse_uint(text), key, text, "a number")
        case "":
            near = nearest(key, list(_FIELDS))
            hint = f"did you mean {near}?" if near else None
            raise DockerfileError(f"mount field {quoted(key)} is not known", hint=hint, subject=key)
        case _:
            value = text
    return value


def _one_of(text: str, known: tuple[str, ...], what: str) -> str:
    lower = to_lower(text)
    if lower in known:
        return lower
    near = nearest(lower, list(known))
    hint = f"did you mean {near}?" if near else None
    raise DockerfileError(f"{what} {quoted(text)} is not known, expected one of {', '.join(known)}", hint=hint)


def _valid(value: Any, key: str, text: str, expected: str) -> Any:
    if value is None:
        raise DockerfileError(f"mount field {key} is {quoted(text)}, expected {expected}", subject=key)
    return value


def _check(mount: MountFlag) -> None:
    """Fields that do not go together."""
    if mount.type in ("bind", "tmpfs"):
        for name, value in (("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)):
            if value is not None:
                raise DockerfileError(f"mount field {name} is not for type {mount.type}", subject=name)
    if mount.sharing and mount.type != "cache":
        raise DockerfileError(f"mount field sharing is not for type {mount.type}", subject="sharing")
    if mount.type == "secret":
        if mount.from_:
            raise DockerfileError("mount field from is not for type secret", subject="from")
        if not (mount.source or mount.target or mount.id):
            raise DockerfileError("secret mount has no name, expected one of id, source, target")
        if mount.source and mount.id:
            raise DockerfileError("secret mount has both source and id, expected one of them")


def parse_device(value: str) -> Device:
    """The device in `value`. Raises DockerfileError."""
    name, required = "", False
    for field in split_fields(value):
        key, has_value, text = field.partition("=")
        key = to_lower(key)
        if key == "required":
            required = bool(_valid(parse_bool(text if has_value else "true"), key, text, "true or false"))
        elif key == "name" and has_value:
            if name:
                raise DockerfileError(f"device name is given twice, as {quoted(name)} and {quoted(text)}")
            name = text
        elif name:
            raise DockerfileError(f"device field {quoted(field)} is not known, expected name or required")
        else:
            name = field
    return Device(name, required)


def split_fields(text: str) -> list[str]:
    """Comma-separated fields; quotes go around a whole field, a quote in it is doubled (RFC 4180)."""
    text = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
    if not text:
        raise DockerfileError("flag value is empty, expected key=value fields")
    fields: list[str] = []
    position = 0
    while True:
        field, position = (
            _quoted_field(text, position) if text[position : position + 1] == '"' else _field(text, position)
        )
        fields.append(field)
        if position >= len(text):
            return fields
        position += 1


def _field(text: str, start: int) -> tuple[str, int]:
    """The field at `start` and where its comma is."""
    end = text.find(",", start)
    end = len(text) if end < 0 else end
    if '"' in text[start:end]:
        raise DockerfileError(f"field {quoted(text[start:end])} has a quote inside", hint="put quotes around the field")
    return text[start:end], end


def _quoted_field(text: str, start: int) -> tuple[str, int]:
    parts: list[str] = []
    position = start + 1
    while (end := text.find('"', position)) >= 0:
        parts.append(text[position:end])
        position = end + 1
        if text[position : position + 1] != '"':
            break
        parts.append('"')
        position += 1
    if end < 0 or text[position : position + 1] not in ("", ","):
        raise DockerfileError(f"field {quoted(text[start:])} has a quote that does not end it")
    return "".join(parts), position
