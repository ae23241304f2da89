"""The unbroken run of `# name=value` comments at the very top of a file, and which front end the file asks for.

The line reader and the detector of `syntax` disagree on purpose: the detector also takes `// syntax=`, a JSON object,
and skips a `#!` line. It knows nothing of the lines below the directives.
"""

from __future__ import annotations

import json
import re

from grammar.characters import WHITE_SPACE, to_lower
from grammar.errors import DockerfileError
from grammar.nodes import Directive, Syntax
from grammar.position import Range

MAX_LINE_SIZE = 65535
"""Bytes of a physical line without its newline; a longer one ends every reader."""

BOM = "\ufeff"

_KNOWN = frozenset(("syntax", "escape", "check"))
_DIRECTIVE = re.compile(r"([a-zA-Z][a-zA-Z0-9]*)[\t\n\f\r ]*=[\t\n\f\r ]*(.+?)[\t\n\f\r ]*\Z")


class DirectiveReader:
    """Takes a file's lines one by one until the run of directives ends."""

    def __init__(self, comment: str = "#", first_line: int = 1) -> None:
        self.comment = comment
        self.line = first_line
        self.done = False
        self.seen: set[str] = set()

    def take(self, line: str) -> Directive | None:
        """The directive in `line`, else None, and then no later line holds one. Raises for a repeated name."""
        number, self.line = self.line, self.line + 1
        if self.done:
            return None
        match = None
        if line.startswith(self.comment):
            match = _DIRECTIVE.match(line[len(self.comment) :].lstrip(WHITE_SPACE))
        name = to_lower(match[1]) if match else ""
        if match is None or name not in _KNOWN:
            self.done = True
            return None
        if name in self.seen:
            error = DockerfileError(
                f"directive {name} is repeated, expected it once", range=Range(number, number, 1, len(line))
            )
            error.reported_line = number - 1
            raise error
        self.seen.add(name)
        return Directive(name, match[2], number)


def is_too_long(line: str) -> bool:
    """Whether a physical line, without its newline, passes the limit in bytes."""
    if len(line) * 4 <= MAX_LINE_SIZE or (line.isascii() and len(line) <= MAX_LINE_SIZE):
        return False
    return len(line.encode("utf-8", "surrogateescape")) > MAX_LINE_SIZE


def read_directives(source: bytes) -> tuple[tuple[Directive, ...], DockerfileError | None]:
    """The directives that start in column 1, and the error that ended them, if one did."""
    text = source.decode("utf-8", "surrogateescape").removeprefix(BOM)
    return _read(DirectiveReader(), text)


def _read(reader: DirectiveReader, text: str) -> tuple[tuple[Directive, ...], DockerfileError | None]:
    found: list[Directive] = []
    try:
        for line in _lines(text):
            directive = reader.take(line)
            if reader.done:
                break
            if directive is not None:
                found.append(directive)
    except DockerfileError as error:
        return tuple(found), error
    return tuple(found), None


def _lines(text: str) -> list[str]:
    """The first physical lines: as many as can be directives, and one more."""
    lines: list[str] = []
    for line in text.split("\n", len(_KNOWN) + 2)[: len(_KNOWN) + 2]:
        if is_too_long(line):
            break
        lines.append(line.removesuffix("\r"))
    return lines


def find_directive(source: bytes, name: str, comment: str = "#") -> Directive | None:
    """The directive of this name, after an optional `#!` line, which the line reader does not skip."""
    text, skipped = _without_interpreter(source)
    found = _read(DirectiveReader(comment, skipped + 1), text)[0]
    return next((directive for directive in found if directive.name == name), None)


def detect_syntax(source: bytes) -> Syntax | None:
    """The front end named by `# syntax=`, `// syntax=` or `{"syntax": ...}`, after an optional `#!` line."""
    for comment in ("#", "//"):
        directive = find_directive(source, "syntax", comment)
        if directive is not None:
            return Syntax(directive.value.partition(" ")[0], directive.value, directive.line)
    return _syntax_in_json(*_without_interpreter(source))


def _without_interpreter(source: bytes) -> tuple[str, int]:
    """The text without a `#!` line, and the number of lines left out."""
    text = source.decode("utf-8", "surrogateescape").removeprefix(BOM)
    return (text.partition("\n")[2], 1) if text.startswith("#!") else (text, 0)


def _syntax_in_json(text: str, line: int) -> Syntax | None:
    if not text.lstrip(" \t\r\n").startswith("{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    ref = value.get("syntax")
    return Syntax(ref, ref, line) if isinstance(ref, str) else None
