"""A pattern of an ignore file -> a matcher, by way of the regular expression that moby makes of it.

The expression is built without regard to brackets, so `[*]` means something odd; that is kept. It is written for
Go's engine, which never backtracks: classes are translated, and an expression with many stars runs on a set of
positions instead of Python's engine, so no path can make a match slow.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import comb
from typing import NamedTuple

from grammar.characters import replace_undecodable

MAX_TRIES = 10**6
"""Ways to spread the stars of a pattern over a path; with more, Python's engine may take too long."""

_ESCAPED_LITERALS = frozenset(".+()$")
"""moby means to escape `|`, `{` and `}` as well, but its table has no room for them: they keep their meaning."""
_ANY_DIRECTORIES = "(.*/)?"
_PERL_CLASSES = {
    "d": "0-9",
    "D": "\\x00-/:-\U0010ffff",
    "s": "\\t\\n\\x0c\\r ",
    "S": "\\x00-\\x08\\x0b\\x0e-\\x1f!-\U0010ffff",
    "w": "0-9A-Za-z_",
    "W": "\\x00-/:-@\\[-\\^`{-\U0010ffff",
}
_POSIX_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": "\\x00-\\x7f",
    "blank": "\\t ",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": "\\t\\n\\x0b\\x0c\\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_CONTROLS = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ASSERTIONS = {"A": r"\A", "z": r"\Z", "b": r"(?a:\b)", "B": r"(?a:\B)"}
_POSIX = re.compile(r"\[:(\^?)(\w+):\]")
_HEX = re.compile(r"([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,6})\}")
_COUNT = re.compile(r"\{(0|[1-9][0-9]*)(,(0|[1-9][0-9]*)?)?\}")
_MAX_COUNT = 1000
_MAX_STATES = 1 << 14
_OCTAL = re.compile("[0-7]{0,2}")
_LONG_OCTAL = re.compile("[0-7]{1,2}")


class BadPatternError(ValueError):
    """Go's engine would refuse the expression."""


class Atom(NamedTuple):
    """One step of an expression in Python's syntax; `kind` is "one", "many", "repeated", "assertion" or "directories".

    What is repeated is so from `low` to `high` times; None is any number."""

    kind: str
    text: str
    low: int = 1
    high: int | None = 1


def go_expression(pattern: str) -> str:
    """The expression that moby builds for `pattern`, without its anchors."""
    parts: list[str] = []
    text = replace_undecodable(pattern).removeprefix("\ufeff")
    position = 0
    while position < len(text):
        char = text[position]
        position += 1
        if char == "*" and text.startswith("*", position):
            position += 2 if text.startswith("/", position + 1) else 1
            parts.append(_ANY_DIRECTORIES if position < len(text) else ".*")
        elif char == "\\":
            parts.append("\\" + text[position : position + 1])
            position += 1
        else:
            parts.append(_TRANSLATED.get(char, "\\" + char if char in _ESCAPED_LITERALS else char))
    return "".join(parts)


_TRANSLATED = {"*": "[^/]*", "?": "[^/]"}


def compile_go(expression: str) -> Callable[[str], bool]:
    """A test for whole paths. Raises BadPatternError."""
    alternatives = [*map(_one_of, _padded(_Translator(expression)))]
    return alternatives[0] if len(alternatives) == 1 else lambda path: any(test(path) for test in alternatives)


def _padded(translator: _Translator) -> list[list[Atom]]:
    """The expression's anchors belong to its first and its last alternative: where one has none, anything may be."""
    anything = [Atom("many", r"[\s\S]*")]
    alternatives = translator.alternatives()
    last = len(alternatives) - 1
    return [
        (anything if index or translator.is_open_start else [])
        + atoms
        + (anything if index < last or translator.is_open_end else [])
        for index, atoms in enumerate(alternatives)
    ]


