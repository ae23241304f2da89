"""The checks of hadolint's rules: one pass over the typed Dockerfile. It expands nothing.

Source: hadolint's documentation of each rule.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from grammar import nodes
from grammar import rules_hadolint as rules
from grammar.errors import DockerfileError
from grammar.lint import Linter
from grammar.nodes import Dockerfile, Instruction, Stage
from grammar.position import Range
from grammar.rules import Rule
from grammar.stages import parse_trigger

_ARCHIVE = re.compile(r"\.(?:tar|tgz|tbz2?|txz|tlz|tZ|tzst|Z|bz2|gz|lz|lzma|xz|zst|zip)\Z")
_LABEL_KEY = re.compile(r"(?!com\.docker\.|io\.docker\.|org\.dockerproject\.)[a-z](?:[a-z0-9./_-]*[a-z0-9])?")
_SENSITIVE = re.compile(
    "api_?key|client_key|_key_id|access_key|application_key|password|passwd|private|secret|token|username|credential",
    re.IGNORECASE,
)
_WINDOWS_ROOT = re.compile("[A-Za-z]:")
_RESERVED = ("scratch", "context")


Report = Callable[[Rule, str], None]


def check_dockerfile(dockerfile: Dockerfile, linter: Linter) -> None:
    """All of hadolint's rules that are on."""
    stages: list[_StageCheck] = []
    for stage in dockerfile.stages:
        check = _StageCheck(stage, stages, linter)
        check.check_from()
        for instruction in stage.commands:
            check.take(instruction)
        check.finish()
        stages.append(check)
    _check_health(stages)


class _StageCheck:
    """One stage while its instructions are read."""

    def __init__(self, stage: Stage, before: list[_StageCheck], linter: Linter) -> None:
        self.stage = stage
        self.below = next((other for other in reversed(before) if other.stage.name == stage.base), None)
        self.is_checked = False
        """Whether it has a HEALTHCHECK."""
        self.has_workdir: bool = self.below.has_workdir if self.below else False
        self._names = {other.stage.name for other in before} - {""}
        self._index = len(before)
        self._linter = linter
        self._root_user: nodes.UserInstruction | None = None
        self._variables: set[str] = set()
        self._arguments: set[str] = set()

    def reporter(self, place: Range, comments: Sequence[str]) -> Report:
        """What notes findings about some lines."""
        linter = self._linter.for_comments(comments)
        return lambda rule, text: linter.report(rule, place, text)

    def check_from(self) -> None:
        """FROM itself."""
        stage = self.stage
        report = self.reporter(stage.range, stage.comments)
        name, at_sign, _ = stage.base.partition("@")
        _, colon, tag = name.rpartition("/")[2].partition(":")
        if not at_sign and not colon and name != "scratch" and name not in self._names and not name.startswith("$"):
            report(rules.DL3006, stage.base)
        if not at_sign and tag == "latest":
            report(rules.DL3007, stage.base)
        if stage.name in self._names:
            report(rules.DL3024, stage.name)
        if stage.name in _RESERVED:
            report(rules.DL3063, stage.name)
        if stage.platform and not re.search("BUILDPLATFORM|TARGETPLATFORM", stage.platform):
            report(rules.DL3029, stage.platform)
        if stage.platform in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
            report(rules.DL3065, stage.platform)

    def take(self, instruction: Instruction) -> None:
        """The next instruction."""
        report = self.reporter(instruction.range, instruction.comments)
        check = _CHECKS.get(type(instruction))
        if check is not None:
            check(self, instruction, report)
        _check_secrets(instruction, report)

    def take_workdir(self, workdir: nodes.WorkdirInstruction, report: Report) -> None:
        self.has_workdir = True
        if not _is_absolute(workdir.path):
            report(rules.DL3000, workdir.path)

    def take_copy(self, copy: nodes.CopyInstruction, report: Report) -> None:
        dest = _bare(copy.dest)
        if len(copy.sources) + len(copy.contents) > 1 and not dest.endswith("/"):
            report(rules.DL3021, copy.dest)
        if not self.has_workdir and not _is_absolute(dest):
            report(rules.DL3045, copy.dest)
        if copy.from_:
            self._check_source(copy, report)

    def _check_source(self, copy: nodes.CopyInstruction, report: Report) -> None:
        wanted = copy.from_.lower()
        is_number = wanted.isdecimal() and int(wanted[:9]) < self._index
        if wanted == self.stage.name:
            report(rules.DL3023, copy.from_)
        elif ":" not in wanted and wanted not in self._names and not is_number:
            report(rules.DL3022, copy.from_)
        if "/" in map(_bare, copy.sources) and _bare(copy.dest) == "/":
            report(rules.DL3067, copy.from_)

    def take_env(self, env: nodes.EnvInstruction, report: Report) -> None:
        for number, pair in enumerate(env.pairs):
            name = re.escape(pair.key)
            used = re.compile(rf"\$(?:\{{{name}\}}|{name}(?![0-9A-Za-z_]))")
            others = [other.value for index, other in enumerate(env.pairs) if index != number]
            if pair.key not in self._variables and any(used.search(value) for value in others):
                report(rules.DL3044, pair.key)
        self._variables |= {pair.key for pair in env.pairs}

    def take_arg(self, arg: nodes.ArgInstruction, _report: Report) -> None:
        self._arguments |= {value.key for value in arg.args}
        self._variables |= self._arguments

    def take_user(self, user: nodes.UserInstruction, report: Report) -> None:
        name = user.user.partition(":")[0]
        self._root_user = user if name in ("root", "0") else None
        is_argument = any(f"${key}" in user.user or f"${{{key}}}" in user.user for key in self._arguments)
        if not re.fullmatch("[0-9]*", name) and not is_argument:
            report(rules.DL3066, user.user)

    def take_healthcheck(self, check: nodes.HealthcheckInstruction, report: Report) -> None:
        if self.is_checked:
            report(rules.DL3012, check.name)
        if check.test[:1] == ("CMD-SHELL",):
            report(rules.DL3025, check.name)
        self.is_checked = True

    def finish(self) -> None:
        """What is known at the end of the stage only."""
        user = self._root_user
        if user is not None:
            self.reporter(user.range, user.comments)(rules.DL3002, user.user)


