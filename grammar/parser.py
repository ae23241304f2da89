"""Dockerfile bytes -> instructions as the line grammar sees them; the only importer of lark.

Lines come from `source`, each is cut by the grammar in `dockerfile.lark`. It knows which sub-language an instruction's
arguments are in, not what they mean.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from lark import Lark
from lark.exceptions import LarkError

from grammar.characters import WHITE_SPACE, quoted, shortened, to_lower, trim
from grammar.directives import detect_syntax, read_directives
from grammar.errors import MAX_ERRORS, DockerfileError, first_of
from grammar.heredoc import find_heredocs
from grammar.json_form import is_json_list
from grammar.nodes import Ast, AstNode, Heredoc, KeyValue, ParserWarning
from grammar.position import Range
from grammar.source import LineReader, LogicalLine
from grammar.transformer import Head, LineTransformer, Words

_RULES = {
    **dict.fromkeys(("FROM", "EXPOSE"), "words"),
    **dict.fromkeys(("COPY", "ADD", "VOLUME"), "words_form"),
    **dict.fromkeys(("RUN", "CMD", "ENTRYPOINT", "SHELL"), "command_form"),
    **dict.fromkeys(("ENV", "LABEL"), "pairs"),
    **dict.fromkeys(("USER", "WORKDIR", "STOPSIGNAL", "MAINTAINER"), "rest"),
    **{"ARG": "names", "HEALTHCHECK": "health", "ONBUILD": "trigger"},
}
_STARTS = ["head", "words", "words_form", "command_form", "pairs", "names", "health"]
_HEREDOC_KEYWORDS = frozenset(("RUN", "COPY", "ADD"))
_MAX_TRIGGER_DEPTH = 100
MAX_SOURCE_SIZE = 16 << 20
"""Bytes of a file; BuildKit's messages hold no larger one either."""
_BLANK = "\t\v\f\r "

WHITE_SPACE_CLASS = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"

_KEYWORDS = {keyword.lower(): keyword for keyword in _RULES}


class Arguments(NamedTuple):
    """What follows keyword and flags."""

    args: tuple[str, ...]
    json: bool = False
    pairs: tuple[KeyValue, ...] = ()


_NO_ARGUMENTS = Arguments(())


def parse_ast(source: bytes, *, filename: str = "Dockerfile", escape: str = "\\") -> Ast:
    """All instructions of `source`. Raises DockerfileError, located, for anything that is not a Dockerfile."""
    ast, errors = read_ast(source, filename=filename, escape=escape)
    if errors:
        raise first_of(errors)
    return ast


def read_ast(source: bytes, *, filename: str = "Dockerfile", escape: str = "\\") -> tuple[Ast, list[DockerfileError]]:
    """The instructions of `source` that can be read, and what is wrong with the others, located, in order. Where the
    lines after a fault cannot be told from it, the reading ends there."""
    if len(source) > MAX_SOURCE_SIZE:
        error = DockerfileError(f"file has {len(source)} bytes, expected at most {MAX_SOURCE_SIZE}")
        return Ast(escape, (), None, (), ()), [error.located(Range(1, 1), filename=filename)]
    reader = LineReader(source, escape)
    nodes: list[AstNode] = []
    warnings: list[ParserWarning] = []
    errors: list[DockerfileError] = []
    try:
        for line in reader.logical_lines():
            if line.has_blank_continuation:
                warnings.append(ParserWarning(f"Empty continuation line found in: {line.text}", line.end_line))
            try:
                node, announced = _parse_instruction(reader, line)
            except DockerfileError as error:
                errors.append(error.located(Range(line.start_line, line.end_line, line.start_column)))
                if len(errors) == MAX_ERRORS:
                    break
            else:
                nodes.append(_with_bodies(node, announced, reader))
    except DockerfileError as error:
        errors.append(error.located(Range(0, 0)))
    for found in errors:
        found.located(Range(0, 0), filename=filename, source=reader.text)
    ast = Ast(reader.escape, read_directives(source)[0], detect_syntax(source), tuple(nodes), tuple(warnings))
    return ast, errors


def _parse_instruction(reader: LineReader, line: LogicalLine) -> tuple[AstNode, list[Heredoc]]:
    """The instruction and the heredocs whose bodies follow."""
    place = Range(line.start_line, line.end_line, line.start_column)
    node = _line_parser(reader.escape).parse(line.text, place, line.comments)
    return node, find_heredocs(line.text) if _takes_heredocs(node) else []


def _with_bodies(node: AstNode, announced: list[Heredoc], reader: LineReader) -> AstNode:
    if not announced:
        return node
    bodies = tuple(reader.heredoc_body(heredoc, node.range.start_line) for heredoc in announced)
    return replace(node, heredocs=bodies, range=node.range._replace(end_line=reader.line))


def _takes_heredocs(node: AstNode) -> bool:
    """RUN, COPY and ADD, also as the trigger of ONBUILD, unless in JSON form."""
    inner = node.child or node
    return inner.keyword in _HEREDOC_KEYWORDS and not inner.json


