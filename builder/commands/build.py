"""Build an image from a Dockerfile: options to values, stores opened, plan solved, results written."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from builder.commands import Environment, build_options
from builder.commands.entitlements import check_deletes, parse_entitlements
from builder.commands.known_args import check_known_args
from builder.context import BuildContext
from builder.contexts.kinds import is_git_over_ssh
from builder.contexts.opening import Source, add_named, open_context
from builder.errors import BuildError, SandboxError, UsageError
from builder.fetcher import Fetcher
from builder.frontend import load_plan
from builder.image.platform import host_platform
from builder.inputs import Inputs
from builder.metadata import image_ids, write_metadata
from builder.outputs import output_specs, write_id_file, write_outputs
from builder.plan import Plan
from builder.redact import redact
from builder.resolver import StoreResolver
from builder.solver import Solver
from builder.state import VertexState
from builder.worker import Sandbox, Secrets, Worker
from cache.store import Store

if TYPE_CHECKING:
    from builder.cachecheck import RunAll
    from builder.exporter import Exported, OutputSpec
    from builder.options import BuildOptions
    from builder.progress import Reporter


add_arguments = build_options.add_arguments
BARE = build_options.BARE


def run(args: argparse.Namespace, env: Environment) -> int:
    """Build; prints the image id on stdout unless an output goes there."""
    if args.context is None:
        raise UsageError("the context directory is missing", hint="to build the current directory: pybuild build .")
    if args.call.name != "build":
        from builder.commands.build_call import run_call

        return run_call(args, env)
    options = build_options.plan_options(args, env)
    check_known_args(options.build_args, partial(_say, args, env))
    specs = _output_specs(args, options, env)
    with opened(args, options, env, partial(make_reporter, args, env)) as (plan, worker):
        try:
            solver = _solve(plan, worker, args)
            exported = write_outputs(solver, specs, stdout=env.stdout_bytes)
            _explain(solver, args, env)
        finally:
            worker.reporter.close()
    _report(args, env, exported, quiet=any(spec.dest == "-" for spec in specs))
    return 0


@contextlib.contextmanager
def opened(
    args: argparse.Namespace, options: BuildOptions, env: Environment, make: Callable[[Plan], Reporter]
) -> Iterator[tuple[Plan, Worker]]:
    """The plan of the command line, and the worker to carry it out with, whose reporter `make` makes.

    Errors get the lines of the Dockerfile that they are about.
    """
    secrets = _secrets(args, env)
    with Store.open(env.root) as store:
        resolver = StoreResolver(store, options.named_contexts, cwd=env.cwd)
        fetcher = Fetcher(store, env.clock, secrets)
        resolver.dates(args.context, fetcher)
        source = Source(fetcher, env.cwd, options.build_args, partial(_say, args, env))
        context = open_context(args.context, args.file, source)
        add_named(context, resolver.file_contexts(), source)
        try:
            host = host_platform()
            sandbox = _sandbox(args, env)
            warm_up = partial(_warm_up, sandbox, context)
            plan = load_plan(context, options, resolver, memo=store.memo, host=host, clock=env.clock, on_miss=warm_up)
            inputs = Inputs(context, plan.vertices, fetcher, modes=options.cache_key_mode)
            yield plan, Worker(store, inputs, sandbox, secrets, make(plan), env.clock)
        except BuildError as error:
            error.excerpt = excerpt_of(error, context)
            raise


def _explain(solver: Solver, args: argparse.Namespace, env: Environment) -> None:
    """With --explain everything; else, after a build in which something ran, one line about the first of it."""
    is_silent = args.quiet or args.progress == "quiet"
    if not args.explain and (is_silent or not any(state.outcome == "ran" for state in solver.states)):
        return
    from builder.explain.report import report_all, report_first

    if args.explain:
        report_all(solver, None if args.progress == "json" and not is_silent else env.stderr)
    else:
        report_first(solver)


def _sandbox(args: argparse.Namespace, env: Environment) -> Sandbox:
    limits = None
    if args.resource:
        from builder.resources import parse_limits

        limits = parse_limits(args.resource)
    if ".." in args.cgroup_parent.split("/"):
        raise UsageError(f'--cgroup-parent "{args.cgroup_parent}" leads upwards')
    shell = "hint" if args.debug_shell == "off" and env.stderr.isatty() else args.debug_shell
    allowed = parse_entitlements(args.allow, args.network)
    return Sandbox(allowed, limits, cgroup_parent=args.cgroup_parent.strip("/"), debug_shell=shell)


def _output_specs(args: argparse.Namespace, options: BuildOptions, env: Environment) -> list[OutputSpec]:
    if args.push:
        raise UsageError("--push: this version writes to no registry", hint="write an archive: -o type=oci,dest=FILE")
    specs = output_specs(args.output, args.tag, options, load=args.load)
    check_deletes(specs, parse_entitlements(args.allow, args.network), env.cwd)
    if not args.annotation:
        return specs
    from builder.export.annotation import annotated

    return annotated(specs, args.annotation)


def _say(args: argparse.Namespace, env: Environment, text: str) -> None:
    """A line about what happens before there is a plan to report on."""
    if not args.quiet and args.progress not in ("json", "quiet"):
        env.stderr.write(f"{text}\n")
        env.stderr.flush()


def _warm_up(sandbox: Sandbox, context: BuildContext) -> None:
    """Start the launcher while the Dockerfile is being lowered, when there is something for it to run."""
    if b"RUN" in context.source.upper():
        with contextlib.suppress(SandboxError):  # raised again by the first step, with its place
            assert sandbox.launcher


def _secrets(args: argparse.Namespace, env: Environment) -> Secrets:
    sources = tuple(build_options.secret(text, env.cwd) for text in args.secret)
    agents = args.ssh
    if not agents and is_git_over_ssh(args.context) and env.environ.get("SSH_AUTH_SOCK"):
        agents = ["default"]
    return Secrets(sources, dict(build_options.agent(text, env) for text in agents), env.environ)


def _report(args: argparse.Namespace, env: Environment, exported: list[Exported], *, quiet: bool) -> None:
    """The image id, on stdout and in --iidfile, and all that is known of the image in --metadata-file."""
    if args.metadata_file:
        write_metadata(os.path.join(env.cwd, args.metadata_file), exported)
    ids = image_ids(exported)
    if not ids:
        return
    if args.iidfile:
        write_id_file(os.path.join(env.cwd, args.iidfile), "\n".join(ids))
    if not quiet:
        env.stdout.write("".join(f"{each}\n" for each in ids))


def _solve(plan: Plan, worker: Worker, args: argparse.Namespace) -> Solver:
    solver = Solver(plan, worker)

    def run_all(states: list[VertexState], run_one: Callable[[VertexState], None]) -> None:
        from builder.sandbox.userns import check_privileges
        from builder.schedule import Schedule, default_jobs

        check_privileges()

        Schedule(states, run_one).run(args.jobs or default_jobs(), cancel=worker.cancel)

    for warning in plan.warnings:
        worker.reporter.warning(warning)
    try:
        solver.solve(run_all)
        if args.cache_check is not None:
            _check_cache(solver, args.cache_check, run_all)
    finally:
        worker.close()
    return solver


def _check_cache(solver: Solver, wanted: build_options.CacheCheck, run_all: RunAll) -> None:
    from builder.cachecheck import check_cache, require_same

    checked = check_cache(solver, wanted.percent, run_all)
    if not wanted.warns:
        require_same(checked)


def make_reporter(args: argparse.Namespace, env: Environment, plan: Plan) -> Reporter:
    """The reporter that --progress asks for; `auto` is a bar on a terminal, lines elsewhere."""
    from builder import progress

    wanted = "quiet" if args.quiet else args.progress
    if wanted == "auto":
        wanted = "tty" if env.stderr.isatty() else "plain"
    if wanted == "tty":
        from builder.progress_terminal import TerminalReporter

        return TerminalReporter(env.stderr, sum(not vertex.internal for vertex in plan.vertices))
    if wanted == "json":
        return progress.JsonReporter(env.stderr)
    if wanted == "quiet":
        return progress.QuietReporter()
    return progress.PlainReporter(env.stderr)


def excerpt_of(error: BuildError, context: BuildContext) -> str:
    """The Dockerfile's lines that an error names, empty when it names none."""
    if error.location is None or error.location.file != context.dockerfile:
        return ""
    from grammar.errors import DockerfileError, excerpt
    from grammar.position import Range

    place = Range(error.location.start_line, error.location.end_line)
    fault = DockerfileError("", range=place, subject=getattr(error.__cause__, "subject", ""))
    fault.source = context.source.decode("utf-8", "surrogateescape")
    return redact("\n".join(excerpt(fault.source, place, fault.caret or place)))
