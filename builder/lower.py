"""Lowering: a Dockerfile becomes a Plan. Walks the stages in order and gives each instruction to its handler.

What RUN, COPY and ADD become is in `lower_exec` and `lower_copy`, what the others say about the image in
`lower_config`. Looks outside only through a SourceResolver.
Source: Dockerfile reference, and BuildKit's behaviour where the reference is silent.
"""

from __future__ import annotations

from builder import lint_from, lower_config, lower_copy, lower_exec
from builder.args import global_args
from builder.bases import BaseResolver
from builder.config import ImageConfig
from builder.epoch import resolve_epoch
from builder.errors import BuildError
from builder.findings import lint_error, plan_warnings
from builder.options import BuildOptions
from builder.order import find_stage_cycle, keep_needed
from builder.plan import SCRATCH, CopyAction, FileOp, LocalSourceOp, Plan, PlannedImage, Vertex
from builder.scope import Checks, Scope
from builder.sources import SourceResolver, stage_aliases
from builder.stage import StageState, at
from builder.stagegraph import StageGraph
from builder.step import Step
from builder.workpath import to_slash, workdir
from cache.namedtuple import NamedTuple
from grammar import nodes
from grammar.lint import Linter
from grammar.nodes import Dockerfile
from grammar.platforms import Platform, parse_platform


class Lowered(NamedTuple):
    """All stages that were asked for, lowered."""

    target: StageState
    scope: Scope
    platform: Platform
    epoch: int | None = None


def lower(
    dockerfile: Dockerfile,
    options: BuildOptions,
    resolver: SourceResolver,
    *,
    filename: str,
    host: Platform,
    checks: Checks | None = None,
) -> Plan:
    """The Plan of one Dockerfile for one target and platform; vertices that the target does not need are dropped.

    What the linter of `checks` has found, before and now, is in its warnings. Raises BuildError or DockerfileError
    with the lines at fault, also for a finding where the Dockerfile wants that.
    """
    checks = checks or Checks(Linter())
    lowered = lower_stages(dockerfile, options, resolver, filename=filename, host=host, checks=checks)
    plan = _finish(lowered, options)
    error = lint_error(checks.linter, filename)
    if error is not None:
        raise error
    return plan._replace(warnings=plan_warnings(checks.linter, filename))


def lower_for_findings(
    dockerfile: Dockerfile, options: BuildOptions, resolver: SourceResolver, *, host: Platform, checks: Checks
) -> None:
    """Lower for the findings alone: every stage, unless the options name one. Raises as `lower` does."""
    filename = dockerfile.filename
    lower_stages(
        dockerfile, options, resolver, filename=filename, host=host, checks=checks, every_stage=not options.target
    )
    error = lint_error(checks.linter, filename)
    if error is not None:
        raise error


def lower_stages(
    dockerfile: Dockerfile,
    options: BuildOptions,
    resolver: SourceResolver,
    *,
    filename: str,
    host: Platform,
    checks: Checks,
    every_stage: bool = False,
) -> Lowered:
    """The stages that the target needs, or all of them, turned into vertices. Raises as `lower` does."""
    if not dockerfile.stages:
        raise BuildError("dockerfile contains no stages to build")
    platform = parse_platform(options.platform, host) if options.platform else host
    arguments = global_args(dockerfile, options, host=host, target=platform, filename=filename)
    epoch, options, arguments = resolve_epoch(dockerfile, options, arguments, resolver, platform)
    scope = Scope(options, dockerfile.escape, arguments.values, checks)
    if arguments.defaults is not None:
        lint_from.check_defaults(dockerfile.stages, scope.lexer, arguments.defaults, checks.linter)
    aliases = stage_aliases(options.named_contexts)
    graph = StageGraph(filename, dockerfile.escape, arguments, host=host, linter=checks.linter, aliases=aliases)
    graph.add_stages(dockerfile.stages, resolver, platform)
    target = graph.target(options.target)
    graph.connect()
    find_stage_cycle(graph.states)
    needed = BaseResolver(graph, resolver, platform, checks.linter).resolve(target, every_stage=every_stage)
    chosen = graph.states if every_stage else needed
    for state in sorted(chosen, key=lambda state: not state.dispatched):
        _lower_stage(state, scope, platform)
    return Lowered(target, scope, platform, epoch)


