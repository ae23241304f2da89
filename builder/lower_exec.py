"""RUN lowered: its command line, its environment, and what it writes into the history.

Source: Dockerfile reference, RUN; BuildKit's behaviour for names and history.
"""

from __future__ import annotations

from collections.abc import Sequence

from builder.errors import BuildError
from builder.lower_config import with_shell
from builder.lower_mount import lower_mount
from builder.plan import SCRATCH, ExecOp, FileOp, MkfileAction, MountOp
from builder.proxies import proxy_env
from builder.stage import StageState
from builder.step import Step
from grammar.heredoc import chomp, is_heredoc
from grammar.mount_flag import parse_mount
from grammar.nodes import RunInstruction
from grammar.platforms import normalize

_SCRIPT_DIR = "/dev/pipes/"


def lower_run(run: RunInstruction, step: Step) -> None:
    """Add the vertex of one RUN and make it the stage's root."""
    state, image, options = step.state, step.image, step.scope.options
    inputs = [state.vertex]
    mounts: list[MountOp] = []
    flags = [parse_mount(value, step.word) for value in run.mounts]
    cmdline, summary = tuple(run.cmdline or ()), ""
    if run.files:
        cmdline, summary = _heredoc_command(run, inputs, mounts, step)
    argv = with_shell(image, cmdline, run.shell) or ()
    for flag, source in zip(flags, step.command.sources, strict=True):
        mounts.append(lower_mount(flag, source, inputs, step))
    secrets = {flag.env: "****" for flag in flags if flag.type == "secret" and flag.env}
    op = ExecOp(
        argv=argv,
        env=state.environ,
        cwd=state.cwd,
        user=image.user,
        mounts=tuple(mounts),
        network=options.network if run.network == "default" else run.network,
        security=run.security,
        hostname=options.hostname,
        extra_hosts=options.extra_hosts,
        shm_size=options.shm_size,
        ulimits=options.ulimits,
        proxy_env=proxy_env(options.build_args),
        platform=normalize(state.platform).short if state.platform else "",
        devices=_devices(run, options.devices),
        security_opt=options.security_opt,
    )
    name = step.name(step.scope.shown(run.original + summary, {**state.env, **secrets} if secrets else state.env))
    state.vertex = step.add(op, tuple(inputs), name)
    image.commit("RUN " + _history_text(argv, state) + " # buildkit", layer=True)


def _devices(run: RunInstruction, given: Sequence[str]) -> tuple[tuple[str, bool], ...]:
    """The command line's devices and those of the instruction, which can only name what a CDI spec describes."""
    for device in run.devices:
        if device.name.startswith("/"):
            raise BuildError(
                f'device "{device.name}" is not VENDOR/CLASS=NAME', hint="a path is for --device on the command line"
            )
    return (*((name, True) for name in given), *((device.name, device.required) for device in run.devices))


def _heredoc_command(
    run: RunInstruction, inputs: list[int], mounts: list[MountOp], step: Step
) -> tuple[tuple[str, ...], str]:
    """The command of a RUN with heredocs, and what the progress adds to it.

    A lone heredoc is the script itself; with `#!` it becomes a file that is executed. Anything else goes back together
    for the shell to read.
    """
    text = (run.cmdline or ("",))[0]
    first = run.files[0]
    if is_heredoc(text) is None:
        return ("".join([text, *(f"\n{file.data}{file.name}" for file in run.files)]),), ""
    script = chomp(first.data) if first.chomp else first.data
    lines = first.data.strip().replace("\r\n", "\n").split("\n")
    summary = f" ({lines[0]}{'...' if len(lines) > 1 else ''})"
    if not script.startswith("#!") or step.image.document.get("os") == "windows":
        return (script,), summary
    action = MkfileAction("/" + first.name, script, 0o755)
    vertex = step.add_internal(FileOp((action,)), (SCRATCH,), "[internal] preparing inline document")
    mounts.append(MountOp("bind", _SCRIPT_DIR, len(inputs), "/", read_only=True))
    inputs.append(vertex)
    return (_SCRIPT_DIR + first.name,), summary


def _history_text(argv: Sequence[str], state: StageState) -> str:
    """`|2 A=1 B=2 /bin/sh -c …`: the declared ARGs with the values that the command sees, then the command."""
    values: dict[str, str] = {}
    for key, value in state.build_args:
        values[key] = state.entry(key, value or "")
    prefix = [f"|{len(values)}", *values.values()] if values else []
    return " ".join([*prefix, *argv])
