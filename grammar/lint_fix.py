"""Rewriting what the linter found where that is safe: the text changes, what it means does not.

Every rewritten instruction is read again, and stays as it was unless it is read as what it should be. Comments, blank
lines and continuations are kept. It works on findings, so a rule that is skipped is not fixed either.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from grammar import rules
from grammar.characters import WHITE_SPACE, replace_undecodable, to_lower
from grammar.errors import DockerfileError
from grammar.instructions import build_stage
from grammar.lint import Finding
from grammar.lint_syntax import is_lower, prefers_lower
from grammar.nodes import AstNode, KeyValue
from grammar.parser import parse_ast
from grammar.ports import PROTOCOLS
from grammar.rules import Rule
from grammar.words import Lexer

AUTHORS = "org.opencontainers.image.authors"
"""The label that took MAINTAINER's place (OCI image-spec, annotations)."""

_BLANK = "\t\v\f\r "
_KEYWORD = re.compile(f"([{WHITE_SPACE}\ufeff]*)([^{_BLANK}]+)(.*)", re.DOTALL)
_PROTOCOL = re.compile(rf"(?<=/)(?:{'|'.join(PROTOCOLS)})(?=[\"']?(?:[{_BLANK}]|\Z))", re.IGNORECASE)
_AS_NAME = re.compile(rf"(.*[{_BLANK}])(as)([{_BLANK}]+)([^{_BLANK}]+)([{_BLANK}]*)", re.DOTALL | re.IGNORECASE)
_PAIR = re.compile(rf"[{_BLANK}]*([^{_BLANK}=\"'\\`]+)[{_BLANK}]+([^{_BLANK}].*)", re.DOTALL)

Lines = list[str]


class _Style(NamedTuple):
    """The escape token, and how the file writes its keywords."""

    escape: str
    is_lower: bool

    def keyword(self, word: str) -> str:
        return word.lower() if self.is_lower else word.upper()


def fix(source: bytes, findings: Iterable[Finding]) -> tuple[bytes, list[Finding]]:
    """The source with what can be fixed, and the findings that were; idempotent. A file that cannot be read stays."""
    try:
        ast = parse_ast(source)
    except DockerfileError:
        return source, []
    first = next((index for index, node in enumerate(ast.nodes) if node.keyword == "FROM"), 0)
    style = _Style(ast.escape, prefers_lower([node.instr for node in ast.nodes[first:]]))
    by_line: dict[int, list[Finding]] = {}
    for finding in findings:
        by_line.setdefault(finding.range.start_line, []).append(finding)
    lines = source.decode("utf-8", "surrogateescape").split("\n")
    fixed: list[Finding] = []
    for node in reversed(ast.nodes):  # what is above keeps its lines
        found = [each for each in _within(node, by_line) if _is_about(each, node)]
        wanted = {each.rule for each in found}
        rows = slice(node.range.start_line - 1, node.range.end_line)
        lines[rows], done = _rewrite(lines[rows], [rule for rule in _FIXES if rule in wanted], style)
        fixed += [each for each in found if each.rule in done]
    return "\n".join(lines).encode("utf-8", "surrogateescape"), fixed


def _within(node: AstNode, by_line: Mapping[int, list[Finding]]) -> Iterator[Finding]:
    for number in range(node.range.start_line, node.range.end_line + 1):
        yield from by_line.get(number, ())


def _is_about(finding: Finding, node: AstNode) -> bool:
    """A finding names an instruction by its first line, but for the one that names the last."""
    return finding.range.start_line == node.range.start_line or finding.rule is rules.NO_EMPTY_CONTINUATION


def _rewrite(lines: Lines, wanted: Iterable[Rule], style: _Style) -> tuple[Lines, set[Rule]]:
    """The lines of one instruction, rewritten, and for which rules; a rule whose fix would change more is left."""
    done: set[Rule] = set()
    for rule in wanted:
        recipe = _FIXES[rule]
        before = _read(lines, style)
        if recipe.keywords and before.keyword not in recipe.keywords:
            continue
        for candidate in recipe.candidates(before, lines, style):
            with contextlib.suppress(DockerfileError):
                if recipe.means_the_same(before, _read(candidate, style), style):
                    lines = candidate
                    done.add(rule)
                    break
    return lines, done


