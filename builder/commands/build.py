"""Build an image from a Dockerfile: options to values, stores opened, plan solved, results written."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

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
from builder.metadata import image_ids, steps_used, write_metadata
from builder.outputs import output_specs, write_id_file, write_outputs
from builder.plan import ExecOp, Plan
from builder.pulling import RemoteImages
from builder.redact import redact
from builder.resolver import StoreResolver
from builder.solver import Solver
from builder.state import VertexState
from builder.worker import Sandbox, Secrets, Worker
from cache.errors import CacheError

if TYPE_CHECKING:
    from builder.exporter import Exported, OutputSpec
    from builder.options import BuildOptions
    from builder.progress import Reporter
    from builder.sandbox.launcher import Launcher
    from builder.sandbox.snapshotter import Snapshotter
    from cache.store import Store


add_arguments = build_options.add_arguments


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
    secrets = _secrets(args, env)
    with env.open_store() as store:
        images = RemoteImages(store, env.environ, pull=args.pull, say=partial(_say, args, env))
        resolver = StoreResolver(store, options.named_contexts, cwd=env.cwd, remote=images)
        fetcher = Fetcher(store, env.clock, secrets, images)
        resolver.dates(args.context, fetcher)
        source = Source(fetcher, env.cwd, options.build_args, partial(_say, args, env))
        context = open_context(args.context, args.file, source)
        add_named(context, resolver.file_contexts(), source)
        try:
            host = host_platform()
            sandbox = _sandbox(args, env, store)
            warm_up = partial(_warm_up, sandbox, context, env, has_network=options.network == "default")
            plan = load_plan(context, options, resolver, memo=store.memo, host=host, clock=env.clock, on_miss=warm_up)
            inputs = Inputs(context, plan.vertices, fetcher)
            worker = Worker(store, inputs, sandbox, secrets, make_reporter(args, env, plan), env.clock)
            try:
                solver = _solve(plan, worker, args.jobs)
                exported = write_outputs(solver, specs, stdout=env.stdout_bytes)
                if solver.has_run:
                    _collect_garbage(store, worker, env)
            finally:
                worker.reporter.close()
        except (BuildError, CacheError) as error:
            _explain(error, context)
            raise
        finally:
            images.close()
    steps = steps_used(plan, sandbox.usage)
    _report(args, env, exported, steps, quiet=any(spec.dest == "-" for spec in specs))
    return 0


def _collect_garbage(store: Store, worker: Worker, env: Environment) -> None:
    """Prune what the policies say, when it is time. The build is done: what goes wrong here is only said."""
    from builder.gc import after_build
    from builder.image.describe import human_size

    try:
        done = after_build(store, env.environ, env.clock)
    except (BuildError, CacheError) as error:
        worker.reporter.message(f"warning: the store was not pruned: {error}")
        return
    if done is not None and done.entries:
        worker.reporter.message(f"pruned {human_size(done.freed)} of the store, as its policies say")


def _sandbox(args: argparse.Namespace, env: Environment, store: Store) -> Sandbox:
    limits = build_limits = None
    if args.resource or args.build_resource:
        from builder.resources import parse_limits

        limits, build_limits = parse_limits(args.resource), parse_limits(args.build_resource)
    if ".." in args.cgroup_parent.split("/"):
        raise UsageError(f'--cgroup-parent "{args.cgroup_parent}" leads upwards')
    shell = "hint" if args.debug_shell == "off" and env.stderr.isatty() else args.debug_shell
    allowed = parse_entitlements(args.allow, args.network)
    sandbox = Sandbox(
        allowed,
        limits,
        build_limits=build_limits,
        cgroup_parent=args.cgroup_parent.strip("/"),
        debug_shell=shell,
        is_own_network_required=args.network == build_options.BRIDGE,
        dns=build_options.dns_options(args),
    )
    remap = partial(_remapped, store) if _is_remapped(args) else None
    sandbox.merge_layers(partial(_snapshotter, args, env, store), remap)
    return sandbox


def _remapped(store: Store) -> Launcher:
    """A launcher whose steps run as users that nobody else is."""
    from builder.sandbox.launcher import Launcher
    from builder.snapshotters.idmapped import Idmapped, make_namespace

    namespace = make_namespace()
    return Launcher(Idmapped(namespace, store.snapshots.scratch), namespace)


def _is_remapped(args: argparse.Namespace) -> bool:
    """Whether root asked for steps as other users; those of anybody else are that anyhow."""
    if args.userns == "host" or os.geteuid() != 0:
        return False
    if args.snapshotter not in ("auto", "overlay"):
        raise UsageError(f"--userns=auto needs overlayfs, not --snapshotter {args.snapshotter}")
    return True


def _snapshotter(args: argparse.Namespace, env: Environment, store: Store) -> Snapshotter:
    """What --snapshotter says; one that was chosen although another would be faster is named, with the reason."""
    from builder.snapshotters.choose import choose

    choice = choose(args.snapshotter, store)
    if choice.reason:
        _say(args, env, f"snapshotter {choice.snapshotter.name}: {choice.reason}")
    return choice.snapshotter


def _explain(error: BuildError | CacheError, context: BuildContext) -> None:
    from builder.sandbox.diagnosis import explain

    if isinstance(error, BuildError):
        error.excerpt = excerpt_of(error, context)
    error.hint = error.hint or explain(error)


def _output_specs(args: argparse.Namespace, options: BuildOptions, env: Environment) -> list[OutputSpec]:
    specs = output_specs(args.output, args.tag, options, load=args.load, push=args.push)
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


def _warm_up(sandbox: Sandbox, context: BuildContext, env: Environment, *, has_network: bool) -> None:
    """Take privileges, and when there is something to run start the launcher while the Dockerfile is being lowered, and
    have a network made."""
    from builder.sandbox.userns import take_privileges

    with contextlib.suppress(SandboxError):  # raised again by the first step, with its place
        take_privileges(env.stderr.write)
        if b"RUN" in context.source.upper():
            launcher = sandbox.launcher
            if has_network:
                launcher.prepare_network()


def _secrets(args: argparse.Namespace, env: Environment) -> Secrets:
    sources = tuple(build_options.secret(text, env.cwd) for text in args.secret)
    agents = args.ssh
    if not agents and is_git_over_ssh(args.context) and env.environ.get("SSH_AUTH_SOCK"):
        agents = ["default"]
    return Secrets(sources, dict(build_options.agent(text, env) for text in agents), env.environ)


def _report(
    args: argparse.Namespace, env: Environment, exported: list[Exported], steps: list[dict[str, Any]], *, quiet: bool
) -> None:
    """The image id, on stdout and in --iidfile, and all that is known of the image in --metadata-file."""
    if args.metadata_file:
        write_metadata(os.path.join(env.cwd, args.metadata_file), exported, steps)
    ids = image_ids(exported)
    if not ids:
        return
    if args.iidfile:
        write_id_file(os.path.join(env.cwd, args.iidfile), "\n".join(ids))
    if not quiet:
        env.stdout.write("".join(f"{each}\n" for each in ids))


def _solve(plan: Plan, worker: Worker, jobs: int) -> Solver:
    solver = Solver(plan, worker)

    def run_all(states: list[VertexState], run_one: Callable[[VertexState], None]) -> None:
        from builder.sandbox.userns import take_privileges
        from builder.schedule import Schedule, default_jobs

        take_privileges()
        assert worker.sandbox.snapshotter
        if any(isinstance(state.vertex.op, ExecOp) and state.vertex.op.network == "default" for state in states):
            with contextlib.suppress(SandboxError):  # raised again by the step that needs it
                worker.sandbox.launcher.prepare_network()
        Schedule(states, run_one).run(jobs or default_jobs(), cancel=worker.cancel)

    for warning in plan.warnings:
        worker.reporter.warning(warning)
    try:
        solver.solve(run_all)
    finally:
        worker.close()
    return solver


def make_reporter(args: argparse.Namespace, env: Environment, plan: Plan) -> Reporter:
    """The reporter that --progress asks for."""
    from builder.progress import new_reporter

    wanted = "quiet" if args.quiet else args.progress
    return new_reporter(wanted, env.stderr, sum(not vertex.internal for vertex in plan.vertices))


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
