"""Dockerfile bytes -> typed Dockerfile: global ARGs, stages and their instructions; and ONBUILD triggers of a base.

An error at the level of lines, anywhere in the file, wins over an error of an instruction. It expands nothing.
"""

from __future__ import annotations

from dataclasses import replace

from grammar import lint_syntax
from grammar.errors import MAX_ERRORS, DockerfileError, first_of
from grammar.instructions import build, build_stage
from grammar.lint import Linter
from grammar.nodes import ArgInstruction, AstNode, Dockerfile, Instruction, Stage
from grammar.parser import parse_ast, read_ast


def parse(source: bytes, *, filename: str = "Dockerfile", linter: Linter | None = None) -> Dockerfile:
    """The typed form of `source`; `linter` gets what the syntax gives reason to remark, up to the first error.
    Raises DockerfileError, located, for whatever BuildKit refuses too; what is wrong in other instructions is in its
    `others`."""
    linter = linter or Linter()
    ast, errors = read_ast(source, filename=filename)
    reader = _StageReader(source, filename, Linter() if errors else linter)
    if not errors:
        lint_syntax.check_lines(ast, linter)
    for node in ast.nodes:
        if len(errors) + len(reader.errors) >= MAX_ERRORS:
            break
        reader.take(node)
    errors += reader.errors
    if errors:
        raise first_of(errors)
    lint_syntax.check_stages(reader.stages(), linter)
    return Dockerfile(
        escape=ast.escape,
        directives=ast.directives,
        syntax=ast.syntax,
        meta_args=tuple(reader.meta_args),
        stages=reader.stages(),
        warnings=ast.warnings,
        source=source,
        filename=filename,
    )


def parse_trigger(text: str) -> Instruction:
    """The instruction in one ONBUILD trigger of a base image, with the backslash as escape, whatever the file has
    that it is in or used by. Raises DockerfileError, also for FROM."""
    source = text.encode("utf-8", "surrogateescape")
    name = "ONBUILD trigger"
    ast = parse_ast(source, filename=name)
    node = ast.nodes[0]
    if len(ast.nodes) != 1:
        raise _located(DockerfileError("trigger has more than one instruction, expected one"), node, source, name)
    if node.keyword == "FROM":
        raise _located(DockerfileError("FROM is not allowed in a trigger"), node, source, name)
    try:
        return build(node)
    except DockerfileError as error:
        raise _located(error, node, source, name) from None


class _StageReader:
    """Groups instructions into stages, and keeps what is wrong with them."""

    def __init__(self, source: bytes, filename: str, linter: Linter) -> None:
        self.meta_args: list[ArgInstruction] = []
        self.errors: list[DockerfileError] = []
        self._source = source
        self._filename = filename
        self._linter = linter
        self._stages: list[Stage] = []
        self._commands: list[list[Instruction]] = []
        self._has_stage = False
        """Whether a FROM was seen, be it a wrong one: what follows it is not blamed for that."""

    def stages(self) -> tuple[Stage, ...]:
        filled = zip(self._stages, self._commands, strict=True)
        return tuple(replace(stage, commands=tuple(own)) for stage, own in filled)

    def take(self, node: AstNode) -> None:
        try:
            self._take(node)
        except DockerfileError as error:
            self.errors.append(_located(error, node, self._source, self._filename))

    def _take(self, node: AstNode) -> None:
        linter = Linter() if self.errors else self._linter
        lint_syntax.check_before(node, linter)
        if node.keyword == "FROM":
            self._has_stage = True
            self._stages.append(build_stage(node))
            self._commands.append([])
            lint_syntax.check_after(node, self._stages[-1], linter)
            return
        instruction = build(node)
        lint_syntax.check_after(node, instruction, linter)
        if self._stages:
            self._commands[-1].append(instruction)
        elif isinstance(instruction, ArgInstruction):
            self.meta_args.append(instruction)
        elif not self._has_stage:
            self._has_stage = True
            raise DockerfileError(
                f"no build stage in current context: {node.keyword} is before the first FROM",
                hint="only ARG can be there",
                subject=node.instr,
            )


def _located(error: DockerfileError, node: AstNode, source: bytes, filename: str) -> DockerfileError:
    return error.located(node.range, filename=filename, source=source.decode("utf-8", "surrogateescape"))
