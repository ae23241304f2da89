"""Cache keys: the one place that turns a manifest of inputs into a key.

A key is a file format. It is the sha256 of a line with the version and the manifest as canonical JSON: members sorted,
no blanks, ASCII only. Raise KEY_VERSION when the meaning of any manifest changes; old records are then misses, never
wrong hits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cache.digest import sha256_hex

KEY_VERSION = 2


def key_of(manifest: Mapping[str, Any]) -> str:
    """The key, 64 hex digits, of a manifest of JSON values. TypeError or ValueError for values that JSON has not."""
    text = f"pybuild cache key {KEY_VERSION}\n{_dump(manifest)}"
    return sha256_hex(text.encode("ascii"))


def readable(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as it is kept beside its record, to be compared line by line."""
    return _dump(manifest, indent=1).encode("ascii") + b"\n"


def _dump(manifest: Mapping[str, Any], indent: int | None = None) -> str:
    _require_text_names(manifest)
    separators = (",", ":") if indent is None else (",", ": ")
    return json.dumps(manifest, sort_keys=True, separators=separators, indent=indent, allow_nan=False)


def _require_text_names(value: object) -> None:
    """JSON would write the names 1 and "1" alike, and two manifests would share a key."""
    if isinstance(value, Mapping):
        for name, member in value.items():
            if not isinstance(name, str):
                raise TypeError(f"manifest name {name!r} is not a string")
            _require_text_names(member)
    elif isinstance(value, list | tuple):
        for member in value:
            _require_text_names(member)
