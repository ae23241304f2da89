"""RUN lowered: its command line, its mounts, and what it writes into the history.

Source: Dockerfile reference, RUN and RUN --mount; BuildKit's behaviour for names, ids and history.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence

from builder.config import ImageConfig
from builder.errors import BuildError, Location
from builder.plan import SCRATCH, CopyAction, ExecOp, FileOp, LocalSourceOp, MkfileAction, MountOp, Vertex
from builder.scope import Scope
from builder.stagegraph import Command, StageState
from grammar.heredoc import chomp, is_heredoc
from grammar.mount_flag import MountFlag, parse_mount
from grammar.nodes import Instruction, RunInstruction

_SCRIPT_DIR = "/dev/pipes/"
_PROXY_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")


def location_of(instruction: Instruction, filename: str) -> Location:
    """The lines of an instruction."""
    return Location(filename, instruction.range.start_line, instruction.range.end_line)


def with_shell(image: ImageConfig, cmdline: Sequence[str] | None, shell: bool) -> tuple[str, ...]:
    """The argument vector of a command: shell form is one string behind SHELL's words."""
    words = tuple(cmdline or ())
    return (*image.shell, " ".join(words)) if shell else words


def lower_run(command: Command, run: RunInstruction, state: StageState, scope: Scope) -> None:
    """Add the vertex of one RUN and make it the stage's root."""
    assert state.image is not None
    image = state.image
    inputs = [state.vertex]
    mounts: list[MountOp] = []
    cmdline, summary = tuple(run.cmdline or ()), ""
    if run.files:
        cmdline, summary = _heredoc_command(run, inputs, mounts, scope)
    argv = with_shell(image, cmdline, run.shell)
    flags = [parse_mount(value, _expander(scope, state)) for value in run.mounts]
    for flag, source in zip(flags, command.sources, strict=True):
        mounts.append(_lower_mount(flag, command, source, inputs, state, scope))
    masked = {**state.env, **{flag.env: "****" for flag in flags if flag.type == "secret" and flag.env}}
    options = scope.options
    op = ExecOp(
        argv=argv,
        env=tuple(f"{key}={value}" for key, value in state.env.items()),
        cwd=state.cwd,
        user=image.user,
        mounts=tuple(mounts),
        network=options.network if run.network == "default" else run.network,
        security=run.security,
        hostname=options.build_args.get("BUILDKIT_SANDBOX_HOSTNAME", ""),
        extra_hosts=options.extra_hosts,
        shm_size=options.shm_size,
        ulimits=options.ulimits,
        proxy_env=_proxy_env(scope),
    )
    name = state.step_name(scope.shown(run.original + summary, masked), on_build=command.on_build)
    state.vertex = scope.add(Vertex(op, tuple(inputs), name, state.name, command.location, no_cache=state.no_cache))
    image.commit("RUN " + _history_text(argv, state) + " # buildkit", layer=True)


def _expander(scope: Scope, state: StageState) -> Callable[[str], str]:
    return lambda text: scope.lexer.process_word(text, state.env)


def _proxy_env(scope: Scope) -> tuple[str, ...]:
    """Proxy variables from --build-arg, in both spellings, as programs read either."""
    found: dict[str, str] = {}
    for key in sorted(scope.options.build_args):
        if key.upper() in _PROXY_NAMES:
            found[key.upper()] = scope.options.build_args[key]
    return tuple(
        f"{spelling}={found[name]}" for name in _PROXY_NAMES if found.get(name) for spelling in (name, name.lower())
    )


