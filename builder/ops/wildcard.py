r"""Wildcards in COPY sources: `*`, `?`, `[a-z]`, `[^x]` and `\` inside one path component (Go's filepath.Match)."""

from __future__ import annotations

from collections.abc import Callable

from builder.errors import BuildError


def has_wildcard(name: str) -> bool:
    """Whether a component holds `*`, `?` or `[` that no backslash takes the meaning from."""
    escaped = False
    for char in name:
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char in "*?[":
            return True
    return False


def component_matcher(pattern: str) -> Callable[[str], bool]:
    """A predicate on names for one component; BuildError for a pattern that is malformed."""
    import re

    compiled = re.compile(_expression(pattern), re.DOTALL)
    return lambda name: compiled.fullmatch(name) is not None


def path_matcher(pattern: str) -> Callable[[str], bool]:
    """A predicate on relative paths of as many components as the pattern has; BuildError if it is malformed."""
    matchers = [component_matcher(part) for part in pattern.split("/")]

    def matches(path: str) -> bool:
        names = path.split("/")
        return len(names) == len(matchers) and all(map(_call, matchers, names))

    return matches


def _call(matches: Callable[[str], bool], name: str) -> bool:
    return matches(name)


def _expression(pattern: str) -> str:
    import re

    parts, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            parts.append(".*")
        elif char == "?":
            parts.append(".")
        elif char == "[":
            text, at = _class(pattern, at)
            parts.append(text)
        else:
            if char == "\\":
                char, at = _escaped(pattern, at)
            parts.append(re.escape(char))
    return "".join(parts)


def _class(pattern: str, at: int) -> tuple[str, int]:
    """The regular expression of the class that begins at `at`, after its bracket, and where it ends."""
    import re

    negated = pattern.startswith("^", at)
    at += negated
    ranges, count = "", 0
    while not (count and pattern.startswith("]", at)):
        low, at = _bound(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _bound(pattern, at + 1)
        ranges += f"{re.escape(low)}-{re.escape(high)}" if low <= high else ""
        count += 1
    if not ranges:
        return "." if negated else "(?!)", at + 1
    return f"[{'^' if negated else ''}{ranges}]", at + 1


def _bound(pattern: str, at: int) -> tuple[str, int]:
    if at >= len(pattern) or pattern[at] in "-]":
        raise _malformed(pattern)
    if pattern[at] == "\\":
        return _escaped(pattern, at + 1)
    return pattern[at], at + 1


def _escaped(pattern: str, at: int) -> tuple[str, int]:
    if at >= len(pattern):
        raise _malformed(pattern)
    return pattern[at], at + 1


def _malformed(pattern: str) -> BuildError:
    return BuildError(f'"{pattern}": syntax error in pattern', hint=r"write \[ for a bracket that means itself")
