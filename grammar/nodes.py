"""The typed Dockerfile: one frozen class per instruction, stages, and the untyped nodes that they are made from.

All text is `str` with surrogateescape, so that any byte of the source survives. Nothing here is expanded: variables
and quotes stand as they were written. It knows neither how a node is parsed nor what an instruction does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from grammar.mount_flag import Device
from grammar.position import Range


class Directive(NamedTuple):
    """`# name=value` at the top of the file; `name` is lower case."""

    name: str
    value: str
    line: int


class Syntax(NamedTuple):
    """The front end that the file asks for: the image, the whole directive value, the line."""

    ref: str
    cmdline: str
    line: int


class Heredoc(NamedTuple):
    """A body after an instruction, raw: tabs are stripped on use (`chomp`), variables expanded on use (`expand`)."""

    name: str
    fd: int
    expand: bool
    chomp: bool
    content: str


class ParserWarning(NamedTuple):
    """Something deprecated that the line reader saw."""

    message: str
    line: int


@dataclass(frozen=True, slots=True)
class AstNode:
    """One instruction as the line grammar sees it: words, not yet meaning."""

    keyword: str
    """Canonical upper-case keyword; "" for an unknown instruction."""
    instr: str
    """The keyword as it was written."""
    original: str
    """The joined logical line, without heredoc bodies."""
    flags: tuple[str, ...]
    args: tuple[str, ...]
    json: bool
    child: AstNode | None
    """The instruction inside ONBUILD."""
    range: Range
    heredocs: tuple[Heredoc, ...] = ()
    comments: tuple[str, ...] = ()
    pairs: tuple[KeyValue, ...] = ()
    """ENV and LABEL only: what `args` holds, as pairs."""


@dataclass(frozen=True, slots=True)
class Ast:
    """All instructions of a file, in order."""

    escape: str
    directives: tuple[Directive, ...]
    syntax: Syntax | None
    nodes: tuple[AstNode, ...]
    warnings: tuple[ParserWarning, ...]


class KeyValue(NamedTuple):
    """A pair of ENV or LABEL; `legacy` if it was written without `=`."""

    key: str
    value: str
    legacy: bool = False


class ArgValue(NamedTuple):
    """A name of ARG with its default (None: no default) and its doc comment."""

    key: str
    value: str | None
    doc: str = ""


class HeredocFile(NamedTuple):
    """A heredoc of RUN, CMD or ENTRYPOINT; `data` is raw."""

    name: str
    data: str
    chomp: bool
    expand: bool


class SourceContent(NamedTuple):
    """A heredoc source of COPY or ADD; `data` has its tabs chomped, but is not expanded."""

    path: str
    data: str
    expand: bool


@dataclass(frozen=True, slots=True)
class Instruction:
    """What every instruction has."""

    keyword: str
    """Canonical upper-case keyword."""
    name: str
    """The keyword as it was written."""
    original: str
    """The joined logical line, trimmed, without heredoc bodies."""
    range: Range
    flags: tuple[str, ...]
    """`--name=value` with quotes removed, in order."""
    comments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ArgInstruction(Instruction):
    args: tuple[ArgValue, ...]


@dataclass(frozen=True, slots=True)
class EnvInstruction(Instruction):
    pairs: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class LabelInstruction(Instruction):
    pairs: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class CommandLineInstruction(Instruction):
    """RUN, CMD and ENTRYPOINT: a command line in exec form, or one string for the shell."""

    cmdline: tuple[str, ...] | None
    """None is not (): `ENTRYPOINT []` gives None, `CMD []` an empty tuple."""
    shell: bool
    files: tuple[HeredocFile, ...]


@dataclass(frozen=True, slots=True)
class RunInstruction(CommandLineInstruction):
    mounts: tuple[str, ...]
    """Values of --mount as written; `mount_flag.parse_mount` evaluates one with an expander."""
    network: str
    security: str
    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class CmdInstruction(CommandLineInstruction):
    pass


@dataclass(frozen=True, slots=True)
class EntrypointInstruction(CommandLineInstruction):
    pass


@dataclass(frozen=True, slots=True)
class ShellInstruction(Instruction):
    value: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FilesInstruction(Instruction):
    """What COPY and ADD share."""

    sources: tuple[str, ...]
    dest: str
    contents: tuple[SourceContent, ...]
    chown: str
    chmod: str
    link: bool
    exclude: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CopyInstruction(FilesInstruction):
    from_: str
    parents: bool


@dataclass(frozen=True, slots=True)
class AddInstruction(FilesInstruction):
    checksum: str
    keep_git_dir: bool | None
    unpack: bool | None


@dataclass(frozen=True, slots=True)
class WorkdirInstruction(Instruction):
    path: str


@dataclass(frozen=True, slots=True)
class UserInstruction(Instruction):
    user: str


@dataclass(frozen=True, slots=True)
class StopSignalInstruction(Instruction):
    signal: str


@dataclass(frozen=True, slots=True)
class MaintainerInstruction(Instruction):
    maintainer: str


@dataclass(frozen=True, slots=True)
class ExposeInstruction(Instruction):
    ports: tuple[str, ...]
    """Unexpanded words, sorted as strings."""


@dataclass(frozen=True, slots=True)
class VolumeInstruction(Instruction):
    volumes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HealthcheckInstruction(Instruction):
    test: tuple[str, ...]
    """("NONE",), ("CMD-SHELL", text) or ("CMD", arg, ...)."""
    interval: int
    """Nanoseconds, as the next three; 0: not given."""
    timeout: int
    start_period: int
    start_interval: int
    retries: int


@dataclass(frozen=True, slots=True)
class OnbuildInstruction(Instruction):
    expression: str
    """Text of the trigger, with its heredoc bodies."""


@dataclass(frozen=True, slots=True)
class Stage:
    """FROM and the instructions up to the next one."""

    name: str
    """Lower case; "" if it has none."""
    base: str
    platform: str
    commands: tuple[Instruction, ...]
    source: str
    """The FROM line, trimmed."""
    doc: str
    range: Range
    keyword: str
    """FROM as it was written."""
    comments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A whole file, typed."""

    escape: str
    directives: tuple[Directive, ...]
    syntax: Syntax | None
    meta_args: tuple[ArgInstruction, ...]
    """ARG before the first FROM."""
    stages: tuple[Stage, ...]
    warnings: tuple[ParserWarning, ...]
    source: bytes
    filename: str
