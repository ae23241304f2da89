"""Patterns inside `${name#pattern}`, `%` and `/`: how a value is trimmed or replaced.

A pattern knows `*`, `?` and a backslash before `*`, `?`, `\\`, `}` or `/`; brackets are literal. No star crosses a line
end. Values may be hostile: every star but the last is atomic, so matching does not backtrack. It knows nothing of
words and variables.
"""

from __future__ import annotations

import re

from grammar.characters import quoted, replace_undecodable
from grammar.errors import DockerfileError


def trim_prefix(value: str, pattern: str, *, greedy: bool) -> str:
    """`value` without the shortest, or the longest (`greedy`), start that `pattern` matches."""
    match = _compile(pattern, greedy).match(value)
    return value[match.end() :] if match else value


def trim_suffix(value: str, pattern: str, *, greedy: bool) -> str:
    """As `trim_prefix` at the end: both strings are reversed, since a search runs forward only."""
    return trim_prefix(value[::-1], _reversed(pattern), greedy=greedy)[::-1]


def replace_first(value: str, pattern: str, replacement: str) -> str:
    """`value` with the first match replaced; `replacement` is plain text."""
    match = _compile(pattern, True).search(value)
    return value[: match.start()] + replacement + value[match.end() :] if match else value


def replace_all(value: str, pattern: str, template: str) -> str:
    """`value` with every match replaced; `$0` in `template` is the match, any other `$name` is empty, `$$` a dollar."""
    result, copied = [], 0
    for match in _compile(pattern, True).finditer(value):
        start, end = match.span()
        if start == end == copied and start > 0:
            continue
        result += [value[copied:start], _expand_template(template, match.group())]
        copied = end
    return "".join(result) + value[copied:]


_GROUP = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)\})")


def _expand_template(template: str, matched: str) -> str:
    def group(reference: re.Match[str]) -> str:
        if reference[1]:
            return "$"
        return matched if (reference[2] or reference[3]) == "0" else ""

    return _GROUP.sub(group, template) if "$" in template else template


def _compile(pattern: str, greedy: bool) -> re.Pattern[str]:
    """A regular expression for `pattern`. The earliest place for each piece between stars leaves the most room for
    the rest, so those stars never need a second try; only the last one differs between shortest and longest."""
    pieces = _pieces(pattern)
    expression = pieces[0]
    for index, piece in enumerate(pieces[1:], start=2):
        star = ".*" if greedy and index == len(pieces) else ".*?"
        expression += f"(?>{star}{piece})"
    return re.compile(expression)


def _pieces(pattern: str) -> list[str]:
    """Regular expressions of the parts between stars."""
    pieces = [""]
    chars = iter(replace_undecodable(pattern).removeprefix("\ufeff"))
    for char in chars:
        if char == "*":
            pieces.append("")
        elif char == "?":
            pieces[-1] += "."
        elif char == "\\":
            pieces[-1] += re.escape(_escaped(next(chars, ""), pattern))
        else:
            pieces[-1] += re.escape(char)
    return pieces


def _escaped(char: str, pattern: str) -> str:
    if char in ("*", "?", "\\", "}", "/"):
        return char
    raise DockerfileError(f"pattern {quoted(pattern)} has an invalid escape {quoted(chr(92) + char)}")


def _reversed(pattern: str) -> str:
    """`pattern` read backwards, with each backslash still before the character it escapes."""
    return "".join(reversed(re.findall(r"\\.|.", pattern, re.DOTALL)))