def _check_health(stages: list[_StageCheck]) -> None:
    """A stage is checked that says so, or that is built on or under one that does."""
    checked = {id(stage) for stage in stages if stage.is_checked}
    for stage in reversed(stages):
        if id(stage) in checked and stage.below is not None:
            checked.add(id(stage.below))
    for check in stages:
        if check.below is not None and id(check.below) in checked:
            checked.add(id(check))
        if id(check) not in checked:
            stage_node = check.stage
            report = check.reporter(stage_node.range, stage_node.comments)
            report(rules.DL3057, stage_node.name or stage_node.base)


def _check_add(_stage: _StageCheck, add: nodes.AddInstruction, report: Report) -> None:
    for source in map(_bare, add.sources):
        if not _ARCHIVE.search(source) and not source.startswith(("http://", "https://", "git@", "git://", "ssh://")):
            report(rules.DL3020, source)


def _check_label(_stage: _StageCheck, label: nodes.LabelInstruction, report: Report) -> None:
    for key in (_bare(pair.key) for pair in label.pairs):
        if not _LABEL_KEY.fullmatch(key) or ".." in key or "--" in key:
            report(rules.DL3048, key)


def _check_shell_form(
    _stage: _StageCheck, command: nodes.CmdInstruction | nodes.EntrypointInstruction, report: Report
) -> None:
    if command.shell:
        report(rules.DL3025, command.name)


def _check_trigger(_stage: _StageCheck, onbuild: nodes.OnbuildInstruction, report: Report) -> None:
    with contextlib.suppress(DockerfileError):
        _check_secrets(parse_trigger(onbuild.expression), report)


def _check_secrets(instruction: Instruction, report: Report) -> None:
    values: tuple[Any, ...] = ()
    if isinstance(instruction, nodes.ArgInstruction):
        values = instruction.args
    elif isinstance(instruction, nodes.EnvInstruction):
        values = instruction.pairs
    for value in values:
        if _SENSITIVE.search(value.key):
            report(rules.DL3064, value.key)


def _bare(text: str) -> str:
    """Without quotes around it."""
    return text.strip("\"'")


def _is_absolute(path: str) -> bool:
    """Whether a path is absolute, on any system, or begins with a variable."""
    path = _bare(path)
    return path.startswith(("/", "$")) or _WINDOWS_ROOT.match(path) is not None


_CHECKS: dict[type, Callable[[_StageCheck, Any, Report], None]] = {
    nodes.AddInstruction: _check_add,
    nodes.ArgInstruction: _StageCheck.take_arg,
    nodes.CmdInstruction: _check_shell_form,
    nodes.CopyInstruction: _StageCheck.take_copy,
    nodes.EntrypointInstruction: _check_shell_form,
    nodes.EnvInstruction: _StageCheck.take_env,
    nodes.HealthcheckInstruction: _StageCheck.take_healthcheck,
    nodes.LabelInstruction: _check_label,
    nodes.OnbuildInstruction: _check_trigger,
    nodes.UserInstruction: _StageCheck.take_user,
    nodes.WorkdirInstruction: _StageCheck.take_workdir,
}
