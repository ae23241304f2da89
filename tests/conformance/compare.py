"""Comparing results with golden values: the first difference, in words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from grammar.errors import DockerfileError

Case = dict[str, Any]


def difference(expected: Any, got: Any, where: str = "") -> str | None:
    """The first place where two JSON values differ, None if they do not; long values are compared by hash."""
    if isinstance(expected, dict) and "$long" in expected:
        return _by_hash(expected["$long"], got, where, isinstance(got, str), text_bytes)
    if isinstance(expected, dict) and "$longlist" in expected:
        return _by_hash(expected["$longlist"], got, where, isinstance(got, list), _list_bytes)
    if isinstance(expected, dict) and isinstance(got, dict):
        for key in expected:
            value = got.get(key, "(missing)")
            if key.endswith("_error") and (expected[key] is None) == (value is None):
                continue
            found = difference(expected[key], value, f"{where}.{key}")
            if found:
                return found
        return None
    if isinstance(expected, list) and isinstance(got, list):
        for index, (left, right) in enumerate(zip(expected, got, strict=False)):
            found = difference(left, right, f"{where}[{index}]")
            if found:
                return found
        same = len(expected) == len(got)
        return None if same else f"{where}: {len(got)} items, expected {len(expected)}"
    same = expected == got and isinstance(expected, bool) == isinstance(got, bool)
    return None if same else f"{where}: got {got!a:.200}, expected {expected!a:.200}"


def _by_hash(short: Case, got: Any, where: str, fits: bool, encode: Callable[[Any], bytes]) -> str | None:
    if fits and hashlib.sha256(encode(got)).hexdigest() == short["sha256"]:
        return None
    return f"{where}: a long value differs, got {got!a:.100}"


def text_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _list_bytes(values: list[Any]) -> bytes:
    return json.dumps(values, ensure_ascii=True, separators=(",", ":"), sort_keys=True).encode()


def attempt(function: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, DockerfileError | None]:
    """What `function` returns, or the error it refuses with."""
    try:
        return function(*args, **options), None
    except DockerfileError as error:
        return None, error


def refusal(expected: str | None, error: DockerfileError | None, where: str) -> str | None:
    """The difference in the decision alone."""
    if (expected is None) == (error is None):
        return None
    return f"{where}: got {error.message if error else 'no error'!a}, expected {expected!a:.200}"
