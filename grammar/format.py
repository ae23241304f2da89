"""A Dockerfile in canonical form, with the same meaning (see `format_meaning`).

Owns what stands between instructions: one blank line before each FROM but the first, above the comments that belong
to it; nowhere two; none at the file's ends; LF; a newline at the end. An instruction's own lines are
`format_instruction`'s. Comments between instructions keep their indentation: a front end reads it as part of them.
"""

from __future__ import annotations

from grammar.characters import WHITE_SPACE
from grammar.directives import BOM, DirectiveReader
from grammar.format_instruction import format_instruction
from grammar.format_meaning import has_posix_shell, meaning
from grammar.parser import parse_ast
from grammar.stages import parse


def format_dockerfile(source: bytes, *, filename: str = "Dockerfile") -> bytes:
    """`source` in canonical form; formatting that again changes nothing. Raises DockerfileError for what is no
    Dockerfile."""
    parse(source, filename=filename)
    formatted = _once(source, filename)
    while (again := _once(formatted, filename)) != formatted and len(again) <= len(formatted):
        formatted = again
    return formatted


def _once(source: bytes, filename: str) -> bytes:
    """One pass. Odd white space that a pass moves to the end of a line may be dropped by the next."""
    ast = parse_ast(source, filename=filename)
    posix = has_posix_shell(ast)
    lines = source.decode("utf-8", "surrogateescape").removeprefix(BOM).split("\n")
    result: list[str] = []
    end = 0
    has_stage = False
    for node in ast.nodes:
        between = _comments(lines[end : node.range.start_line - 1])
        result += _separated(between) if node.keyword == "FROM" and has_stage else between if end else _at_top(between)
        has_stage = has_stage or node.keyword == "FROM"
        end = node.range.end_line
        result += format_instruction(node, lines[node.range.start_line - 1 : end], ast.escape, posix=posix)
    result += _comments(lines[end:])
    while result[-1] == "":
        result.pop()
    formatted = "".join(f"{line}\n" for line in result).encode("utf-8", "surrogateescape")
    assert meaning(parse_ast(formatted)) == meaning(ast), "the canonical form means something else"
    return formatted


def _comments(lines: list[str]) -> list[str]:
    """Lines between instructions: comments without blanks at their end, and single blank lines."""
    kept: list[str] = []
    for line in lines:
        if line.strip(WHITE_SPACE):
            kept.append(line.rstrip(" \t\r"))
        elif not kept or kept[-1]:
            kept.append("")
    return kept


def _separated(lines: list[str]) -> list[str]:
    """`lines` with a blank one above the comments at their end."""
    if "" in lines:
        return lines
    return ["", *lines]


def _at_top(lines: list[str]) -> list[str]:
    """`lines` without a blank one first, unless it keeps a comment from being a directive."""
    if lines[:1] != [""] or (len(lines) > 1 and _would_direct(lines[1])):
        return lines
    return lines[1:]


def _would_direct(comment: str) -> bool:
    return comment.startswith("#!") or DirectiveReader().take(comment.lstrip(WHITE_SPACE)) is not None
