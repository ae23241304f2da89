"""Lowering: a Dockerfile becomes a Plan. Walks the stages in order and gives each instruction to its handler.

Owns scopes (ARG, ENV, working directory, user) and the image config of each stage; what RUN, COPY and ADD become is
in `lower_exec` and `lower_copy`. Looks outside only through a SourceResolver.
Source: Dockerfile reference, and BuildKit's behaviour where the reference is silent.
"""

from __future__ import annotations

from collections.abc import Mapping

from builder import lower_copy, lower_exec
from builder.config import ImageConfig
from builder.errors import BuildError
from builder.graph import find_stage_cycle, keep_needed
from builder.options import BuildOptions
from builder.plan import SCRATCH, CopyAction, FileOp, LocalSourceOp, MkdirAction, Plan, PlannedImage, Vertex
from builder.scope import Scope
from builder.sources import SourceResolver
from builder.stagegraph import Command, StageGraph, StageState, at
from grammar import nodes
from grammar.nodes import Dockerfile
from grammar.platforms import Platform, normalize, parse_platform
from grammar.ports import parse_ports
from grammar.words import Lexer

_PLATFORM_ARGS = ("PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT")


def lower(
    dockerfile: Dockerfile, options: BuildOptions, resolver: SourceResolver, *, filename: str, host: Platform
) -> Plan:
    """The Plan of one Dockerfile for one target and platform; vertices that the target does not need are dropped.

    Raises BuildError or DockerfileError with the lines at fault.
    """
    if not dockerfile.stages:
        raise BuildError("dockerfile contains no stages to build")
    target_platform = parse_platform(options.platform, host) if options.platform else host
    lexer = Lexer(dockerfile.escape)
    target_name = options.target or dockerfile.stages[-1].name
    arguments = _default_args(host, target_platform, target_name, options.build_args)
    arguments = _meta_args(dockerfile, lexer, arguments, options.build_args, filename)
    graph = StageGraph(filename, dockerfile.escape, arguments, host=host)
    graph.add_stages(dockerfile.stages, resolver, target_platform)
    target = graph.target(options.target)
    graph.connect()
    find_stage_cycle(graph.states)
    reachable = graph.resolve(target, resolver, target_platform)
    scope = Scope(options, dockerfile.escape, arguments)
    for state in sorted(reachable, key=lambda state: not state.dispatched):
        _lower_stage(state, scope, target_platform)
    return _finish(target, scope, options, target_platform)


def _default_args(host: Platform, target: Platform, target_name: str, given: Mapping[str, str]) -> dict[str, str]:
    arguments: dict[str, str] = {}
    for prefix, platform in (("BUILD", host), ("TARGET", target)):
        values = (platform.short, platform.os, platform.os_version, platform.architecture, platform.variant)
        arguments.update({prefix + name: value for name, value in zip(_PLATFORM_ARGS, values, strict=True)})
    arguments["TARGETSTAGE"] = target_name or "default"
    return {name: given.get(name, value) for name, value in arguments.items()}


def _meta_args(
    dockerfile: Dockerfile, lexer: Lexer, arguments: dict[str, str], given: Mapping[str, str], filename: str
) -> dict[str, str]:
    """ARGs before the first FROM, each seeing those before it."""
    for instruction in dockerfile.meta_args:
        for pair in instruction.args:
            if pair.key in given:
                arguments[pair.key] = given[pair.key]
            elif pair.value is not None:
                with at(lower_exec.location_of(instruction, filename)):
                    arguments[pair.key] = lexer.process_word(pair.value, arguments)
    return arguments


def _lower_stage(state: StageState, scope: Scope, default: Platform) -> None:
    with at(state.location):
        _inherit(state, scope, default)
    if state.dispatched:
        return
    state.dispatched = True
    image = _image(state)
    image.ensure_path()
    for entry in image.env:
        key, _, value = entry.partition("=")
        _set_env(state, key, value)
    if image.working_dir:
        state.cwd = scope.join(state.cwd, image.working_dir)
        image.config["WorkingDir"] = state.cwd
    for command in state.commands:
        with at(command.location):
            _dispatch(command, state, scope)


def _inherit(state: StageState, scope: Scope, default: Platform) -> None:
    """Start the stage from its base: another stage, an image, a directory or nothing."""
    state.no_cache = _ignores_cache(scope.options, state.name)
    if state.base is not None:
        base = state.base
        state.platform = base.platform
        state.vertex = base.vertex
        state.image = _image(base).derive()
        state.env = dict(base.env)
        state.cwd = base.cwd
        state.build_args = list(base.build_args)
        return
    source = state.source
    platform = state.platform or default
    if source is None or source.op is None:
        state.image = ImageConfig.scratch(platform)
        if source is not None and source.document is not None:
            state.image = ImageConfig(source.document)
    elif source.document is not None:
        state.image = ImageConfig(source.document, source.layers)
        name = f"[{state.label + ' ' if state.label and not state.unregistered else ''}internal] load {state.base_name}"
        if state.steps and not state.unregistered:
            name = state.step_name("FROM " + state.base_name)
        state.vertex = scope.add(Vertex(source.op, (), name, state.name, state.location))
    else:
        assert isinstance(source.op, LocalSourceOp)
        state.image = ImageConfig.scratch(platform)
        state.vertex = _directory_root(state, source.op, scope)
    state.image.config.pop("OnBuild", None)