def _one_of(atoms: list[Atom]) -> Callable[[str], bool]:
    stars = sum(atom.kind in ("many", "directories", "repeated") for atom in atoms)
    full_match = re.compile("".join(_python(atom) for atom in atoms)).fullmatch
    is_repeated = any(atom.kind == "repeated" for atom in atoms)
    if (stars < 2 and not is_repeated) or any(atom.kind == "assertion" for atom in atoms):
        return lambda path: full_match(replace_undecodable(path)) is not None
    positions = _PositionSet(atoms)

    def matches(path: str) -> bool:
        if is_repeated or comb(len(path), stars) > MAX_TRIES:
            return positions.matches(path)
        return full_match(replace_undecodable(path)) is not None

    return matches


def _python(atom: Atom) -> str:
    if atom.kind == "repeated":
        return f"{atom.text}{{{atom.low},{'' if atom.high is None else atom.high}}}"
    return "(?:.*/)?" if atom.kind == "directories" else atom.text


class _Translator:
    """Reads Go's syntax, as far as a pattern can produce it."""

    def __init__(self, expression: str) -> None:
        self.text = expression
        self.position = 0
        self.is_open_start = False
        """Whether a count has made the anchor in front optional."""
        self.is_open_end = False
        """Whether a last backslash has made a plain character of the anchor behind."""

    def alternatives(self) -> list[list[Atom]]:
        """What stands between bars; what a count may repeat is there from the start, the anchor of the whole."""
        found: list[list[Atom]] = [[]]
        is_repeatable = True
        while self.position < len(self.text):
            if self.take("|"):
                found.append([])
                is_repeatable = False
                continue
            if (count := self.count()) is not None:
                if not is_repeatable:
                    raise BadPatternError("a count has nothing to repeat")
                found[-1][-1:] = [_counted(atom, *count) for atom in found[-1][-1:]]
                self.is_open_start |= not found[0] and count[0] == 0
                is_repeatable = False
                continue
            found[-1].append(self.atom())
            is_repeatable = found[-1][-1].kind not in ("many", "directories")
        repeated = (atom for atoms in found for atom in atoms if atom.kind == "repeated")
        if sum(atom.high or atom.low for atom in repeated) > _MAX_STATES:
            raise BadPatternError("counts are too large")
        return found

    def atom(self) -> Atom:
        if self.take(_ANY_DIRECTORIES):
            return Atom("directories", "")
        return Atom("assertion", r"\A") if self.take("^") else self.repeated()

    def count(self) -> tuple[int, int | None] | None:
        """`{2}`, `{2,}` or `{2,4}`; braces around anything else are plain characters."""
        match = _COUNT.match(self.text, self.position)
        if match is None:
            return None
        self.position = match.end()
        low = int(match[1][:5])
        high = low if match[2] is None else int(match[3][:5]) if match[3] else None
        if low > _MAX_COUNT or (high is not None and not low <= high <= _MAX_COUNT):
            raise BadPatternError(f"count {match[0]} is not in order")
        return low, high

    def take(self, text: str) -> bool:
        if not self.text.startswith(text, self.position):
            return False
        self.position += len(text)
        return True

    def next(self) -> str:
        if self.position >= len(self.text):
            raise BadPatternError("expression ends too early")
        self.position += 1
        return self.text[self.position - 1]

    def repeated(self) -> Atom:
        char = self.next()
        if char == "[":
            text = self.char_class()
        elif char == "\\" and self.position == len(self.text):
            self.is_open_end, text = True, r"\$"
        elif char == "\\":
            name = self.next()
            if name in _ASSERTIONS:
                return Atom("assertion", _ASSERTIONS[name])
            text = f"[{_PERL_CLASSES[name]}]" if name in _PERL_CLASSES else re.escape(self.escaped(name))
        elif char in "*+?()":
            raise BadPatternError(f"{char} has nothing to repeat")
        else:
            text = char if char == "." else re.escape(char)
        if self.take("*"):
            return Atom("many", text + "*")
        return Atom("one", text)

    def escaped(self, name: str) -> str:
        """The character that a backslash and `name` stand for."""
        if name in _CONTROLS:
            return _CONTROLS[name]
        if name.isascii() and not name.isalnum():
            return name
        match = None
        if name == "x":
            match = _HEX.match(self.text, self.position)
            digits, base = (match[1] or match[2], 16) if match else ("", 16)
        else:
            match = (_OCTAL if name == "0" else _LONG_OCTAL).match(self.text, self.position)
            digits, base = (name + match[0], 8) if match and name in "01234567" else ("", 8)
        if not match or not digits or int(digits, base) > 0x10FFFF:
            raise BadPatternError(f"escape \\{name} is not known")
        self.position = match.end()
        return chr(int(digits, base))

    def char_class(self) -> str:
        """A bracket expression behind its `[`."""
        start = "[^" if self.take("^") else "["
        parts: list[str] = []
        while not parts or not self.take("]"):
            parts.append(self.class_part())
        return start + "".join(parts) + "]"

    def class_part(self) -> str:
        posix = _POSIX.match(self.text, self.position)
        if posix:
            if posix[1] or posix[2] not in _POSIX_CLASSES:
                raise BadPatternError(f"class {posix[0]} is not known")
            self.position = posix.end()
            return _POSIX_CLASSES[posix[2]]
        low = self.class_char()
        if low in _PERL_CLASSES.values():
            return low
        following = self.text[self.position : self.position + 2]
        if not following.startswith("-") or following in ("-", "-]"):
            return _class_literal(low)
        self.position += 1
        high = self.class_char()
        if len(high) != 1 or high < low:
            raise BadPatternError(f"range {low}-{high} is not in order")
        return f"{_class_literal(low)}-{_class_literal(high)}"

    def class_char(self) -> str:
        char = self.next()
        if char != "\\":
            return char
        name = self.next()
        return _PERL_CLASSES[name] if name in _PERL_CLASSES else self.escaped(name)


