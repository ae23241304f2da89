"""The image config document (OCI image-spec, config.md): reading it safely, writing it as BuildKit does.

The document stays a dict, so that fields that nobody here knows survive. The functions check what they hand out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from builder.errors import BuildError
from builder.image.document import encode_document, expect, parse_document
from cache.digest import Digest
from cache.errors import CacheError

_WHAT = "image config"

_RUNTIME_KEYS = (
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "ArgsEscaped",
    "Healthcheck",
    "OnBuild",
    "Shell",
)
_LISTS = ("Env", "Entrypoint", "Cmd", "OnBuild", "Shell")
_MAPS = ("ExposedPorts", "Volumes", "Labels", "Healthcheck")
_TEXTS = ("User", "WorkingDir", "StopSignal")
_HISTORY_KEYS = ("created", "created_by", "author", "comment", "empty_layer")


def parse_config(raw: bytes) -> dict[str, Any]:
    """Return the config document in `raw`, its fields of the right kinds (BuildError otherwise)."""
    document = parse_document(raw, _WHAT)
    for key in ("architecture", "os", "variant", "author", "created"):
        expect(document, key, str, _WHAT)
    _check_runtime(expect(document, "config", dict, _WHAT) or {})
    diff_ids(document)
    history(document)
    return document


def _check_runtime(fields: dict[str, Any]) -> None:
    """BuildError for a field of another kind than every program that starts containers takes it to be."""
    what = f"{_WHAT} config"
    for key in _TEXTS:
        expect(fields, key, str, what)
    for key in _LISTS:
        _check_texts(expect(fields, key, list, what) or (), f"{what}: '{key}'")
    for key in _MAPS:
        expect(fields, key, dict, what)
    _check_texts((fields.get("Labels") or {}).values(), f"{what}: 'Labels'")
    health = fields.get("Healthcheck") or {}
    _check_texts(expect(health, "Test", list, what) or (), f"{what}: 'Test'")


def _check_texts(values: Iterable[Any], what: str) -> None:
    if not all(isinstance(value, str) for value in values):
        raise BuildError(f"{what} holds something that is no text")


def diff_ids(document: dict[str, Any]) -> tuple[Digest, ...]:
    """Return the digests of the uncompressed layers, bottom first."""
    rootfs = expect(document, "rootfs", dict, _WHAT) or {}
    values = expect(rootfs, "diff_ids", list, f"{_WHAT} rootfs") or []
    try:
        return tuple([Digest.parse(str(value)) for value in values])
    except CacheError as error:
        raise BuildError(f"{_WHAT}: diff_ids: {error}") from error


def history(document: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Return the history documents, oldest first."""
    entries = expect(document, "history", list, _WHAT) or []
    if not all(isinstance(entry, dict) for entry in entries):
        raise BuildError(f"{_WHAT}: an entry of 'history' is not an object")
    return tuple(entries)


def runtime_config(document: dict[str, Any]) -> dict[str, Any]:
    """Return what a container of the image starts with: Env, Cmd, User, ..."""
    return document.get("config") or {}


def encode_config(document: dict[str, Any]) -> bytes:
    """Return the canonical bytes of a config document.

    BuildKit's order: fields of the document by name, those of `config` and `history` in the order of Go's structures,
    fields that those do not know after them, maps by key.
    """
    ordered = {key: document[key] for key in sorted(document)}
    if ordered.get("config") is not None:
        ordered["config"] = _ordered(ordered["config"], _RUNTIME_KEYS)
    if ordered.get("history") is not None:
        ordered["history"] = [_ordered(entry, _HISTORY_KEYS) for entry in ordered["history"]]
    return encode_document(ordered)


def _ordered(fields: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    known = {key: fields[key] for key in keys if key in fields}
    rest = {key: fields[key] for key in sorted(fields) if key not in known}
    return {key: _sorted_map(value) for key, value in {**known, **rest}.items()}


def _sorted_map(value: Any) -> Any:
    if isinstance(value, dict) and not ("Test" in value or "Interval" in value):
        return {key: value[key] for key in sorted(value)}
    return value
