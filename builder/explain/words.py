"""Differences as a user reads them. Pure; everything that is shown is one line, and short."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from builder.explain.difference import Difference
from builder.streams import visible

_LONGEST = 72
_SHOWN = 5


def sentence(difference: Difference) -> str:
    """One difference, as `src/main.c changed (content)` or `build arg VERSION was 1, is now 2`."""
    special = _SPECIAL.get(difference.kind)
    if special is not None:
        return special(difference)
    name = _NAMES.get(difference.kind, difference.kind).format(shown(difference.subject))
    return f"{name} {_was_now(difference.was, difference.now)}"


def sentences(differences: Sequence[Difference], *, most: int = _SHOWN) -> list[str]:
    """The first differences, and how many more there are."""
    found = [sentence(each) for each in differences[:most]]
    more = len(differences) - len(found)
    return [*found, f"and {more} more"] if more else found


def place(file: str, lines: Sequence[int]) -> str:
    """` (Dockerfile:4-6)`, empty for no place."""
    if not lines:
        return ""
    start, end = lines
    return f" ({file}:{start})" if start == end else f" ({file}:{start}-{end})"


def shown(text: str) -> str:
    """Text on one line, cut when it is long; what a terminal would obey is escaped."""
    line = " ".join(text.split())
    line = visible(line)
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def _base(difference: Difference) -> str:
    if difference.subject:
        return (
            f"base image {shown(difference.subject)}: digest {_was_now(_short(difference.was), _short(difference.now))}"
        )
    return f"base image {_was_now(difference.was, difference.now)}"


def _script(difference: Difference) -> str:
    was, now = (repr(shown((text or "").strip())) for text in (difference.was, difference.now))
    return f"line {difference.subject} of its script was {was}, is now {now}"


def _input(difference: Difference) -> str:
    return f"it {_was_now(difference.was, difference.now, 'came after', 'now comes after', none='nothing')}"


def _file(difference: Difference) -> str:
    path = shown(difference.subject)
    if difference.details == ("renamed",):
        return f"{shown(difference.was or '')} renamed to {path}"
    if difference.details in (("added",), ("removed",)):
        return f"{path} {difference.details[0]}"
    return f"{path} changed ({', '.join(difference.details)})"


def _variable(difference: Difference) -> str:
    if difference.details == ("order",):
        return "environment variables are in another order"
    name = f"{'build arg' if difference.kind == 'arg' else 'env'} {shown(difference.subject)}"
    if difference.was is None and difference.now is None:
        return f"{name} {difference.details[0] if difference.details else 'changed'}"
    return f"{name} {_was_now(difference.was, difference.now, none='not set')}"


def _was_now(
    was: str | None, now: str | None, before: str = "was", after: str = "is now", *, none: str = "not given"
) -> str:
    values = [none if value is None else shown(value) or '""' for value in (was, now)]
    return f"{before} {values[0]}, {after} {values[1]}"


def _short(digest: str | None) -> str | None:
    if digest is None or len(digest) < 20:
        return digest
    return f"{digest[:12]}…"


_NAMES = {"workdir": "working directory", "mount": "mount {}", "option": "option {}", "source": "{}"}
_SPECIAL: Mapping[str, Callable[[Difference], str]] = {
    "file": _file,
    "files": lambda each: f"files of {shown(each.subject) or 'the context'} changed (which ones is not known any more)",
    "arg": _variable,
    "env": _variable,
    "base": _base,
    "instruction": lambda each: f"the instruction was {shown(each.was or '')}",
    "script": _script,
    "document": lambda _: "the text of its heredoc changed",
    "secret": lambda each: f"secret {shown(each.subject)} changed",
    "input": _input,
}
