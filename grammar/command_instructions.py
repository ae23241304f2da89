"""RUN, CMD, ENTRYPOINT, SHELL and HEALTHCHECK, typed: command lines in shell or exec form, and their flags."""

from __future__ import annotations

import re

from grammar import nodes
from grammar.characters import quoted, to_upper
from grammar.errors import DockerfileError, nearest
from grammar.flags import FlagKind, FlagValues, parse_flags
from grammar.instruction_common import NO_FLAGS, common, needs_arguments
from grammar.mount_flag import parse_device, parse_mount
from grammar.values import parse_duration

_RUN_FLAGS = {
    "mount": FlagKind.TEXTS,
    "network": FlagKind.TEXT,
    "security": FlagKind.TEXT,
    "device": FlagKind.TEXTS,
}
_HEALTH_FLAGS = dict.fromkeys(("interval", "timeout", "start-period", "start-interval", "retries"), FlagKind.TEXT)
_INT = re.compile(r"[+-]?[0-9]{1,4000}")
_MIN_INTERVAL_NS = 10**6


def _files(node: nodes.AstNode) -> tuple[nodes.HeredocFile, ...]:
    return tuple(nodes.HeredocFile(doc.name, doc.content, doc.chomp, doc.expand) for doc in node.heredocs)


def build_run(node: nodes.AstNode) -> nodes.RunInstruction:
    """RUN. Mounts are only checked as far as they can be without variables. Raises DockerfileError."""
    flags = parse_flags(node.flags, _RUN_FLAGS)
    devices = tuple(parse_device(value) for value in flags.texts("device"))
    for mount in flags.texts("mount"):
        parse_mount(mount, None)
    return nodes.RunInstruction(
        **common(node),
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
        near = nearest(value, list(known))
        raise DockerfileError(
            f"flag --{name} is {quoted(value)}, expected one of {', '.join(known)}",
            hint=f"did you mean {near}?" if near else None,
            subject=f"--{name}",
        )
    return value


def build_cmd(node: nodes.AstNode) -> nodes.CmdInstruction:
    """CMD. Raises DockerfileError."""
    parse_flags(node.flags, NO_FLAGS)
    return nodes.CmdInstruction(**common(node), cmdline=node.args, shell=not node.json, files=_files(node))


def build_entrypoint(node: nodes.AstNode) -> nodes.EntrypointInstruction:
    """ENTRYPOINT; an empty one has no command line at all. Raises DockerfileError."""
    parse_flags(node.flags, NO_FLAGS)
    cmdline = node.args or None
    return nodes.EntrypointInstruction(**common(node), cmdline=cmdline, shell=not node.json, files=_files(node))


def build_shell(node: nodes.AstNode) -> nodes.ShellInstruction:
    """SHELL, in JSON form only. Raises DockerfileError."""
    parse_flags(node.flags, NO_FLAGS)
    needs_arguments(node)
    if not node.json:
        raise DockerfileError(
            "SHELL requires the arguments to be in JSON form", hint='for example SHELL ["/bin/sh", "-c"]'
        )
    return nodes.ShellInstruction(**common(node), value=node.args)


def build_healthcheck(node: nodes.AstNode) -> nodes.HealthcheckInstruction:
    """HEALTHCHECK; with NONE its flags are not looked at. Raises DockerfileError."""
    needs_arguments(node)
    kind, command = to_upper(node.args[0]), node.args[1:]
    if kind == "NONE":
        if command:
            raise DockerfileError("HEALTHCHECK NONE has arguments, expected none", subject=command[0])
        return nodes.HealthcheckInstruction(
            **common(node), test=("NONE",), interval=0, timeout=0, start_period=0, start_interval=0, retries=0
        )
    flags = parse_flags(node.flags, _HEALTH_FLAGS)
    if kind != "CMD":
        near = nearest(kind, ["CMD", "NONE"])
        raise DockerfileError(
            f"HEALTHCHECK type {quoted(node.args[0])} is not known, expected CMD or NONE",
            hint=f"did you mean {near}?" if near else None,
            subject=node.args[0],
        )
    if not command:
        raise DockerfileError("missing command after HEALTHCHECK CMD", subject=node.args[0])
    return nodes.HealthcheckInstruction(
        **common(node),
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
