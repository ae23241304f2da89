"""The lines of one instruction in canonical form.

Keywords and `AS` are upper case. Continuation lines start at four spaces; where some were indented deeper than others
they still are, by as much. Flags stand one per line when their line would pass MAX_WIDTH columns. A line that starts
inside quotes, or goes on in the middle of a word, is left as it is; so is a whole instruction whose head is not plain,
or that would mean something else. Heredoc bodies are never touched.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from grammar.characters import WHITE_SPACE
from grammar.errors import DockerfileError
from grammar.format_head import Head, Piece, read_head, read_pieces
from grammar.format_meaning import node_meaning
from grammar.format_quotes import BLANKS
from grammar.format_rest import INDENT, Line, read_rest
from grammar.nodes import AstNode
from grammar.parser import parse_ast

MAX_WIDTH = 100


class _Row(NamedTuple):
    """A physical line to write, without its continuation."""

    text: str
    comments: tuple[str, ...]
    has_flag: bool
    is_open: bool = True
    """Whether blanks at its end mean nothing."""


def format_instruction(node: AstNode, lines: list[str], escape: str, *, posix: bool) -> list[str]:
    """The lines of `node`, given as they stand in the file; `posix` tells whether its shell text can be followed."""
    body_size = sum(heredoc.content.count("\n") + 1 for heredoc in node.heredocs)
    own = lines[: len(lines) - body_size]
    plain = [line.rstrip("\r") for line in own]
    bodies = _bodies(node, lines[len(own) :])
    pieces, comments = read_pieces(own, escape)
    head = read_head(pieces, node, escape)
    rest = read_rest(pieces, head, escape, posix=posix) if head else None
    if head is not None and rest is not None:
        formatted = _formatted(pieces, head, rest, escape)
        if formatted == plain or _is_same(node, [*formatted, *bodies], escape, posix=posix):
            return [*formatted, *bodies, *comments]
    return [*plain, *bodies]


def _bodies(node: AstNode, lines: list[str]) -> list[str]:
    """Heredoc bodies as they are; only the lines that end them lose a carriage return."""
    kept: list[str] = []
    for heredoc in node.heredocs:
        size = heredoc.content.count("\n")
        start = len(kept)
        kept += lines[start : start + size]
        kept.append(lines[start + size].rstrip("\r"))
    return kept


def _is_same(node: AstNode, lines: list[str], escape: str, *, posix: bool) -> bool:
    source = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
    try:
        nodes = parse_ast(source, escape=escape).nodes
    except DockerfileError:
        return False
    expected = node_meaning(replace(node, comments=()), posix=posix)
    return len(nodes) == 1 and expected == node_meaning(nodes[0], posix=posix)


def _formatted(pieces: list[Piece], head: Head, rest: list[Line], escape: str) -> list[str]:
    rows = _rows(pieces, head, rest, split=False)
    if any(row.has_flag and len(row.text) + 2 * (row is not rows[-1]) > MAX_WIDTH for row in rows):
        rows = _rows(pieces, head, rest, split=True)
    lines: list[str] = []
    for row in rows:
        lines += row.comments
        if row is rows[-1]:
            lines.append(row.text.rstrip(BLANKS + "\r"))  # a carriage return at the end of a line belongs to its end
        elif row.is_open:
            text = row.text.rstrip(BLANKS)
            lines.append(f"{text} {escape}" if text else row.text + escape)
        else:
            lines.append(row.text + escape)
    return lines


def _rows(pieces: list[Piece], head: Head, rest: list[Line], *, split: bool) -> list[_Row]:
    """The lines to write: the author's, or with a flag on each (`split`)."""
    rows: list[_Row] = []
    line = -1
    for token in head.tokens:
        is_new = token.is_flag and rows[-1].has_flag if split else token.line != line
        comments = _comments(pieces[line + 1 : token.line + 1])
        line = token.line
        if is_new or not rows:
            rows.append(_Row(" " * INDENT * bool(rows) + token.text, comments, token.is_flag))
        else:
            last = rows[-1]
            rows[-1] = _Row(f"{last.text} {token.text}", last.comments + comments, last.has_flag or token.is_flag)
    for number, own in enumerate(rest):
        if number == 0 and own.indent is None and not (split and rows[-1].has_flag):
            rows[-1] = rows[-1]._replace(text=f"{rows[-1].text} {own.text}", is_open=own.is_open)
        else:
            indent = INDENT if own.indent is None else own.indent
            rows.append(_Row(" " * indent + own.text, own.comments, False, own.is_open))
    return rows


def _comments(pieces: list[Piece]) -> tuple[str, ...]:
    return tuple(" " * INDENT + comment.lstrip(WHITE_SPACE) for piece in pieces for comment in piece.comments)