def _heredoc_command(
    run: RunInstruction, inputs: list[int], mounts: list[MountOp], scope: Scope
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
    if not script.startswith("#!"):
        return (script,), summary
    action = MkfileAction("/" + first.name, script, 0o755)
    vertex = scope.add(Vertex(FileOp((action,)), (SCRATCH,), "[internal] preparing inline document", internal=True))
    mounts.append(MountOp("bind", _SCRIPT_DIR, len(inputs), "/", read_only=True))
    inputs.append(vertex)
    return (_SCRIPT_DIR + first.name,), summary


def _lower_mount(
    flag: MountFlag, command: Command, source: StageState | None, inputs: list[int], state: StageState, scope: Scope
) -> MountOp:
    if flag.type == "secret":
        return _secret_mount(flag, state)
    if flag.type == "ssh":
        return _ssh_mount(flag, state)
    target = _mount_target(flag, state)
    if flag.type == "tmpfs":
        return MountOp("tmpfs", target, size=flag.size or 0)
    index = _mount_input(flag, source, inputs, scope, command.location)
    path = posixpath.normpath("/" + flag.source.lstrip("/"))
    mount = MountOp("bind", target, index, path, flag.read_only, mode=flag.mode, uid=flag.uid or 0, gid=flag.gid or 0)
    if flag.type == "cache":
        namespace = scope.options.build_args.get("BUILDKIT_CACHE_MOUNT_NS", "")
        identity = f"{namespace}/{flag.id or posixpath.normpath(flag.target)}"
        return mount._replace(kind="cache", id=identity, sharing=flag.sharing or "shared")
    return mount


def _mount_target(flag: MountFlag, state: StageState) -> str:
    target = flag.target if flag.target.startswith("/") else posixpath.join("/", state.cwd, flag.target)
    target = posixpath.normpath(target)
    if target == "/":
        raise BuildError(f'invalid mount target "{target}"')
    return target


def _mount_input(
    flag: MountFlag, source: StageState | None, inputs: list[int], scope: Scope, location: Location
) -> int:
    """The input that a bind or cache mount shows: a stage, an image, the context, or an empty directory."""
    if source is not None:
        if not source.dispatched:
            raise BuildError(
                f'cannot mount from stage "{flag.from_}" to "{flag.target}", stage needs to be defined before current '
                "command"
            )
        vertex = source.vertex
        if vertex != SCRATCH and isinstance(scope.vertices[vertex].op, LocalSourceOp):
            vertex = _directory_part(flag, vertex, scope, location)
    elif flag.type == "cache":
        vertex = SCRATCH
    else:
        vertex = _directory_part(flag, scope.local(LocalSourceOp("context")), scope, location)
    if vertex == SCRATCH:
        return SCRATCH
    inputs.append(vertex)
    return len(inputs) - 1


def _directory_part(flag: MountFlag, local: int, scope: Scope, location: Location) -> int:
    """A root with just the part of a local directory that a mount shows, filtered by .dockerignore."""
    path = posixpath.normpath("/" + flag.source.lstrip("/"))
    if path == "/":
        copy = CopyAction(1, "/", "/", allow_wildcard=False)
    else:
        copy = CopyAction(1, "/", "/", allow_wildcard=False, include_patterns=(path[1:],), required_paths=(path,))
    return scope.add(
        Vertex(
            FileOp((copy,)),
            (SCRATCH, local),
            f"[internal] load {path} of the build context",
            "",
            location,
            internal=True,
        )
    )


def _secret_mount(flag: MountFlag, state: StageState) -> MountOp:
    identity = flag.source or flag.id or posixpath.basename(flag.target)
    if not identity:
        raise BuildError("one of source, target required")
    target = _mount_target(flag, state) if flag.target else ""
    if not target and not flag.env:
        target = "/run/secrets/" + posixpath.basename(identity)
    return MountOp(
        "secret",
        target,
        id=identity,
        mode=0o400 if flag.mode is None else flag.mode,
        uid=flag.uid or 0,
        gid=flag.gid or 0,
        required=flag.required,
        env=flag.env or "",
    )


def _ssh_mount(flag: MountFlag, state: StageState) -> MountOp:
    if flag.source:
        raise BuildError("ssh does not support source")
    return MountOp(
        "ssh",
        _mount_target(flag, state) if flag.target else "",
        id=flag.id or "default",
        mode=0o600 if flag.mode is None else flag.mode,
        uid=flag.uid or 0,
        gid=flag.gid or 0,
        required=flag.required,
    )


def _history_text(argv: Sequence[str], state: StageState) -> str:
    """`|2 A=1 B=2 /bin/sh -c …`: the declared ARGs with the values that the command sees, then the command."""
    values: dict[str, str] = {}
    for key, value in state.build_args:
        values[key] = f"{key}={state.env.get(key, value or '')}"
    prefix = [f"|{len(values)}", *values.values()] if values else []
    return " ".join([*prefix, *argv])
