"""What is wrong with a Dockerfile, where, and what to try instead.

An error can be raised by code that sees one word only; `located` adds the place on the way out. It does not know
who prints it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from grammar.characters import WHITE_SPACE, trim
from grammar.position import Range

MAX_ERRORS = 10
"""A file with more than these is not read on: whatever it is, it is no Dockerfile."""

EXCERPT_LINES = 6
"""An excerpt longer than this is cut in the middle."""
EXCERPT_WIDTH = 200


class DockerfileError(Exception):
    """A Dockerfile, or a word, pattern, reference or value in one, that cannot be understood."""

    def __init__(self, message: str, *, range: Range | None = None, hint: str | None = None, subject: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.range = range
        self.hint = hint
        self.subject = subject
        """The user's text that is wrong, as it stands in the file: where it is found, the caret goes."""
        self.filename = "Dockerfile"
        self.source = ""
        """Text of the whole file, for the excerpt; empty if the error did not come from a file."""
        self.reported_line: int | None = None
        """The line other tools report, where that is not the true one (a bad parser directive, a line too long)."""
        self.others: tuple[DockerfileError, ...] = ()
        """What is wrong besides, in other instructions of the same file."""

    def __str__(self) -> str:
        return self.message

    @property
    def lines(self) -> tuple[tuple[int, int], ...]:
        """First and last line as other Dockerfile front ends report them; line 0 occurs. Empty if there is no place."""
        if self.reported_line is not None:
            return ((self.reported_line, self.reported_line),)
        return ((self.range.start_line, self.range.end_line),) if self.range else ()

    def located(self, range: Range, *, filename: str | None = None, source: str | None = None) -> DockerfileError:
        """This same error, now with a place; a place that it has already is kept."""
        if self.range is None:
            self.range = range
        if filename is not None:
            self.filename = filename
        if source is not None:
            self.source = source
        return self

    def render(self) -> str:
        """Several lines for a person: place and message, the source lines with a caret, and the hint; then the same
        for each of the others, in the order of the file."""
        together = sorted((self, *self.others), key=lambda error: error.range or Range(0, 0))
        return "\n".join(error._render_alone() for error in together)

    def _render_alone(self) -> str:
        report = [f"{self._place()}{_printable(self.message)}"]
        if self.range is not None and self.source:
            report += excerpt(self.source, self.range, self.caret or self.range)
        if self.hint:
            report.append(f"hint: {_printable(self.hint)}")
        return "\n".join(report)

    @property
    def caret(self) -> Range | None:
        """Where exactly the fault is: the columns of the user's text, else of the first line of the range; without the
        source, the range."""
        if self.range is None or not self.source:
            return self.range
        first = max(self.range.start_line, 1)
        lines = self.source.split("\n")[first - 1 : max(self.range.end_line, first)]
        for number, line in enumerate(lines if self.subject else (), start=first):
            column = _column(line, self.subject)
            if column:
                return Range(number, number, column, column + len(self.subject) - 1)
        if self.range.end_column or not lines or not trim(lines[0]):
            return self.range
        line = lines[0].rstrip(WHITE_SPACE)
        return Range(first, first, len(line) - len(line.lstrip(WHITE_SPACE)) + 1, len(line))

    def _place(self) -> str:
        caret = self.caret
        if caret is None:
            return f"{self.filename}: "
        column = f":{caret.start_column}" if caret.start_column else ""
        return f"{self.filename}:{max(caret.start_line, 1)}{column}: "


def _column(line: str, subject: str) -> int:
    """Where `subject` stands in `line`, as a word of its own if there is one; 0 if it does not, or in a comment."""
    if subject not in line or line.lstrip(WHITE_SPACE).startswith("#"):
        return 0
    whole = re.search(rf"(?<!\w){re.escape(subject)}(?!\w)", line)
    return (whole.start() if whole else line.find(subject)) + 1


def excerpt(source: str, place: Range, caret: Range) -> list[str]:
    """The lines of `place` with their numbers, and a mark under the columns of `caret` if they are known."""
    lines = source.split("\n")
    first, last = max(place.start_line, 1), min(max(place.end_line, 1), len(lines))
    width = len(str(last))
    excerpt: list[str] = []
    previous = first
    for number in _numbers(first, last, caret.start_line):
        if number - previous > 1:
            excerpt.append(f" {'.' * width} |")
        text = _printable(lines[number - 1].rstrip("\r")[:EXCERPT_WIDTH])
        excerpt.append(f" {number:>{width}} | {text}".rstrip())
        if number == caret.start_line and 0 < caret.start_column <= EXCERPT_WIDTH:
            excerpt.append(f" {'':>{width}} | {_mark(lines[number - 1], caret)}")
        previous = number
    return excerpt


def _numbers(first: int, last: int, wanted: int) -> list[int]:
    """The line numbers to show: all, or the first few, the wanted one and the last."""
    if last - first < EXCERPT_LINES:
        return [*range(first, last + 1)]
    return sorted({*range(first, first + EXCERPT_LINES - 1), wanted, last})


def _mark(line: str, caret: Range) -> str:
    before = line[: caret.start_column - 1]
    indent = "".join("\t" if char == "\t" else " " * len(_printable(char)) for char in before)
    length = len(_printable(line[caret.start_column - 1 : caret.end_column])) if caret.end_column else 1
    return indent + "^" * max(1, min(length, EXCERPT_WIDTH))


def _printable(text: str) -> str:
    """Text that any terminal can take: control characters and undecodable bytes are written as escapes."""
    return "".join(char if char == "\t" or char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def first_of(errors: Sequence[DockerfileError]) -> DockerfileError:
    """The first error, with the rest as its `others`."""
    errors[0].others = tuple(errors[1:])
    return errors[0]


def nearest(word: str, candidates: list[str]) -> str | None:
    """The candidate that `word` was most likely meant to be, or None; difflib is imported for an error only."""
    import difflib

    lower = {candidate.lower(): candidate for candidate in candidates}
    found = difflib.get_close_matches(word.lower()[:100], lower, n=1, cutoff=0.6)
    return lower[found[0]] if found else None
