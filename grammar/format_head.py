"""The start of an instruction on its physical lines: keywords and flags, each with the line it stands on.

Only heads that are written plainly are read, with every word on one line; any other is left as it is by the caller.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from grammar.characters import WHITE_SPACE
from grammar.flags import unquote_flag
from grammar.nodes import AstNode
from grammar.source import cut_continuation

_BLANK = re.compile(r"[ \t]*")
_WORD = re.compile(r"[!-~]+")


class Piece(NamedTuple):
    """One physical line of an instruction, without its continuation."""

    text: str
    comments: tuple[str, ...]
    """Comment lines above it, inside the instruction."""


class Token(NamedTuple):
    """A keyword or a flag, canonical."""

    text: str
    line: int
    """Index of its piece."""
    is_flag: bool


class Head(NamedTuple):
    """What stands in front of the arguments, and where these start."""

    tokens: tuple[Token, ...]
    line: int
    column: int
    node: AstNode
    """The instruction that the arguments belong to: the inner one of ONBUILD."""


def read_pieces(lines: list[str], escape: str) -> tuple[list[Piece], list[str]]:
    """The pieces of a logical line, and the comments behind the last one."""
    pieces: list[Piece] = []
    comments: list[str] = []
    for line in lines:
        text = line.rstrip("\r")
        if pieces and not text.strip(WHITE_SPACE):
            continue
        if pieces and text.lstrip(WHITE_SPACE).startswith("#"):
            comments.append(text.rstrip(" \t\r"))
            continue
        pieces.append(Piece(cut_continuation(text, escape)[0], tuple(comments)))
        comments = []
    return pieces, comments


def read_head(pieces: list[Piece], node: AstNode, escape: str) -> Head | None:
    """The head of `node`; None if it is not written plainly."""
    cursor = _Cursor([piece.text for piece in pieces])
    tokens: list[Token] = []
    while True:
        if cursor.take(_WORD) != node.instr:
            return None
        tokens.append(Token(node.keyword, cursor.line, False))
        for value in node.flags:
            if not cursor.skip_gap():
                return None
            flag = cursor.take(_flag(escape))
            if not flag or unquote_flag(flag, escape) != value:
                return None
            tokens.append(Token(flag, cursor.line, True))
        has_gap = cursor.skip_gap()
        if node.child is None:
            break
        if not has_gap:
            return None
        node = node.child
    return Head(tuple(tokens), cursor.line, cursor.column, node) if has_gap or cursor.is_at_end() else None


@cache
def _flag(escape: str) -> re.Pattern[str]:
    """A flag without escapes, quoted in whole parts."""
    token = re.escape(escape)
    return re.compile(rf"""--(?:(?!["'{token}])[!-~]|"[^"{token}]*"|'[^'{token}]*')+""")


class _Cursor:
    """A place in the pieces."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.line = 0
        self.column = len(texts[0]) - len(texts[0].lstrip(" \t"))

    def take(self, pattern: re.Pattern[str]) -> str:
        """The text that `pattern` matches here, if it ends with its line or before a blank; else empty."""
        match = pattern.match(self.texts[self.line], self.column)
        if match is None or self.texts[self.line][match.end() : match.end() + 1] not in ("", " ", "\t"):
            return ""
        self.column = match.end()
        return match[0]

    def skip_gap(self) -> bool:
        """Move behind blanks and line ends; whether there was a blank."""
        start = self.line, self.column
        is_gap = False
        while True:
            match = _BLANK.match(self.texts[self.line], self.column)
            assert match is not None
            is_gap = is_gap or match.end() > self.column
            self.column = match.end()
            if self.column < len(self.texts[self.line]) or self.line + 1 == len(self.texts):
                break
            self.line, self.column = self.line + 1, 0
        if self.is_at_end():
            self.line, self.column = start
            self.column = len(self.texts[self.line])
        return is_gap

    def is_at_end(self) -> bool:
        """Whether only blanks follow."""
        return not "".join([self.texts[self.line][self.column :], *self.texts[self.line + 1 :]]).strip(" \t")