def _counted(atom: Atom, low: int, high: int | None) -> Atom:
    """The atom so many times; an assertion holds as often as it is asked, if it is asked at all."""
    if atom.kind == "assertion":
        return atom if low else Atom("assertion", "")
    return Atom("repeated", atom.text, low, high)


def _class_literal(char: str) -> str:
    return f"\\x{ord(char):02x}" if ord(char) < 0x80 else char


class _PositionSet:
    """Matches by keeping, as bits, the states that may come next: linear in the path, whatever the pattern."""

    def __init__(self, atoms: list[Atom]) -> None:
        self.states = [state for atom in atoms for state in _states(atom)]
        self.tests = [re.compile(_one_character(state)).fullmatch for state in self.states]
        self.final = 1 << len(self.states)
        self.steps: dict[str, tuple[int, int]] = {}

    def matches(self, path: str) -> bool:
        active = self._with_skips(1)
        for char in replace_undecodable(path):
            moving, staying = self.steps.get(char) or self._step(char)
            active = self._with_skips(active & staying | (active & moving) << 1)
            if not active:
                return False
        return bool(active & self.final)

    def _with_skips(self, active: int) -> int:
        """`active` with the states that are reached without a character."""
        for index, state in enumerate(self.states):
            if active >> index & 1:
                if state.kind in ("many", "enter", "optional"):
                    active |= 1 << index + 1
                if state.kind == "enter":
                    active |= 1 << index + 2
        return active

    def _step(self, char: str) -> tuple[int, int]:
        """The states that move on with `char`, and those that stay."""
        moving = staying = 0
        for index, state in enumerate(self.states):
            fits = self.tests[index](char) is not None
            moving |= (
                (fits and state.kind in ("one", "optional")) or (state.kind == "inside" and char == "/")
            ) << index
            staying |= (fits and state.kind in ("many", "inside")) << index
        self.steps[char] = moving, staying
        return moving, staying


def _one_character(state: Atom) -> str:
    """The expression of one character that the state takes."""
    return state.text.removesuffix("*") if state.kind in ("many", "inside") else state.text


def _states(atom: Atom) -> list[Atom]:
    """Optional directories are entered or skipped, and once entered left by a slash only."""
    if atom.kind == "repeated":
        more = [Atom("many", atom.text + "*")] if atom.high is None else []
        optional = (atom.high or atom.low) - atom.low
        return [Atom("one", atom.text)] * atom.low + [Atom("optional", atom.text)] * optional + more
    return [Atom("enter", "."), Atom("inside", ".*")] if atom.kind == "directories" else [atom]
