"""Heredoc words of an instruction: `<<EOF`, `<<-"EOF"`, `3<<EOF`.

The text is lexed with a backslash as escape whatever the file's escape directive says. It does not read bodies.
"""

from __future__ import annotations

import re

from grammar.errors import DockerfileError
from grammar.nodes import Heredoc
from grammar.words import Lexer

_WORD = re.compile(r"([0-9]*)<<(-?)[\t\n\f\r ]*([^<]*)\Z")
_LEADING_TABS = re.compile(r"^\t+", re.MULTILINE)
_LARGEST_FD = 2**64 - 1

_LINE_LEXER = Lexer(raw_quotes=True, raw_escapes=True, skip_unset_env=True)
_NAME_LEXER = Lexer(skip_unset_env=True)
_RAW_NAME_LEXER = Lexer(raw_quotes=True, skip_unset_env=True)


def find_heredocs(line: str) -> list[Heredoc]:
    """The heredocs that a logical line announces, in order, without content; none if its quotes do not match.
    Raises DockerfileError for a heredoc whose name cannot be lexed."""
    if "<<" not in line:
        return []
    try:
        words = _LINE_LEXER.process_words(line, {})
    except DockerfileError:
        return []
    return [heredoc for word in words if (heredoc := parse_heredoc(word)) is not None]


def parse_heredoc(word: str) -> Heredoc | None:
    """The heredoc that `word` announces, or None. Raises DockerfileError if its name cannot be lexed."""
    match = _WORD.match(word)
    if match is None or not match[3]:
        return None
    names = _NAME_LEXER.process_words(match[3], {})
    if len(names) != 1:
        return None
    raw_names = _RAW_NAME_LEXER.process_words(match[3], {})
    if len(raw_names) != 1:
        raise DockerfileError(f"heredoc name {match[3]!r} is not one word")
    expand = _count_quotes(names[0]) == _count_quotes(raw_names[0])
    digits = match[1].lstrip("0") or "0"
    fd = min(int(digits), _LARGEST_FD) if len(digits) <= 20 else _LARGEST_FD
    return Heredoc(names[0], fd, expand, match[2] == "-", "")


def is_heredoc(word: str) -> Heredoc | None:
    """As `parse_heredoc`, but None where the name cannot be lexed."""
    if "<<" not in word:
        return None
    try:
        return parse_heredoc(word)
    except DockerfileError:
        return None


def chomp(content: str) -> str:
    """`content` without the tabs that start its lines, as `<<-` asks for."""
    return _LEADING_TABS.sub("", content)


def _count_quotes(text: str) -> int:
    return text.count("'") + text.count('"')
