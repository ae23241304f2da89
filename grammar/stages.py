"""Dockerfile bytes -> typed Dockerfile: global ARGs, stages and their instructions; and ONBUILD triggers of a base.

An error at the level of lines, anywhere in the file, wins over an error of an instruction. It expands nothing.
"""

from __future__ import annotations

from dataclasses import replace

from grammar.errors import DockerfileError
from grammar.instructions import build, build_stage
from grammar.nodes import ArgInstruction, Ast, AstNode, Dockerfile, Instruction, Stage
from grammar.parser import parse_ast


def parse(source: bytes, *, filename: str = "Dockerfile") -> Dockerfile:
    """The typed form of `source`. Raises DockerfileError, located, for whatever BuildKit refuses too."""
    ast = parse_ast(source, filename=filename)
    meta_args, stages = _grouped(ast, source, filename)
    return Dockerfile(
        escape=ast.escape,
        directives=ast.directives,
        syntax=ast.syntax,
        meta_args=meta_args,
        stages=stages,
        warnings=ast.warnings,
        source=source,
        filename=filename,
    )


def parse_trigger(text: str, escape: str = "\\") -> Instruction:
    """The instruction in one ONBUILD trigger of a base image. Raises DockerfileError, also for FROM."""
    source = text.encode("utf-8", "surrogateescape")
    name = "ONBUILD trigger"
    ast = parse_ast(source, filename=name, escape=escape)
    node = ast.nodes[0]
    if len(ast.nodes) != 1:
        raise _located(DockerfileError("trigger has more than one instruction, expected one"), node, source, name)
    if node.keyword == "FROM":
        raise _located(DockerfileError("FROM is not allowed in a trigger"), node, source, name)
    try:
        return build(node)
    except DockerfileError as error:
        raise _located(error, node, source, name) from None


def _grouped(ast: Ast, source: bytes, filename: str) -> tuple[tuple[ArgInstruction, ...], tuple[Stage, ...]]:
    """ARGs before the first FROM, and the stages."""
    meta_args: list[ArgInstruction] = []
    stages: list[Stage] = []
    commands: list[list[Instruction]] = []
    for node in ast.nodes:
        try:
            if node.keyword == "FROM":
                stages.append(build_stage(node))
                commands.append([])
                continue
            instruction = build(node)
            if stages:
                commands[-1].append(instruction)
            elif isinstance(instruction, ArgInstruction):
                meta_args.append(instruction)
            else:
                raise DockerfileError(
                    f"{node.keyword} is before the first FROM, expected only ARG there", subject=node.instr
                )
        except DockerfileError as error:
            raise _located(error, node, source, filename) from None
    filled = zip(stages, commands, strict=True)
    return tuple(meta_args), tuple(replace(stage, commands=tuple(own)) for stage, own in filled)


def _located(error: DockerfileError, node: AstNode, source: bytes, filename: str) -> DockerfileError:
    return error.located(node.range, filename=filename, source=source.decode("utf-8", "surrogateescape"))
