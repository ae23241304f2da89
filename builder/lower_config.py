"""Instructions that only say something about the image: what each changes in its config and its history.

Source: Dockerfile reference, and BuildKit's behaviour where the reference is silent.
"""

from __future__ import annotations

from collections.abc import Sequence

from builder import gofmt, workpath
from builder.config import ImageConfig
from builder.plan import FileOp, MkdirAction
from builder.redact import is_secret_name
from builder.step import UNSEEN_ARGS, Step
from grammar import nodes, rules
from grammar.ports import split_port


def with_shell(image: ImageConfig, cmdline: Sequence[str] | None, shell: bool) -> tuple[str, ...] | None:
    """The argument vector of a command: shell form is one string behind SHELL's words."""
    if shell:
        return (*image.shell, " ".join(cmdline or ()))
    return None if cmdline is None else tuple(cmdline)


def lower_env(instruction: nodes.EnvInstruction, step: Step) -> None:
    """ENV: every value is expanded with what was set before the line."""
    pairs = _expanded(instruction.pairs, step)
    for pair, (key, _) in zip(instruction.pairs, pairs, strict=True):
        _check_legacy(pair, step)
        _check_secret("ENV", key, step)
    step.image.set_env(pairs)
    for key, value in pairs:
        step.state.set_env(key, value)


def lower_label(instruction: nodes.LabelInstruction, step: Step) -> None:
    """LABEL."""
    pairs = _expanded(instruction.pairs, step)
    for pair in instruction.pairs:
        _check_legacy(pair, step)
    step.image.set_labels(pairs)


def _expanded(pairs: Sequence[nodes.KeyValue], step: Step) -> list[tuple[str, str]]:
    return [(step.word(pair.key), step.word(pair.value)) for pair in pairs]


def _check_legacy(pair: nodes.KeyValue, step: Step) -> None:
    if pair.legacy:
        step.report(rules.LEGACY_KEY_VALUE_FORMAT, step.command.instruction.name)


def _check_secret(keyword: str, name: str, step: Step) -> None:
    if is_secret_name(name):
        step.report(rules.SECRETS_USED_IN_ARG_OR_ENV, keyword, gofmt.quote(name), subject=name)


def lower_arg(instruction: nodes.ArgInstruction, step: Step) -> None:
    """ARG: --build-arg first, then the default, then a value from before the first FROM. Read left to right."""
    state, given = step.state, step.scope.options.build_args
    shown = []
    for pair in instruction.args:
        _check_secret("ARG", pair.key, step)
        value = pair.value
        if pair.key in given:
            value = given[pair.key]
        elif value is not None:
            value = step.word(value)
        else:
            value = step.scope.global_args.get(pair.key)
        if value is not None and pair.key not in UNSEEN_ARGS:
            state.set_env(pair.key, value)
        state.build_args.append((pair.key, value))
        shown.append(pair.key if value is None else f"{pair.key}={value}")
    step.image.commit("ARG " + " ".join(shown))


def lower_workdir(instruction: nodes.WorkdirInstruction, step: Step) -> None:
    """WORKDIR: relative to the one before; the directory is made, as the stage's user."""
    state, image = step.state, step.image
    path = step.word(instruction.path)
    if not state.workdir_set and not workpath.is_absolute(path, state.system):
        step.report(rules.WORKDIR_RELATIVE_PATH, gofmt.quote(path), subject=instruction.path)
    state.workdir_set = True
    found = workpath.workdir(image.working_dir, path, state.system)
    state.cwd = workpath.to_slash(found, state.system)
    if state.cwd != "/":
        name = step.name(step.scope.shown(instruction.original, state.env, raw=False))
        action = MkdirAction(state.cwd, 0o755, image.user)
        state.vertex = step.add(FileOp((action,)), (state.vertex,), name)
    image.set_working_dir(found, state.cwd)


def lower_command_line(instruction: nodes.CmdInstruction | nodes.EntrypointInstruction, step: Step) -> None:
    """CMD and ENTRYPOINT; of each only the last in a stage counts."""
    kind = instruction.keyword
    step.set_once(kind)
    if instruction.shell and not step.image.has_own_shell:
        step.report(rules.JSON_ARGS_RECOMMENDED, instruction.name)
    argv = with_shell(step.image, instruction.cmdline, instruction.shell)
    if kind == "CMD":
        step.image.set_cmd(argv)
    else:
        step.image.set_entrypoint(argv, keep_cmd="CMD" in step.state.used)


def lower_metadata(instruction: nodes.Instruction, step: Step) -> None:
    """The instructions that need no more than their words."""
    image = step.image
    match instruction:
        case nodes.UserInstruction():
            image.set_user(step.word(instruction.user))
        case nodes.ExposeInstruction():
            image.expose(_ports(instruction, step))
        case nodes.VolumeInstruction():
            image.add_volumes([step.word(volume) for volume in instruction.volumes])
        case nodes.StopSignalInstruction():
            image.set_stop_signal(step.word(instruction.signal))
        case nodes.ShellInstruction():
            image.set_shell(instruction.value)
        case nodes.MaintainerInstruction():
            image.set_maintainer(instruction.maintainer)
        case nodes.HealthcheckInstruction():
            step.set_once("HEALTHCHECK")
            times = {
                "Interval": instruction.interval,
                "Timeout": instruction.timeout,
                "StartPeriod": instruction.start_period,
                "StartInterval": instruction.start_interval,
            }
            image.set_healthcheck(instruction.test, times, instruction.retries)
        case nodes.OnbuildInstruction():
            image.add_trigger(instruction.expression)
        case _:
            raise AssertionError(f"no lowering for {instruction.keyword}")


def _ports(instruction: nodes.ExposeInstruction, step: Step) -> list[str]:
    lexer, env = step.scope.lexer, step.state.env
    ports: list[str] = []
    for word in [word for text in instruction.ports for word in lexer.process_words(text, env)]:
        spec = split_port(word)
        if not spec.protocol.islower():
            step.report(rules.EXPOSE_PROTO_CASING, word)
        if spec.is_mapping:
            step.report(rules.EXPOSE_INVALID_FORMAT, word)
        ports += spec.ports()
    return ports
