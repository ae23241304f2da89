"""One instruction of the syntax tree -> its typed form; what is accepted and in which order faults are found.

A builder per keyword. It knows neither stages nor other instructions.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from grammar import command_instructions, file_instructions, nodes
from grammar.characters import quoted, shortened, to_lower, to_upper, trim
from grammar.errors import DockerfileError, nearest
from grammar.flags import FlagKind, parse_flags
from grammar.instruction_common import NO_FLAGS, common, needs_arguments, one_argument

_FROM_FLAGS = {"platform": FlagKind.TEXT}

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
_ONBUILD = re.compile(r"[\t\n\f\r ]*ONBUILD[\t\n\f\r ]*", re.IGNORECASE | re.ASCII)


def build(node: nodes.AstNode) -> nodes.Instruction:
    """The typed form of any instruction but FROM. Raises DockerfileError."""
    builder = _BUILDERS.get(node.keyword)
    if builder is None:
        raise _unknown(node.instr)
    return builder(node)


def build_stage(node: nodes.AstNode) -> nodes.Stage:
    """A stage without commands, from FROM. Raises DockerfileError."""
    name = _stage_name(node.args)
    flags = parse_flags(node.flags, _FROM_FLAGS)
    return nodes.Stage(
        name=name,
        base=node.args[0],
        platform=flags.text("platform"),
        commands=(),
        source=trim(node.original),
        doc=_doc_comment(node.comments, name),
        range=node.range,
        keyword=node.instr,
        comments=node.comments,
    )


def _unknown(instr: str) -> DockerfileError:
    near = nearest(instr, [*_BUILDERS, "FROM"]) if instr else None
    hint = f"did you mean {near}?" if near else None
    return DockerfileError(f"unknown instruction: {shortened(instr)}", hint=hint, subject=instr)


def _stage_name(args: tuple[str, ...]) -> str:
    if len(args) == 3 and args[1].casefold() == "as":
        name = to_lower(args[2])
        if not _STAGE_NAME.fullmatch(name):
            raise DockerfileError(
                f"invalid name for build stage: {quoted(args[2])}, expected a letter, then letters, digits, - _ or .",
                subject=args[2],
            )
        return name
    if len(args) != 1:
        raise DockerfileError(
            f"FROM requires either one or three arguments, an image or an image AS a name, got {len(args)}"
        )
    return ""


def _doc_comment(comments: tuple[str, ...], name: str) -> str:
    """The first comment that starts with `name` and a space, without these."""
    if not name:
        return ""
    return next((comment[len(name) + 1 :] for comment in comments if comment.startswith(name + " ")), "")


def _arg(node: nodes.AstNode) -> nodes.ArgInstruction:
    needs_arguments(node)
    values = []
    for word in node.args:
        key, equals, default = word.partition("=")
        if not key:
            raise DockerfileError(f"ARG {quoted(word)} has no name, expected name=value", subject=word)
        values.append(nodes.ArgValue(key, default if equals else None, _doc_comment(node.comments, key)))
    return nodes.ArgInstruction(**common(node), args=tuple(values))


def _pairs(node: nodes.AstNode) -> tuple[nodes.KeyValue, ...]:
    parse_flags(node.flags, NO_FLAGS)
    needs_arguments(node)
    for pair in node.pairs:
        if not pair.key:
            raise DockerfileError(f"{node.keyword} value {quoted(pair.value)} has no name, expected name=value")
    return node.pairs


def _env(node: nodes.AstNode) -> nodes.EnvInstruction:
    return nodes.EnvInstruction(**common(node), pairs=_pairs(node))


def _label(node: nodes.AstNode) -> nodes.LabelInstruction:
    return nodes.LabelInstruction(**common(node), pairs=_pairs(node))


def _workdir(node: nodes.AstNode) -> nodes.WorkdirInstruction:
    path = one_argument(node)
    parse_flags(node.flags, NO_FLAGS)
    return nodes.WorkdirInstruction(**common(node), path=path)


def _user(node: nodes.AstNode) -> nodes.UserInstruction:
    user = one_argument(node)
    parse_flags(node.flags, NO_FLAGS)
    return nodes.UserInstruction(**common(node), user=user)


def _stopsignal(node: nodes.AstNode) -> nodes.StopSignalInstruction:
    return nodes.StopSignalInstruction(**common(node), signal=one_argument(node))


def _maintainer(node: nodes.AstNode) -> nodes.MaintainerInstruction:
    maintainer = one_argument(node)
    parse_flags(node.flags, NO_FLAGS)
    return nodes.MaintainerInstruction(**common(node), maintainer=maintainer)


def _expose(node: nodes.AstNode) -> nodes.ExposeInstruction:
    needs_arguments(node)
    parse_flags(node.flags, NO_FLAGS)
    ports = sorted(node.args, key=lambda word: word.encode("utf-8", "surrogateescape"))
    return nodes.ExposeInstruction(**common(node), ports=tuple(ports))


def _volume(node: nodes.AstNode) -> nodes.VolumeInstruction:
    needs_arguments(node)
    parse_flags(node.flags, NO_FLAGS)
    volumes = tuple(trim(word) for word in node.args)
    if "" in volumes:
        raise DockerfileError("VOLUME has an empty path, expected a path")
    return nodes.VolumeInstruction(**common(node), volumes=volumes)


def _onbuild(node: nodes.AstNode) -> nodes.OnbuildInstruction:
    if node.child is None:
        raise DockerfileError("ONBUILD requires at least one argument, an instruction", subject=node.instr)
    parse_flags(node.flags, NO_FLAGS)
    trigger = to_upper(trim(node.child.instr))
    if trigger in ("ONBUILD", "MAINTAINER", "FROM"):
        raise DockerfileError(f"{trigger} is not allowed inside ONBUILD", subject=node.child.instr)
    expression = _ONBUILD.sub("", node.original, count=1) if _ONBUILD.match(node.original) else node.original
    bodies = "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in node.heredocs)
    return nodes.OnbuildInstruction(**common(node), expression=expression + bodies)


_BUILDERS: dict[str, Callable[[nodes.AstNode], nodes.Instruction]] = {
    "ADD": file_instructions.build_add,
    "ARG": _arg,
    "CMD": command_instructions.build_cmd,
    "COPY": file_instructions.build_copy,
    "ENTRYPOINT": command_instructions.build_entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": command_instructions.build_healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": command_instructions.build_run,
    "SHELL": command_instructions.build_shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
