"""An outline or a list of targets as text and as JSON, as `docker buildx build --call` prints them.

The shapes are BuildKit's result.txt and result.json; a table of cache mounts is ours. It knows neither stages nor ARGs.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from builder.errors import Location
from builder.image.document import encode_document
from builder.outline import Outline, OutlineMount, Target

_GAP = 3


def outline_text(outline: Outline) -> str:
    """Tables, each followed by an empty line; one without rows is left out."""
    text = ""
    if outline.name or outline.description:
        rows = [("TARGET:", outline.name or "(default)")]
        rows += [("DESCRIPTION:", outline.description)] if outline.description else []
        text += _table(rows, gap=1) + "\n"
    if outline.args:
        args = [(arg.name, arg.value, arg.description) for arg in outline.args]
        text += _table([("BUILD ARG", "VALUE", "DESCRIPTION"), *args], gap=_GAP) + "\n"
    for title, mounts in (("SECRET", outline.secrets), ("SSH", outline.ssh)):
        if mounts:
            named = [(mount.name, "true" if mount.required else "") for mount in mounts]
            text += _table([(title, "REQUIRED"), *named], gap=_GAP) + "\n"
    if outline.caches:
        text += _table([("CACHE MOUNT",), *((mount.name,) for mount in outline.caches)], gap=_GAP) + "\n"
    return text


def outline_json(outline: Outline, source: bytes) -> str:
    """The document; what is empty is left out. `source` is the Dockerfile."""
    args = [
        _filled({"name": arg.name, "description": arg.description, "value": arg.value}, arg.location)
        for arg in outline.args
    ]
    fields = {
        "name": outline.name,
        "description": outline.description,
        "args": args,
        "secrets": [_mount("name", mount) for mount in outline.secrets],
        "ssh": [_mount("name", mount) for mount in outline.ssh],
        "cache": [_mount("ID", mount) for mount in outline.caches],
        "sources": [_base64(source)],
    }
    return _document({key: value for key, value in fields.items() if value})


def targets_text(targets: Sequence[Target]) -> str:
    """A row for each target; the one that is built without --target says so."""
    rows = [("TARGET", "DESCRIPTION")]
    for target in targets:
        default = " (default)" if target.is_default else ""
        rows.append(((target.name + default).strip(), target.description))
    return _table(rows, gap=1)


def targets_json(targets: Sequence[Target], source: bytes) -> str:
    """The document; `source` is the Dockerfile."""
    listed = [
        _filled(
            {
                "name": target.name,
                "default": target.is_default,
                "description": target.description,
                "base": target.base,
                "platform": target.platform,
            },
            target.location,
        )
        for target in targets
    ]
    return _document({"targets": listed or None, "sources": [_base64(source)]})


def _table(rows: Sequence[Sequence[str]], *, gap: int) -> str:
    """Columns as wide as their widest cell and `gap` more; the last one is not padded."""
    widths = [max(len(row[column]) for row in rows) + gap for column in range(len(rows[0]) - 1)]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + row[-1] + "\n" for row in rows
    )


def _mount(key: str, mount: OutlineMount) -> dict[str, Any]:
    return _filled({key: mount.name, "required": mount.required}, mount.location)


def _filled(fields: dict[str, Any], location: Location | None) -> dict[str, Any]:
    """`fields` that are not empty, and the place: a range for each line."""
    filled = {key: value for key, value in fields.items() if value}
    if location is not None:
        lines = range(location.start_line, location.end_line + 1)
        filled["location"] = {"ranges": [{"start": {"line": line}, "end": {"line": line}} for line in lines]}
    return filled


def _document(fields: dict[str, Any]) -> str:
    return encode_document(fields, indent=2).decode("utf-8") + "\n"


def _base64(source: bytes) -> str:
    return base64.b64encode(source).decode("ascii")