def _read(lines: Lines, style: _Style) -> AstNode:
    """The one instruction of some lines. Raises DockerfileError if it is not one."""
    source = "\n".join(lines).encode("utf-8", "surrogateescape") + b"\n"
    node, *others = parse_ast(source, escape=style.escape).nodes
    if others:
        raise DockerfileError("the lines hold more than one instruction")
    return node


def _with_first(lines: Lines, first: str) -> Lines:
    return [first, *lines[1:]]


def _keyword_casing(node: AstNode, lines: Lines, style: _Style) -> Iterator[Lines]:
    """The keyword as most of the file has it, and AS with FROM."""
    match = _KEYWORD.fullmatch(lines[0])
    if match is None or match[2] != node.instr:
        return
    changed = _with_first(lines, match[1] + style.keyword(node.keyword) + match[3])
    if node.keyword == "FROM":
        yield from _as_casing(node, changed, style)
    yield changed


def _as_casing(_node: AstNode, lines: Lines, style: _Style) -> Iterator[Lines]:
    match = _AS_NAME.fullmatch(lines[0])
    if match is not None and len(lines) == 1:
        keyword = _read(lines, style).instr
        cased = match[2].lower() if is_lower(keyword) else match[2].upper()
        yield [match[1] + cased + match[3] + match[4] + match[5]]


def _stage_name_casing(_node: AstNode, lines: Lines, _style: _Style) -> Iterator[Lines]:
    match = _AS_NAME.fullmatch(lines[0])
    if match is not None and len(lines) == 1:
        yield [match[1] + match[2] + match[3] + to_lower(match[4]) + match[5]]


def _same_stage(before: AstNode, after: AstNode, _style: _Style) -> bool:
    old, new = build_stage(before), build_stage(after)
    return (old.name, old.base, old.platform) == (new.name, new.base, new.platform)


def _same_but_keyword(before: AstNode, after: AstNode, style: _Style) -> bool:
    if before.keyword == "FROM":
        return _same_stage(before, after, style)
    return replace(before, instr="", original="") == replace(after, instr="", original="")


def _key_equals_value(node: AstNode, lines: Lines, style: _Style) -> Iterator[Lines]:
    """`key value` as `key=value`: as it is, else in quotes, else with its blanks escaped."""
    lines = _from_first_line(lines, style)
    match = _KEYWORD.fullmatch(lines[0])
    pair = _PAIR.fullmatch(match[3]) if match else None
    if match is None or pair is None or not node.pairs:
        return
    value = node.pairs[0].value
    head = f"{match[1]}{match[2]} {pair[1]}="
    end = "\r" if lines[-1].endswith("\r") else ""
    is_plain = not any(char in value for char in "\"'" + style.escape)
    if len(lines) == 1:
        yield [f"{head}{value}{end}"]
    if is_plain and len(lines) == 1:
        yield [f'{head}"{value}"{end}']
    elif is_plain and not lines[-1].lstrip(WHITE_SPACE).startswith("#"):
        yield [f'{head}"{pair[2]}', *lines[1:-1], f'{lines[-1].rstrip(WHITE_SPACE)}"{end}']
    elif len(lines) == 1 and style.escape not in value:
        yield [f"{head}{_blanks_escaped(value, style.escape)}{end}"]


def _from_first_line(lines: Lines, style: _Style) -> Lines:
    """The lines with the value beginning in the first, if it began in the second."""
    words = lines[0].split()
    if len(words) != 3 or words[2] != style.escape or lines[1].lstrip(WHITE_SPACE)[:1] in ("", "#"):
        return lines
    return [f"{lines[0].rstrip(WHITE_SPACE)[:-1].rstrip(WHITE_SPACE)} {lines[1].lstrip(WHITE_SPACE)}", *lines[2:]]


def _blanks_escaped(value: str, escape: str) -> str:
    """`value` with the escape token before every blank outside of quotes."""
    parts = re.split("(\"[^\"]*\"|'[^']*')", value)
    return "".join(
        part if index % 2 else re.sub(f"([{WHITE_SPACE}])", lambda match: escape + match[1], part)
        for index, part in enumerate(parts)
    )


