"""Bytes of a Dockerfile -> logical lines with their places: comments, continuations, directives, heredoc bodies.

A line ends at a newline only. It knows no keyword: whether a line announces heredocs is told by the caller, who then
asks for their bodies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from grammar.characters import WHITE_SPACE, quoted, trim
from grammar.directives import BOM, MAX_LINE_SIZE, DirectiveReader, is_too_long
from grammar.errors import DockerfileError
from grammar.nodes import Heredoc
from grammar.position import Range

ESCAPES = ("\\", "`")

MAX_INSTRUCTIONS = 100_000
"""Instructions of a file: whatever is in them, they are read in seconds and kept in little memory."""


class LogicalLine(NamedTuple):
    """An instruction's text: physical lines joined at their continuations, nothing put between them."""

    text: str
    start_line: int
    end_line: int
    """Last line before any heredoc body."""
    start_column: int
    comments: tuple[str, ...]
    """Comments since the instruction before, or since the last empty comment."""
    has_blank_continuation: bool


class LineReader:
    """Reads a file once from top to bottom; `escape` may change while the directives are read."""

    def __init__(self, source: bytes, escape: str = "\\") -> None:
        self.text = source.decode("utf-8", "surrogateescape")
        self.escape = escape
        self.line = 0
        """Lines read so far: the number of the current line."""
        self.is_cut = False
        """Set where a line over the limit ended the reading."""
        self._lines = self.text.split("\n")
        if self._lines[-1] == "":
            self._lines.pop()
        self._directives = DirectiveReader()

    def logical_lines(self) -> Iterator[LogicalLine]:
        """Every instruction's line. Raises DockerfileError for a bad directive, and at the end if the reading was
        cut or nothing was found."""
        comments: list[str] = []
        found = 0
        while (line := self._next()) is not None:
            if self.line == 1:
                line = line.removeprefix(BOM)
            text = line.rstrip("\r").lstrip(WHITE_SPACE)
            if text.startswith("#"):
                if not self._take_directive(text):
                    _take_comment(line, comments)
                continue
            self._directives.done = True
            if not text:
                continue
            column = len(line) - len(line.lstrip(WHITE_SPACE)) + 1
            if found == MAX_INSTRUCTIONS:
                raise DockerfileError(f"more than {MAX_INSTRUCTIONS} instructions", range=Range(self.line, self.line))
            yield self._joined(text, column, tuple(comments))
            comments, found = [], found + 1
        self._check_end(found > 0)

    def heredoc_body(self, heredoc: Heredoc, start_line: int) -> Heredoc:
        """`heredoc` with its content: the raw lines up to the one that is its name."""
        first = self.line
        while (line := self._next()) is not None:
            candidate = line.rstrip("\r")
            if (candidate.lstrip("\t") if heredoc.chomp else candidate) == heredoc.name:
                body = self._lines[first : self.line - 1]
                return heredoc._replace(content="".join(f"{text}\n" for text in body))
        raise DockerfileError(
            f"unterminated heredoc, expected a line with only {quoted(heredoc.name)}",
            subject=heredoc.name,
            range=Range(start_line, max(self.line, start_line)),
        )

    def _next(self) -> str | None:
        """The next physical line without its newline, or None at the end or at a line that is too long."""
        if self.line >= len(self._lines) or self.is_cut:
            return None
        line = self._lines[self.line]
        if is_too_long(line):
            self.is_cut = True
            return None
        self.line += 1
        return line

    def _take_directive(self, text: str) -> bool:
        directive = self._directives.take(text)
        if directive is None:
            return False
        if directive.name == "escape":
            if directive.value not in ESCAPES:
                place = Range(self.line, self.line, 1, len(text))
                error = DockerfileError(
                    f"escape token {quoted(directive.value)} is not known, expected a backslash or a backtick",
                    range=place,
                )
                error.reported_line = self.line - 1
                raise error
            self.escape = directive.value
        return True

    def _joined(self, text: str, column: int, comments: tuple[str, ...]) -> LogicalLine:
        """The logical line that starts with `text`, the current physical line."""
        start_line = self.line
        kept, continues = cut_continuation(text, self.escape)
        parts = [kept]
        has_blank = False
        while continues and (line := self._next()) is not None:
            line = line.rstrip("\r")
            stripped = line.lstrip(WHITE_SPACE)
            if stripped.startswith("#"):
                continue
            if not stripped:
                has_blank = True
                continue
            kept, continues = cut_continuation(line, self.escape)
            parts.append(kept)
        return LogicalLine("".join(parts), start_line, self.line, column, comments, has_blank)

    def _check_end(self, found: bool) -> None:
        place = Range(self.line, self.line)
        if not found:
            raise DockerfileError("file with no instructions", range=place)
        if self.is_cut:
            error = DockerfileError(
                f"line {self.line + 1} is longer than {MAX_LINE_SIZE} bytes", range=Range(self.line + 1, self.line + 1)
            )
            error.reported_line = self.line
            raise error


def cut_continuation(line: str, escape: str) -> tuple[str, bool]:
    """`line` up to its continuation, and whether it has one: the escape token, not doubled, at the line's end."""
    text = line.rstrip(" \t")
    if text.endswith(escape) and not text.endswith(escape * 2):
        return text[:-1], True
    return line, False


def _take_comment(line: str, comments: list[str]) -> None:
    """Keep a comment's text; an empty comment forgets those before it."""
    comment = trim(line[1:] if line[0].isascii() else _without_first_byte(line))
    if comment:
        comments.append(comment)
    else:
        comments.clear()


def _without_first_byte(line: str) -> str:
    """`line` cut where byte-oriented readers cut it, which may be inside a white-space character."""
    return line.encode("utf-8", "surrogateescape")[1:].decode("utf-8", "surrogateescape")