class LineParser:
    """Parses logical lines with one escape token."""

    def __init__(self, escape: str) -> None:
        transformer = LineTransformer(escape)
        self._lark = Lark(
            _grammar(escape), parser="lalr", start=_STARTS, transformer=transformer, maybe_placeholders=False
        )

    def parse(self, line: str, place: Range, comments: tuple[str, ...] = ()) -> AstNode:
        """The instruction in `line`, with the one inside it if it is ONBUILD. Raises DockerfileError."""
        heads: list[tuple[str, Head]] = []
        text = line
        while not heads or (_keyword(heads[-1][1]) == "ONBUILD" and text):
            if len(heads) > _MAX_TRIGGER_DEPTH:
                raise DockerfileError("ONBUILD is nested too deep, expected an instruction")
            head = self._head(text)
            heads.append((text, head))
            text = head.rest
        node: AstNode | None = None
        for original, head in reversed(heads):
            keyword = _keyword(head)
            arguments = _NO_ARGUMENTS if keyword == "ONBUILD" else self._arguments(keyword, head.rest)
            node = AstNode(
                keyword=keyword,
                instr=head.keyword,
                original=original,
                flags=head.flags,
                args=arguments.args,
                json=arguments.json,
                pairs=arguments.pairs,
                child=node,
                range=place,
                comments=comments if original is line else (),
            )
        assert node is not None
        return node

    def _head(self, line: str) -> Head:
        text = trim(line)
        if not text:
            return Head("", (), "")
        head: Head = self._read("head", _to_bytes_view(text))
        return Head(_from_bytes_view(head.keyword), head.flags, trim(_from_bytes_view(head.rest)))

    def _arguments(self, keyword: str, rest: str) -> Arguments:
        rule = _RULES.get(keyword)
        if rule is None:
            return Arguments(("",))
        if not rest:
            return _NO_ARGUMENTS
        match rule:
            case "rest":
                arguments = Arguments((rest,))
            case "names":
                arguments = Arguments(tuple(self._read("names", rest)))
            case "pairs":
                arguments = _from_pairs(_pairs(self._read("pairs", rest), keyword))
            case "health":
                arguments = self._health(rest)
            case _:
                arguments = self._words(rule, rest)
        return arguments

    def _words(self, rule: str, text: str) -> Arguments:
        """Words, or one text, or the JSON form of either."""
        words: Words = self._read(rule, text)
        if not words.json and rule != "words" and is_json_list(text.lstrip(WHITE_SPACE)):
            raise DockerfileError(
                "JSON form: arrays must be comprised of strings only", hint="put every argument in double quotes"
            )
        return Arguments(words.args, words.json)

    def _health(self, text: str) -> Arguments:
        parts: tuple[str, str] | None = self._read("health", _to_bytes_view(text))
        if parts is None:
            return _NO_ARGUMENTS
        kind, rest = (_from_bytes_view(part) for part in parts)
        command = self._words("command_form", rest) if rest else _NO_ARGUMENTS
        return Arguments((kind, *command.args), command.json)

    def _read(self, rule: str, text: str) -> Any:
        try:
            return self._lark.parse(text, start=rule)
        except LarkError as error:
            raise DockerfileError(f"instruction {quoted(text)} cannot be read") from error


@cache
def _line_parser(escape: str) -> LineParser:
    return LineParser(escape)


def _grammar(escape: str) -> str:
    """The text of dockerfile.lark for one escape token."""
    with open(os.path.join(os.path.dirname(__file__), "dockerfile.lark"), encoding="utf-8") as file:
        return file.read().replace("¬", re.escape(escape)).replace("§", WHITE_SPACE_CLASS)


def _keyword(head: Head) -> str:
    """Canonical keyword, "" if it is not known."""
    return _KEYWORDS.get(to_lower(head.keyword), "")


def _pairs(found: str | list[str], keyword: str) -> list[KeyValue]:
    """Pairs of ENV and LABEL: a whole text in the legacy form, else words."""
    if isinstance(found, str):
        key, *value = re.split(f"[{_BLANK}]+", found, maxsplit=1)
        if not value:
            raise DockerfileError(
                f"{keyword} must have two arguments, {quoted(key)} has no value",
                hint=f"write {keyword} {shortened(key)}=value",
                subject=key,
            )
        return [KeyValue(key, value[0], legacy=True)]
    pairs: list[KeyValue] = []
    for word in found:
        key, equals, text = word.partition("=")
        if not equals:
            raise DockerfileError(
                f"{keyword}: can't find = in {quoted(word)}, expected name=value",
                hint="a value with spaces needs quotes; a comment needs a line of its own",
                subject=word,
            )
        pairs.append(KeyValue(key, text))
    return pairs


def _from_pairs(pairs: list[KeyValue]) -> Arguments:
    args = [part for pair in pairs for part in (pair.key, pair.value, "" if pair.legacy else "=")]
    return Arguments(tuple(args), pairs=tuple(pairs))


def _to_bytes_view(text: str) -> str:
    """One character per byte."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("latin-1")


def _from_bytes_view(view: str) -> str:
    return view if view.isascii() else view.encode("latin-1").decode("utf-8", "surrogateescape")
