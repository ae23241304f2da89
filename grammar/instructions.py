"""One instruction of the syntax tree -> its typed form; what is accepted and in which order faults are found.

A builder per keyword. It knows neither stages nor other instructions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypedDict

from grammar import nodes
from grammar.characters import quoted, to_lower, to_upper, trim
from grammar.errors import DockerfileError, nearest
from grammar.flags import FlagKind, FlagValues, parse_flags
from grammar.heredoc import chomp, is_heredoc
from grammar.mount_flag import parse_device, parse_mount
from grammar.position import Range
from grammar.values import parse_duration

_NO_FLAGS: dict[str, FlagKind] = {}
_FILE_FLAGS = {
    "chown": FlagKind.TEXT,
    "chmod": FlagKind.TEXT,
    "link": FlagKind.BOOLEAN,
    "exclude": FlagKind.TEXTS,
}
_COPY_FLAGS = {**_FILE_FLAGS, "from": FlagKind.TEXT, "parents": FlagKind.BOOLEAN}
_ADD_FLAGS = {
    **_FILE_FLAGS,
    "keep-git-dir": FlagKind.BOOLEAN,
    "checksum": FlagKind.TEXT,
    "unpack": FlagKind.BOOLEAN,
}
_RUN_FLAGS = {
    "mount": FlagKind.TEXTS,
    "network": FlagKind.TEXT,
    "security": FlagKind.TEXT,
    "device": FlagKind.TEXTS,
}
_HEALTH_FLAGS = dict.fromkeys(("interval", "timeout", "start-period", "start-interval", "retries"), FlagKind.TEXT)
_FROM_FLAGS = {"platform": FlagKind.TEXT}

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
_ONBUILD = re.compile(r"[\t\n\f\r ]*ONBUILD[\t\n\f\r ]*", re.IGNORECASE | re.ASCII)
_INT = re.compile(r"[+-]?[0-9]{1,4000}")
_MIN_INTERVAL_NS = 10**6


class _Common(TypedDict):
    keyword: str
    name: str
    original: str
    range: Range
    flags: tuple[str, ...]
    comments: tuple[str, ...]


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
    return DockerfileError(f"unknown instruction: {instr}", hint=hint, subject=instr)


def _stage_name(args: tuple[str, ...]) -> str:
    if len(args) == 3 and args[1].casefold() == "as":
        name = to_lower(args[2])
        if not _STAGE_NAME.fullmatch(name):
            raise DockerfileError(
                f"stage name {quoted(args[2])} is not valid, expected a letter, then letters, digits, - _ or .",
                subject=args[2],
            )
        return name
    if len(args) != 1:
        raise DockerfileError(f"FROM has {len(args)} arguments, expected an image, or an image AS a name")
    return ""


def _doc_comment(comments: tuple[str, ...], name: str) -> str:
    """The first comment that starts with `name` and a space, without these."""
    if not name:
        return ""
    return next((comment[len(name) + 1 :] for comment in comments if comment.startswith(name + " ")), "")


def _common(node: nodes.AstNode) -> _Common:
    return {
        "keyword": node.keyword,
        "name": node.instr,
        "original": trim(node.original),
        "range": node.range,
        "flags": node.flags,
        "comments": node.comments,
    }


def _needs_arguments(node: nodes.AstNode) -> None:
    if not node.args:
        raise DockerfileError(f"{node.keyword} has no arguments, expected at least one", subject=node.instr)


def _one_argument(node: nodes.AstNode) -> str:
    if len(node.args) != 1:
        raise DockerfileError(f"{node.keyword} has no argument, expected one", subject=node.instr)
    return node.args[0]


def _arg(node: nodes.AstNode) -> nodes.ArgInstruction:
    _needs_arguments(node)
    values = []
    for word in node.args:
        key, equals, default = word.partition("=")
        if not key:
            raise DockerfileError(f"ARG {quoted(word)} has no name, expected name=value", subject=word)
        values.append(nodes.ArgValue(key, default if equals else None, _doc_comment(node.comments, key)))
    return nodes.ArgInstruction(**_common(node), args=tuple(values))


def _pairs(node: nodes.AstNode) -> tuple[nodes.KeyValue, ...]:
    parse_flags(node.flags, _NO_FLAGS)
    _needs_arguments(node)
    for pair in node.pairs:
        if not pair.key:
            raise DockerfileError(f"{node.keyword} value {quoted(pair.value)} has no name, expected name=value")
    return node.pairs


def _env(node: nodes.AstNode) -> nodes.EnvInstruction:
    return nodes.EnvInstruction(**_common(node), pairs=_pairs(node))


def _label(node: nodes.AstNode) -> nodes.LabelInstruction:
    return nodes.LabelInstruction(**_common(node), pairs=_pairs(node))


def _files(node: nodes.AstNode) -> tuple[nodes.HeredocFile, ...]:
    return tuple(nodes.HeredocFile(doc.name, doc.content, doc.chomp, doc.expand) for doc in node.heredocs)


def _run(node: nodes.AstNode) -> nodes.RunInstruction:
    flags = parse_flags(node.flags, _RUN_FLAGS)
    devices = tuple(parse_device(value) for value in flags.texts("device"))
    for mount in flags.texts("mount"):
        parse_mount(mount, None)
    return nodes.RunInstruction(
        **_common(node),
        cmdline=node.args,
        shell=not node.json,
        files=_files(node),
        mounts=flags.texts("mount"),
        network=_choice(flags, "network", ("default", "none", "host")),
        security=_choice(flags, "security", ("sandbox", "insecure")),
        devices=devices,
    )


def _choice(flags: FlagValues, name: str, known: tuple[str, ...]) -> str:
    """The value of a flag that has few; the first is the default."""
    value = flags.text(name, known[0])
    if value not in known:
        raise DockerfileError(
            f"flag --{name} is {quoted(value)}, expected one of {', '.join(known)}", subject=f"--{name}"
        )
    return value


def _cmd(node: nodes.AstNode) -> nodes.CmdInstruction:
    parse_flags(node.flags, _NO_FLAGS)
    return nodes.CmdInstruction(**_common(node), cmdline=node.args, shell=not node.json, files=_files(node))


def _entrypoint(node: nodes.AstNode) -> nodes.EntrypointInstruction:
    parse_flags(node.flags, _NO_FLAGS)
    cmdline = node.args or None
    return nodes.EntrypointInstruction(**_common(node), cmdline=cmdline, shell=not node.json, files=_files(node))


def _shell(node: nodes.AstNode) -> nodes.ShellInstruction:
    parse_flags(node.flags, _NO_FLAGS)
    _needs_arguments(node)
    if not node.json:
        raise DockerfileError(
            f"SHELL {quoted(node.args[0])} is not in JSON form", hint='for example SHELL ["/bin/sh", "-c"]'
        )
    return nodes.ShellInstruction(**_common(node), value=node.args)


def _copy(node: nodes.AstNode) -> nodes.CopyInstruction:
    _needs_destination(node)
    flags = parse_flags(node.flags, _COPY_FLAGS)
    sources, contents = _sources(node)
    return nodes.CopyInstruction(
        **_common(node),
        sources=sources,
        dest=node.args[-1],
        contents=contents,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.is_true("link"),
        exclude=flags.texts("exclude"),
        from_=flags.text("from"),
        parents=flags.is_true("parents"),
    )


def _add(node: nodes.AstNode) -> nodes.AddInstruction:
    _needs_destination(node)
    flags = parse_flags(node.flags, _ADD_FLAGS)
    sources, contents = _sources(node)
    return nodes.AddInstruction(
        **_common(node),
        sources=sources,
        dest=node.args[-1],
        contents=contents,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.is_true("link"),
        exclude=flags.texts("exclude"),
        checksum=flags.text("checksum"),
        keep_git_dir=flags.boolean("keep-git-dir"),
        unpack=flags.boolean("unpack"),
    )


def _needs_destination(node: nodes.AstNode) -> None:
    if len(node.args) < 2:
        raise DockerfileError(
            f"{node.keyword} has {len(node.args)} arguments, expected at least a source and a destination"
        )


def _sources(node: nodes.AstNode) -> tuple[tuple[str, ...], tuple[nodes.SourceContent, ...]]:
    """The paths and the heredocs among the sources. Of two heredocs with one name, both get the last body."""
    if is_heredoc(node.args[-1]):
        raise DockerfileError(
            f"{node.keyword} destination {quoted(node.args[-1])} is a heredoc, expected a path", subject=node.args[-1]
        )
    bodies = {heredoc.name: heredoc.content for heredoc in node.heredocs}
    paths: list[str] = []
    contents: list[nodes.SourceContent] = []
    for word in node.args[:-1]:
        heredoc = is_heredoc(word)
        if heredoc is None:
            paths.append(word)
        else:
            body = bodies.get(heredoc.name, "")
            contents.append(nodes.SourceContent(heredoc.name, chomp(body) if heredoc.chomp else body, heredoc.expand))
    return tuple(paths), tuple(contents)


def _workdir(node: nodes.AstNode) -> nodes.WorkdirInstruction:
    path = _one_argument(node)
    parse_flags(node.flags, _NO_FLAGS)
    return nodes.WorkdirInstruction(**_common(node), path=path)


def _user(node: nodes.AstNode) -> nodes.UserInstruction:
    user = _one_argument(node)
    parse_flags(node.flags, _NO_FLAGS)
    return nodes.UserInstruction(**_common(node), user=user)


def _stopsignal(node: nodes.AstNode) -> nodes.StopSignalInstruction:
    return nodes.StopSignalInstruction(**_common(node), signal=_one_argument(node))


def _maintainer(node: nodes.AstNode) -> nodes.MaintainerInstruction:
    maintainer = _one_argument(node)
    parse_flags(node.flags, _NO_FLAGS)
    return nodes.MaintainerInstruction(**_common(node), maintainer=maintainer)


def _expose(node: nodes.AstNode) -> nodes.ExposeInstruction:
    _needs_arguments(node)
    parse_flags(node.flags, _NO_FLAGS)
    ports = sorted(node.args, key=lambda word: word.encode("utf-8", "surrogateescape"))
    return nodes.ExposeInstruction(**_common(node), ports=tuple(ports))


def _volume(node: nodes.AstNode) -> nodes.VolumeInstruction:
    _needs_arguments(node)
    parse_flags(node.flags, _NO_FLAGS)
    volumes = tuple(trim(word) for word in node.args)
    if "" in volumes:
        raise DockerfileError("VOLUME has an empty path, expected a path")
    return nodes.VolumeInstruction(**_common(node), volumes=volumes)


def _healthcheck(node: nodes.AstNode) -> nodes.HealthcheckInstruction:
    _needs_arguments(node)
    kind, command = to_upper(node.args[0]), node.args[1:]
    if kind == "NONE":
        if command:
            raise DockerfileError("HEALTHCHECK NONE has arguments, expected none", subject=command[0])
        return nodes.HealthcheckInstruction(
            **_common(node), test=("NONE",), interval=0, timeout=0, start_period=0, start_interval=0, retries=0
        )
    flags = parse_flags(node.flags, _HEALTH_FLAGS)
    if kind != "CMD":
        raise DockerfileError(
            f"HEALTHCHECK type {quoted(node.args[0])} is not known, expected CMD or NONE", subject=node.args[0]
        )
    if not command:
        raise DockerfileError("HEALTHCHECK CMD has no command, expected one", subject=node.args[0])
    return nodes.HealthcheckInstruction(
        **_common(node),
        test=("CMD" if node.json else "CMD-SHELL", *command),
        interval=_interval(flags, "interval"),
        timeout=_interval(flags, "timeout"),
        start_period=_interval(flags, "start-period"),
        start_interval=_interval(flags, "start-interval"),
        retries=_retries(flags),
    )


def _interval(flags: FlagValues, name: str) -> int:
    """Nanoseconds, 0 if not given."""
    text = flags.text(name)
    if not text:
        return 0
    try:
        duration_ns = parse_duration(text)
    except DockerfileError as error:
        error.subject = f"--{name}"
        raise
    if duration_ns and duration_ns < _MIN_INTERVAL_NS:
        raise DockerfileError(f"flag --{name} is {quoted(text)}, expected 0 or at least 1ms", subject=f"--{name}")
    return duration_ns


def _retries(flags: FlagValues) -> int:
    text = flags.text("retries")
    if not text:
        return 0
    value = int(text) if _INT.fullmatch(text) else -1
    if not 0 <= value < 1 << 31:
        raise DockerfileError(
            f"flag --retries is {quoted(text)}, expected a number that is not negative", subject="--retries"
        )
    return value


def _onbuild(node: nodes.AstNode) -> nodes.OnbuildInstruction:
    if node.child is None:
        raise DockerfileError("ONBUILD has no arguments, expected an instruction", subject=node.instr)
    parse_flags(node.flags, _NO_FLAGS)
    trigger = to_upper(trim(node.child.instr))
    if trigger in ("ONBUILD", "MAINTAINER", "FROM"):
        raise DockerfileError(f"{trigger} is not allowed inside ONBUILD", subject=node.child.instr)
    expression = _ONBUILD.sub("", node.original, count=1) if _ONBUILD.match(node.original) else node.original
    bodies = "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in node.heredocs)
    return nodes.OnbuildInstruction(**_common(node), expression=expression + bodies)


_BUILDERS: dict[str, Callable[[nodes.AstNode], nodes.Instruction]] = {
    "ADD": _add,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
