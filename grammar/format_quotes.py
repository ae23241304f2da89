"""Where white space in an instruction's text means nothing more than white space: outside quotes and escapes.

Three languages: shell text, the words of ENV, LABEL and ARG, and JSON. Where a text is too hard to follow, all of the
rest counts as quoted. It knows no lines.
"""

from __future__ import annotations

import re

BLANKS = " \t"

_CASE = re.compile(r"case\b")


def free_positions(text: str, language: str, escape: str) -> list[bool]:
    """For each position of `text`, its end included, whether a blank there is not quoted; `language` is "shell",
    "words" or "json", anything else has no free position."""
    if language == "shell":
        return _ShellReader(text).free
    if language == "words":
        return _free_outside(text, "'\"", escape)
    if language == "json":
        return _free_outside(text, '"', "\\")
    return [False] * (len(text) + 1)


def is_gap(text: str, free: list[bool], position: int) -> bool:
    """Whether `position` is within or beside blanks that are not quoted, so that more of them change nothing."""
    before = position > 0 and text[position - 1] in BLANKS and free[position - 1]
    after = position < len(text) and text[position] in BLANKS
    return free[position] and (before or after)


def collapsed(text: str, language: str, escape: str) -> str:
    """`text` with every run of blanks that are not quoted as one space."""
    free = free_positions(text, language, escape)
    kept: list[str] = []
    for position, char in enumerate(text):
        if char not in BLANKS or not free[position]:
            kept.append(char)
        elif position == 0 or text[position - 1] not in BLANKS or not free[position - 1]:
            kept.append(" ")
    return "".join(kept)


def _free_outside(text: str, quotes: str, escape: str) -> list[bool]:
    """Free outside `quotes` and not behind an escape mark, which works everywhere but in single quotes."""
    free: list[bool] = []
    quote = ""
    is_escaped = False
    for char in text:
        free.append(not quote and not is_escaped)
        if is_escaped:
            is_escaped = False
        elif char == escape and quote != "'":
            is_escaped = True
        elif quote:
            quote = "" if char == quote else quote
        elif char in quotes:
            quote = char
    return [*free, not quote and not is_escaped]


class _ShellReader:
    """Follows the quoting of POSIX shells and bash. `open` holds what is open: `'`, `"`, `{` for `${`, `(`."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.open: list[str] = []
        self.free: list[bool] = []
        position = 0
        while position < len(text):
            step = self._step(position)
            if not step:
                break
            is_free = self._is_free()
            self.free += [is_free] + [False] * (step - 1)
            self._enter(text[position : position + step])
            position += step
        rest = len(text) - position
        self.free += [False] * (rest + 1) if rest else [self._is_free() and not text.endswith("\\")]

    def _is_free(self) -> bool:
        return not self.open or self.open[-1] == "("

    def _step(self, position: int) -> int:
        """How many characters belong together at `position`; 0 where it becomes too hard to follow."""
        char = self.text[position]
        if self.open and self.open[-1] == "'":
            return 1
        following = self.text[position + 1 : position + 2]
        if char == "\\":
            return 2 if following else 1
        if char == "$" and following in ("(", "{"):
            return 2
        return 0 if self._is_hard(position, char, following) else 1

    def _is_hard(self, position: int, char: str, following: str) -> bool:
        if char == "`" or (char == "$" and following == "'"):
            return True
        if self.open and self.open[-1] == "{":
            return char in "'\""
        if not self._is_free():
            return False
        before = self.text[position - 1 : position] or " "
        if char == "#":
            return before in " \t;&|()"
        return char == "c" and bool(self.open) and not before.isalnum() and _CASE.match(self.text, position) is not None

    def _enter(self, mark: str) -> None:
        """Open or close what `mark` opens or closes."""
        top = self.open[-1] if self.open else ""
        if top == "'":
            if mark == "'":
                self.open.pop()
        elif mark in ("$(", "${"):
            self.open.append(mark[1])
        elif (mark == '"' and top == '"') or (mark == "}" and top == "{") or (mark == ")" and top == "("):
            self.open.pop()
        elif self._is_free() and mark in ("'", '"', "("):
            self.open.append(mark)