def _directory_root(state: StageState, op: LocalSourceOp, scope: Scope) -> int:
    """A root that holds what a named directory context holds."""
    local = scope.local(op)
    if state.unregistered or state.context is not None:
        return local
    copy = CopyAction(1, "/", "/", allow_wildcard=False)
    name = f"[context {op.name}] load from the builder's directory"
    return scope.add(Vertex(FileOp((copy,)), (SCRATCH, local), name, state.name, state.location))


def _ignores_cache(options: BuildOptions, name: str) -> bool:
    return options.no_cache or name.lower() in {entry.lower() for entry in options.no_cache_filter}


def _image(state: StageState) -> ImageConfig:
    assert state.image is not None, f"stage {state.label} was not started"
    return state.image


def _set_env(state: StageState, key: str, value: str) -> None:
    state.env.pop(key, None)
    state.env[key] = value


def _dispatch(command: Command, state: StageState, scope: Scope) -> None:
    instruction = command.instruction
    image = _image(state)

    def word(text: str) -> str:
        return scope.lexer.process_word(text, state.env)

    match instruction:
        case nodes.RunInstruction():
            lower_exec.lower_run(command, instruction, state, scope)
        case nodes.CopyInstruction() | nodes.AddInstruction():
            lower_copy.lower_copy(command, instruction, state, scope)
        case nodes.EnvInstruction():
            pairs = [(word(pair.key), word(pair.value or "")) for pair in instruction.pairs]
            image.set_env(pairs)
            for key, value in pairs:
                _set_env(state, key, value)
        case nodes.ArgInstruction():
            _dispatch_arg(instruction, state, scope)
        case nodes.LabelInstruction():
            image.set_labels([(word(pair.key), word(pair.value or "")) for pair in instruction.pairs])
        case nodes.WorkdirInstruction():
            _dispatch_workdir(command, word(instruction.path), state, scope)
        case nodes.UserInstruction():
            image.set_user(word(instruction.user))
        case nodes.CmdInstruction():
            image.set_cmd(lower_exec.with_shell(image, instruction.cmdline, instruction.shell))
            state.cmd_set = True
        case nodes.EntrypointInstruction():
            argv = lower_exec.with_shell(image, instruction.cmdline, instruction.shell)
            image.set_entrypoint(argv, keep_cmd=state.cmd_set)
        case _:
            _dispatch_metadata(instruction, state, scope)


def _dispatch_metadata(instruction: nodes.Instruction, state: StageState, scope: Scope) -> None:
    """Instructions that only say something about the image."""
    image = _image(state)

    def word(text: str) -> str:
        return scope.lexer.process_word(text, state.env)

    match instruction:
        case nodes.ExposeInstruction():
            words = [part for text in instruction.ports for part in scope.lexer.process_words(text, state.env)]
            image.expose(parse_ports(words))
        case nodes.VolumeInstruction():
            image.add_volumes([word(volume) for volume in instruction.volumes])
        case nodes.StopSignalInstruction():
            image.set_stop_signal(word(instruction.signal))
        case nodes.ShellInstruction():
            image.set_shell(instruction.value)
        case nodes.MaintainerInstruction():
            image.set_maintainer(instruction.maintainer)
        case nodes.HealthcheckInstruction():
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


def _dispatch_arg(instruction: nodes.ArgInstruction, state: StageState, scope: Scope) -> None:
    """ARG: --build-arg first, then the default, then a value from before the first FROM. Read left to right."""
    shown = []
    for pair in instruction.args:
        value = pair.value
        if pair.key in scope.options.build_args:
            value = scope.options.build_args[pair.key]
        elif value is not None:
            value = scope.lexer.process_word(value, state.env)
        else:
            value = scope.global_args.get(pair.key)
        if value is not None:
            _set_env(state, pair.key, value)
        state.build_args.append((pair.key, value))
        shown.append(pair.key if value is None else f"{pair.key}={value}")
    _image(state).commit("ARG " + " ".join(shown))


def _dispatch_workdir(command: Command, path: str, state: StageState, scope: Scope) -> None:
    image = _image(state)
    state.cwd = scope.join(image.working_dir, path)
    if state.cwd != "/":
        name = state.step_name(
            scope.shown(command.instruction.original, state.env, raw=False), on_build=command.on_build
        )
        action = MkdirAction(state.cwd, 0o755, image.user)
        inputs = (state.vertex,)
        state.vertex = scope.add(
            Vertex(FileOp((action,)), inputs, name, state.name, command.location, no_cache=state.no_cache)
        )
    image.set_working_dir(state.cwd, layer=state.cwd != "/")


def _finish(target: StageState, scope: Scope, options: BuildOptions, platform: Platform) -> Plan:
    image = _image(target)
    image.add_build_labels(options.labels)
    if options.platform:
        image.document["os"], image.document["architecture"] = platform.os, platform.architecture
        if platform.variant:
            image.document["variant"] = platform.variant
    own = Platform(
        str(image.document.get("os", "linux")),
        str(image.document.get("architecture", "")),
        str(image.document.get("variant") or ""),
    )
    normal = normalize(own)
    image.document["os"], image.document["architecture"] = normal.os, normal.architecture
    image.document.pop("variant", None)
    if normal.variant:
        image.document["variant"] = normal.variant
    planned = PlannedImage(
        target.vertex,
        str(platform),
        image.document,
        image.base_history,
        tuple(image.history),
        image.base_layers,
        target.name,
    )
    return keep_needed(Plan(tuple(scope.vertices), (planned,)))
