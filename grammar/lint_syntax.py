"""Rules that need only the syntax: casing, comments, stage names. It expands nothing.

The checks of one instruction come before and after its typed form is made, so that what was found before an error is
kept. Source: BuildKit's instruction parser and validations.
"""

from __future__ import annotations

from collections.abc import Sequence

from grammar import rules
from grammar.characters import replace_undecodable, to_lower, to_upper
from grammar.lint import Linter
from grammar.nodes import ArgInstruction, Ast, AstNode, Instruction, Stage
from grammar.position import Range

_RESERVED_NAMES = ("context", "scratch")


def check_lines(ast: Ast, linter: Linter) -> None:
    """What the line reader saw."""
    for warning in ast.warnings:
        linter.report(rules.NO_EMPTY_CONTINUATION, Range(warning.line, warning.line))


def check_before(node: AstNode, linter: Linter) -> None:
    """An instruction that may turn out to be wrong."""
    linter = linter.for_comments(node.comments)
    if node.keyword == "MAINTAINER":
        linter.report(rules.MAINTAINER_DEPRECATED, node.range)
    if node.keyword != "FROM":
        return
    if len(node.args) == 3 and not is_lower(node.args[2]):
        linter.report(rules.STAGE_NAME_CASING, node.range, node.args[2])
    if len(node.args) >= 3 and not _casing_agrees(node.instr, node.args[1]):
        linter.report(rules.FROM_AS_CASING, node.range, node.args[1], node.instr)


def check_after(node: AstNode, made: Instruction | Stage, linter: Linter) -> None:
    """An instruction that was understood: the comment that describes what it defines."""
    names: tuple[str, ...] = ()
    if isinstance(made, Stage):
        names = (made.name,) if made.name else ()
    elif isinstance(made, ArgInstruction):
        names = tuple(arg.key for arg in made.args)
    if not names or not node.comments or node.comments[-1].split(" ", 1)[0] in names:
        return
    example = names[0] if len(names) == 1 else "<arg_key>"
    own = linter.for_comments(node.comments)
    own.report(rules.INVALID_DEFINITION_DESCRIPTION, node.range, node.keyword, example, subject=names[0])


def check_stages(stages: Sequence[Stage], linter: Linter) -> None:
    """The file as a whole: names of stages, and which casing most keywords have."""
    seen: set[str] = set()
    for stage in stages:
        if stage.name in _RESERVED_NAMES:
            linter.report(rules.RESERVED_STAGE_NAME, stage.range, stage.name)
        if stage.name in seen:
            linter.report(rules.DUPLICATE_STAGE_NAME, stage.range, stage.name)
        seen |= {stage.name} - {""}
    keywords = [entry for stage in stages for entry in _keywords(stage)]
    wants_lower = prefers_lower([word for word, _ in keywords])
    for word, place in keywords:
        if word != (to_lower(word) if wants_lower else to_upper(word)):
            casing = "lowercase" if wants_lower else "uppercase"
            linter.report(rules.CONSISTENT_INSTRUCTION_CASING, place, word, casing)


def _keywords(stage: Stage) -> list[tuple[str, Range]]:
    return [(stage.keyword, stage.range), *((command.name, command.range) for command in stage.commands)]


def prefers_lower(keywords: Sequence[str]) -> bool:
    """Whether most keywords are in lower case; mixed ones do not count, and a tie is for upper case."""
    lower = sum(is_lower(word) for word in keywords)
    upper = sum(is_upper(word) and not is_lower(word) for word in keywords)
    return lower > upper


def is_lower(text: str) -> bool:
    """Whether lower-casing changes nothing; bytes that are no text would be changed."""
    return to_lower(replace_undecodable(text)) == text


def is_upper(text: str) -> bool:
    """As `is_lower`."""
    return to_upper(replace_undecodable(text)) == text


def _casing_agrees(keyword: str, other: str) -> bool:
    """Whether AS is cased as FROM is; a mixed FROM is another rule's business."""
    if is_lower(keyword):
        return is_lower(other)
    return is_upper(other) if is_upper(keyword) else True
