"""JSON documents as OCI images have them: read with limits, written byte for byte as Go's encoder does.

A document comes from whoever made the image, so its size and depth are bounded before anything looks at it. Written
documents are named by their digest: the bytes must not depend on anything but the values. Knows no OCI field.
"""

from __future__ import annotations

import json
from typing import Any

from builder.errors import BuildError

MAX_DOCUMENT_SIZE = 4 << 20
"""Bytes of a manifest, an index or a config; registries refuse larger manifests as well."""
MAX_JSON_DEPTH = 64

_GO_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def parse_document(raw: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object in `raw`; `what` names it in the BuildError for anything else.

    Refused: more than 4 MiB, more than 64 levels, text that is not UTF-8 or not one JSON object.
    """
    if len(raw) > MAX_DOCUMENT_SIZE:
        raise BuildError(f"{what} is too large: {len(raw)} bytes, at most {MAX_DOCUMENT_SIZE} are read")
    try:
        document = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BuildError(f"{what} is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise BuildError(f"{what} is not a JSON object but {_kind(document)}")
    _check_depth(document, what)
    return document


def _check_depth(document: dict[str, Any], what: str) -> None:
    level: list[Any] = [document]
    for _ in range(MAX_JSON_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise BuildError(f"{what} is nested more than {MAX_JSON_DEPTH} levels deep")


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return [value for value in node.values() if isinstance(value, (dict, list))]
    return [value for value in node if isinstance(value, (dict, list))]


def _kind(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def encode_document(document: Any, *, indent: int | None = None) -> bytes:
    """Return `document` as JSON, keys in the order they have, as Go's `json.Marshal` (or `MarshalIndent`) writes it.

    `<`, `>`, `&` and the two Unicode line separators are escaped; a byte that is no UTF-8 becomes U+FFFD.
    """
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(document, ensure_ascii=False, separators=separators, indent=indent, allow_nan=False)
    for character, escape in _GO_ESCAPES.items():
        if character in text:
            text = text.replace(character, escape)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return "".join("\\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text).encode("utf-8")


def expect(document: dict[str, Any], key: str, kind: type | tuple[type, ...], what: str) -> Any:
    """Return `document[key]`, None when absent or null; a value that is not a `kind` is a BuildError."""
    value = document.get(key)
    if value is None or (isinstance(value, kind) and not (isinstance(value, bool) and kind is int)):
        return value
    raise BuildError(f"{what}: {key!r} is {_kind(value) if not isinstance(value, dict) else 'an object'}")