def _lower_stage(state: StageState, scope: Scope, default: Platform) -> None:
    with at(state.location):
        _inherit(state, scope, default)
        if state.dispatched:
            return
        _start(state)
    for command in state.commands:
        with scope.checks.collecting(), at(command.location):
            _dispatch(Step(command, state, scope))


def _start(state: StageState) -> None:
    """What the base's config says about the root is so for the stage's commands."""
    state.dispatched = True
    image = _image(state)
    image.ensure_path(state.system)
    for entry in image.env:
        key, _, value = entry.partition("=")
        state.set_env(key, value)
    if image.working_dir:
        found = workdir(image.working_dir, image.working_dir, state.system)
        image.config["WorkingDir"] = found
        state.cwd = to_slash(found, state.system)


def _inherit(state: StageState, scope: Scope, default: Platform) -> None:
    """Start the stage from its base: another stage, an image, a directory or nothing."""
    state.no_cache = _ignores_cache(scope.options, state.name)
    state.names_platform = scope.options.multi_platform
    if state.base is not None:
        base = state.base
        state.platform = base.platform
        state.vertex = _rooted(base, scope)
        state.image = _image(base).derive()
        state.inherit_env(base)
        state.cwd = base.cwd
        state.build_args = list(base.build_args)
        state.workdir_set = base.workdir_set
        return
    source = state.source
    platform = state.platform or default
    if source is None or source.op is None:
        state.image = ImageConfig.scratch(platform)
        if source is not None and source.document is not None:
            state.image = ImageConfig(source.document)
    elif source.document is not None:
        state.image = ImageConfig(source.document, source.layers)
        name = f"[{state.prefix}internal] load {state.base_name}"
        if state.steps and not state.unregistered:
            name = state.step_name("FROM " + state.base_name)
        text = f"FROM {state.base_name}"
        state.vertex = scope.add(Vertex(source.op, (), name, state.name, state.location, text=text))
    else:
        assert isinstance(source.op, LocalSourceOp)
        state.image = ImageConfig.scratch(platform)
        state.vertex = scope.local(source.op)
        if not state.unregistered and state.context is None:
            state.vertex = _rooted(state, scope)
    state.image.config.pop("OnBuild", None)


def _rooted(state: StageState, scope: Scope) -> int:
    """The stage's root. What is in a context becomes one first, where more is to be put on it than read from it."""
    op = scope.vertices[state.vertex].op if state.vertex != SCRATCH else None
    if not isinstance(op, LocalSourceOp):
        return state.vertex
    copy = CopyAction(1, "/", "/", allow_wildcard=False)
    name = f"[context {op.name}] load from the builder's directory"
    return scope.add(Vertex(FileOp((copy,)), (SCRATCH, state.vertex), name, state.name, state.location))


def _ignores_cache(options: BuildOptions, name: str) -> bool:
    return options.no_cache or name.lower() in {entry.lower() for entry in options.no_cache_filter}


def _image(state: StageState) -> ImageConfig:
    assert state.image is not None, f"stage {state.label} was not started"
    return state.image


def _dispatch(step: Step) -> None:
    instruction = step.command.instruction
    match instruction:
        case nodes.RunInstruction():
            lower_exec.lower_run(instruction, step)
        case nodes.CopyInstruction() | nodes.AddInstruction():
            lower_copy.lower_copy(instruction, step)
        case nodes.EnvInstruction():
            lower_config.lower_env(instruction, step)
        case nodes.ArgInstruction():
            lower_config.lower_arg(instruction, step)
        case nodes.LabelInstruction():
            lower_config.lower_label(instruction, step)
        case nodes.WorkdirInstruction():
            lower_config.lower_workdir(instruction, step)
        case nodes.CmdInstruction() | nodes.EntrypointInstruction():
            lower_config.lower_command_line(instruction, step)
        case _:
            lower_config.lower_metadata(instruction, step)


def _finish(lowered: Lowered, options: BuildOptions) -> Plan:
    target, platform = lowered.target, lowered.platform
    image = _image(target)
    image.add_build_labels(options.labels)
    if options.platform:
        image.set_platform(platform)
    image.normalize_platform()
    planned = PlannedImage(
        _rooted(target, lowered.scope),
        str(platform),
        image.document,
        image.base_history,
        tuple(image.history),
        image.base_layers,
        target.name,
        lowered.epoch,
    )
    return keep_needed(Plan(tuple(lowered.scope.vertices), (planned,)))
