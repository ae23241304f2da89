"""A small language for a place in a JSON document: `.Config.Env[0]`, `.Layers[*].Digest`, `.Config.Labels["a.b"]`.

A path is `.` (all of it), or steps one after the other: `.NAME` and `["NAME"]` a member, `[N]` an item (from the end
when negative), `[*]` every item or every member's value, after which each is followed on its own. Names that the
document does not have are compared without regard to case, if that is not ambiguous.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from builder.errors import BuildError, UsageError
from cache.namedtuple import NamedTuple

_STEP = re.compile(
    r'\.(?P<name>[A-Za-z0-9_-]+)|\.?\[(?P<index>-?[0-9]{1,9})\]|\.?\[(?P<all>\*)\]|\.?\[(?P<text>"(?:[^"\\]|\\.)*")\]'
)


class Step(NamedTuple):
    """One step: the name of a member, the number of an item, or None for all; and the path up to its end."""

    key: str | int | None
    path: str


def parse_path(text: str) -> tuple[Step, ...]:
    """Return the steps of a path. UsageError for what is none."""
    if text == ".":
        return ()
    if "{{" in text:
        hint = "write .Config.Env[0] for {{index .Config.Env 0}}, .Id for {{.Id}}"
        raise UsageError(f'"{text}" is a template, expected a path', hint=hint)
    steps: list[Step] = []
    end = 0
    while end < len(text) or not steps:
        match = _STEP.match(text, end)
        if match is None or (not steps and not text.startswith(".")):
            hint = 'a path is like .Config.Env[0], .Layers[*].Digest or .Config.Labels["a.b"]'
            raise UsageError(f'"{text}" is no path: "{text[end:]}" is not understood', hint=hint)
        end = match.end()
        steps.append(Step(_key(match), text[:end]))
    return tuple(steps)


def _key(match: re.Match[str]) -> str | int | None:
    if match["all"]:
        return None
    if match["index"]:
        return int(match["index"])
    if match["name"]:
        return match["name"]
    try:
        return str(json.loads(match["text"]))
    except ValueError as error:
        raise UsageError(f"{match['text']} is not a JSON string") from error


def follow(document: Any, steps: Sequence[Step]) -> list[Any]:
    """Return what the steps lead to: one value, or with `[*]` any number. BuildError for what is not there."""
    values = [document]
    before = "."
    for step in steps:
        values = [each for value in values for each in _take(value, step, before)]
        before = step.path
    return values


def _take(value: Any, step: Step, before: str) -> list[Any]:
    if step.key is None:
        if isinstance(value, dict):
            return list(value.values())
        if isinstance(value, list):
            return value
        raise BuildError(f"{step.path}: {before} is {_kind(value)}, expected an array or an object")
    if isinstance(step.key, int):
        if not isinstance(value, list):
            raise BuildError(f"{step.path}: {before} is {_kind(value)}, expected an array")
        if not -len(value) <= step.key < len(value):
            raise BuildError(f"{step.path} is not there: {before} has {len(value)} items")
        return [value[step.key]]
    if not isinstance(value, dict):
        raise BuildError(f"{step.path}: {before} is {_kind(value)}, expected an object")
    return [value[_member(value, step, before)]]


def _member(value: dict[str, Any], step: Step, before: str) -> str:
    assert isinstance(step.key, str)
    if step.key in value:
        return step.key
    alike = [name for name in value if name.lower() == step.key.lower()]
    if len(alike) == 1:
        return alike[0]
    raise BuildError(f"{step.path} is not there", hint=_suggestion(value, step.key, before))


def _suggestion(value: dict[str, Any], key: str, before: str) -> str:
    import difflib

    lowered = {name.lower(): name for name in value}
    near = difflib.get_close_matches(key.lower(), lowered, 1)
    if near:
        return f"did you mean {join(before, lowered[near[0]])}?"
    return f"{before} has {', '.join(value)}" if value else f"{before} is empty"


def join(before: str, name: str) -> str:
    """Return the path of a member of what `before` leads to."""
    start = "" if before == "." else before
    plain = re.fullmatch(r"[A-Za-z0-9_-]+", name)
    return f"{start}.{name}" if plain else f"{start or '.'}[{json.dumps(name)}]"


def show(value: Any) -> str:
    """Return a value as a line: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
