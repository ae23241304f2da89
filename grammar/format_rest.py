"""The arguments of an instruction on their physical lines: which lines can be indented anew, and how deep.

A line can move where the place before it is a gap between words, outside quotes. Lines that move keep their depth
relative to each other.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from grammar.characters import WHITE_SPACE
from grammar.format_head import Head, Piece
from grammar.format_meaning import SHELL_TEXT
from grammar.format_quotes import BLANKS, free_positions, is_gap
from grammar.nodes import AstNode

INDENT = 4
_WORD_LISTS = frozenset(("FROM", "EXPOSE", "COPY", "ADD", "VOLUME"))
_WORD_BLANKS = "\t\v\f\r "
_WORD = re.compile(f"[^{_WORD_BLANKS}]+")


class Line(NamedTuple):
    """A line of arguments; `indent` is None for one that follows its head, 0 for one that keeps its own blanks."""

    text: str
    indent: int | None
    comments: tuple[str, ...]
    is_open: bool
    """Whether blanks at its end mean nothing."""


def read_rest(pieces: list[Piece], head: Head, escape: str, *, posix: bool) -> list[Line] | None:
    """The lines from the head's end on. None where a list of words has one
    that goes on in the next line."""
    last = head.tokens[-1].line
    above = tuple(comment for piece in pieces[last + 1 : head.line + 1] for comment in piece.comments)
    own = [Piece(pieces[head.line].text[head.column :], above), *pieces[head.line + 1 :]]
    if not "".join(piece.text for piece in own).strip(BLANKS):
        return []
    node = head.node
    first_width = None if head.line == last else _width(pieces[head.line].text)
    if node.keyword in _WORD_LISTS and not node.json:
        return _word_list(own, node, follows=first_width is None)
    if node.keyword == "HEALTHCHECK" and own[0].text.startswith(node.args[0]):
        kind = node.args[0]
        own[0] = own[0]._replace(text=kind.upper() + own[0].text[len(kind) :])
    return _moved(own, _language(node, posix=posix), escape, first_width)


def _word_list(own: list[Piece], node: AstNode, *, follows: bool) -> list[Line] | None:
    """Words with one space between them; `AS` of FROM in upper case."""
    lines: list[Line] = []
    number = 0
    has_gap = True
    comments: tuple[str, ...] = ()
    for piece in own:
        words = _WORD.findall(piece.text)
        comments += tuple(" " * INDENT + comment.lstrip(WHITE_SPACE) for comment in piece.comments)
        if not words:
            has_gap = has_gap or bool(piece.text)
            continue
        if not has_gap and piece.text[0] not in _WORD_BLANKS:
            return None
        if node.keyword == "FROM" and len(node.args) == 3 and number <= 1 < number + len(words):
            words[1 - number] = "AS"
        indent = None if follows and not lines else INDENT
        lines.append(Line(" ".join(words), indent, comments, True))
        number += len(words)
        has_gap = piece.text[-1] in _WORD_BLANKS
        comments = ()
    return lines


def _moved(own: list[Piece], language: str, escape: str, first_width: int | None) -> list[Line]:
    """Text with its lines indented anew where they can be; `first_width` is the depth of the first one if it stands
    on a line of its own."""
    moves = _moves([piece.text for piece in own], language, escape)
    widths = [_width(piece.text) if moving else None for piece, moving in zip(own, moves, strict=True)]
    widths[0] = first_width
    known = [width for width, piece in zip(widths, own, strict=True) if width is not None and piece.text.strip(BLANKS)]
    base = min(known, default=0)
    lines: list[Line] = []
    for number, (piece, width) in enumerate(zip(own, widths, strict=True)):
        comments = _indented(piece.comments, base) if known and moves[number] else piece.comments
        text = piece.text.lstrip(BLANKS) if moves[number] else piece.text
        indent = None if number == 0 else 0
        if width is not None:
            indent = INDENT + (width - base if text else 0)
        is_open = language != "shell" and all(moves[number + 1 : number + 2])
        lines.append(Line(text, indent, comments, is_open))
    while not lines[-1].text.strip(BLANKS):
        lines.pop()
    return lines


def _moves(texts: list[str], language: str, escape: str) -> list[bool]:
    """For each line, whether blanks at its start mean nothing; those of the first one never do."""
    whole = "".join(texts)
    free = free_positions(whole, language, escape)
    moves = [True]
    position = len(texts[0])
    for text in texts[1:]:
        moves.append(is_gap(whole, free, position))
        position += len(text)
    return moves


def _indented(comments: tuple[str, ...], base: int) -> tuple[str, ...]:
    """Comment lines as deep, relative to the text, as they were."""
    return tuple(" " * (INDENT + max(0, _width(comment) - base)) + comment.lstrip(WHITE_SPACE) for comment in comments)


def _width(line: str) -> int:
    """How deep a line is indented; a tab goes to the next multiple of four."""
    blanks = line[: len(line) - len(line.lstrip(BLANKS))]
    return len(blanks.expandtabs(INDENT))


def _language(node: AstNode, *, posix: bool) -> str:
    """How the text of `node` is quoted; empty where no blank may change."""
    if node.json:
        return "json"
    if node.keyword in SHELL_TEXT:
        return "shell" if posix else ""
    if node.keyword == "ARG" or any(not pair.legacy for pair in node.pairs):
        return "words"
    return ""