def _same_value(before: AstNode, after: AstNode, style: _Style) -> bool:
    """One pair with the key as it was and a value that expands to the same, whatever the variables are."""
    if len(after.pairs) != 1 or after.pairs[0].legacy or after.keyword != before.keyword:
        return False
    return before.pairs[0].key == after.pairs[0].key and _expands_alike(before.pairs[0], after.pairs[0], style)


def _expands_alike(before: KeyValue, after: KeyValue, style: _Style) -> bool:
    lexer = Lexer(style.escape, skip_unset_env=True)
    return lexer.process_word(before.value, {}) == lexer.process_word(after.value, {})


def _authors_label(node: AstNode, lines: Lines, style: _Style) -> Iterator[Lines]:
    """MAINTAINER as the label; its text is not expanded, so what a label would expand is escaped."""
    match = _KEYWORD.fullmatch(lines[0])
    if match is None or len(lines) != 1 or not node.args or replace_undecodable(node.args[0]) != node.args[0]:
        return
    special = re.compile(f'(["$]|{re.escape(style.escape)})')
    text = special.sub(lambda found: style.escape + found[1], node.args[0])
    end = "\r" if lines[0].endswith("\r") else ""
    yield [f'{match[1]}{style.keyword("LABEL")} {AUTHORS}="{text}"{end}']


def _is_authors_label(before: AstNode, after: AstNode, style: _Style) -> bool:
    if after.keyword != "LABEL" or [pair.key for pair in after.pairs] != [AUTHORS]:
        return False
    return Lexer(style.escape).process_word(after.pairs[0].value, {}) == before.args[0]


def _protocol_casing(_node: AstNode, lines: Lines, _style: _Style) -> Iterator[Lines]:
    """Protocols that are written out, in lower case."""
    yield [
        line if line.lstrip(WHITE_SPACE).startswith("#") else _PROTOCOL.sub(lambda match: match[0].lower(), line)
        for line in lines
    ]


def _same_ports(before: AstNode, after: AstNode, _style: _Style) -> bool:
    return before.args != after.args and [to_lower(word) for word in before.args] == [
        to_lower(word) for word in after.args
    ]


def _without_empty_lines(node: AstNode, lines: Lines, _style: _Style) -> Iterator[Lines]:
    """The lines without empty ones, those of heredocs aside."""
    body = sum(heredoc.content.count("\n") + 1 for heredoc in node.heredocs)
    head, rest = lines[: len(lines) - body], lines[len(lines) - body :]
    yield [line for line in head if line.strip(WHITE_SPACE)] + rest


def _same_but_lines(before: AstNode, after: AstNode, _style: _Style) -> bool:
    return replace(before, range=after.range) == after


class _Fix(NamedTuple):
    """How findings of a rule are fixed: candidates for the lines, the first of which is taken that means the same."""

    keywords: tuple[str, ...]
    """The instructions that it is for; none stands for all. A finding of a trigger points at another instruction."""
    candidates: Callable[[AstNode, Lines, _Style], Iterator[Lines]]
    means_the_same: Callable[[AstNode, AstNode, _Style], bool]


_FIXES: dict[Rule, _Fix] = {
    rules.CONSISTENT_INSTRUCTION_CASING: _Fix((), _keyword_casing, _same_but_keyword),
    rules.FROM_AS_CASING: _Fix(("FROM",), _as_casing, _same_stage),
    rules.STAGE_NAME_CASING: _Fix(("FROM",), _stage_name_casing, _same_stage),
    rules.LEGACY_KEY_VALUE_FORMAT: _Fix(("ENV", "LABEL"), _key_equals_value, _same_value),
    rules.MAINTAINER_DEPRECATED: _Fix(("MAINTAINER",), _authors_label, _is_authors_label),
    rules.NO_EMPTY_CONTINUATION: _Fix((), _without_empty_lines, _same_but_lines),
    rules.EXPOSE_PROTO_CASING: _Fix(("EXPOSE",), _protocol_casing, _same_ports),
}
"""In this order: how AS is cased depends on FROM."""
