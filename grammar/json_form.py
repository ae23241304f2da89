"""The JSON form of arguments: a list of strings, decoded; and whether a text is JSON of any other kind.

Text that is no JSON at all is shell form and not this module's business.
"""

from __future__ import annotations

import json
import re

from grammar.characters import replace_undecodable

MAX_DEPTH = 10000
"""Lists nested deeper are not taken for JSON."""

_TOKEN = re.compile(
    r"""[ \t\r\n]*+(?:(?P<mark>[\[\]{},:])
    |(?P<string>"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+")
    |(?P<number>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?)
    |(?P<word>true|false|null))""",
    re.VERBOSE,
)
_AFTER_VALUE = {"[": ",]", "{": ",}"}


def decode_strings(text: str) -> tuple[str, ...]:
    """The strings of a JSON list of strings; bytes and escapes that are no character become U+FFFD."""
    return tuple(replace_undecodable(string) for string in json.loads(text))


def is_json_list(text: str) -> bool:
    """Whether `text` is one valid JSON list with anything in it. Works without recursion."""
    text = text.rstrip(" \t\r\n")
    if not text.startswith("["):
        return False
    expected, nesting, position = "value", [""], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or (match["number"] and float(match["number"]) in (float("inf"), float("-inf"))):
            return False
        mark = match["mark"] or ("key" if expected.startswith("key") and match["string"] else "value")
        step = _step(mark, expected, nesting)
        if step is None:
            return False
        expected, position = step, match.end()
    return expected == "end"


def _step(mark: str, expected: str, nesting: list[str]) -> str | None:
    """What may follow `mark`, or None if it was not expected; keeps `nesting`, the open brackets."""
    if mark in "[{" and "value" in expected and len(nesting) <= MAX_DEPTH:
        nesting.append(mark)
        return "value]" if mark == "[" else "key}"
    if mark in "]}" and expected.endswith(mark):
        nesting.pop()
    elif mark == "," and expected.startswith(","):
        return "value" if nesting[-1] == "[" else "key"
    elif mark == ":" and expected == ":":
        return "value"
    elif mark == "key":
        return ":"
    elif mark != "value" or "value" not in expected:
        return None
    return _AFTER_VALUE.get(nesting[-1], "end")
