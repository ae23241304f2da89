"""Build an image from a Dockerfile: options to values, plan solved, results written."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from builder.commands import Environment, build_options
from builder.commands.entitlements import check_deletes, parse_entitlements
from builder.commands.known_args import check_known_args, wants_inline_cache
from builder.commands.session import opened
from builder.errors import BuildError, SandboxError, UsageError
from builder.image.platform import host_platform
from builder.metadata import image_ids, steps_used, write_metadata
from builder.outputs import output_specs, write_id_file, write_outputs
from builder.plan import ExecOp, Plan
from builder.solver import Solver
from builder.state import VertexState
from builder.worker import Worker
from cache.errors import CacheError

if TYPE_CHECKING:
    from builder.cachecheck import RunAll
    from builder.commands.build_caches import CacheWords
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
    args.progress = build_options.progress(args.progress, env.environ)
    options = build_options.plan_options(args, env)
    check_known_args(options.build_args)
    specs = _output_specs(args, options, env)
    words = _cache_words(args, options)
    with (
        opened(args, options, env, partial(make_reporter, args, env)) as (plan, bare),
        _equipped(bare, words, env, options.platform) as worker,
    ):
        solver = _solve(plan, worker, args, whole=any(spec.type != "cacheonly" for spec in specs))
        exported = write_outputs(solver, specs, stdout=env.stdout_bytes)
        _finish(solver, args, env)
    steps = steps_used(plan, worker.sandbox.usage)
    _report(args, env, exported, steps, quiet=any(spec.dest == "-" for spec in specs))
    return 0


def _finish(solver: Solver, args: argparse.Namespace, env: Environment) -> None:
    """What follows when the results are written: caches elsewhere, explanations, room on the disk."""
    if solver.worker.exports is not None:
        from builder.commands.build_caches import mount_ids

        solver.worker.exports.finish(mount_ids(solver.plan))
    _explain(solver, args, env)
    if solver.has_run:
        _collect_garbage(solver.worker, env)


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


def _collect_garbage(worker: Worker, env: Environment) -> None:
    """Prune what the policies say, when it is time. The build is done: what goes wrong here is only said."""
    from builder.gc import after_build
    from builder.image.describe import human_size

    try:
        done = after_build(worker.store, env.environ, env.clock)
    except (BuildError, CacheError) as error:
        worker.reporter.message(f"warning: the store was not pruned: {error}")
        return
    if done is not None and done.entries:
        worker.reporter.message(f"pruned {human_size(done.freed)} of the store, as its policies say")


def _output_specs(args: argparse.Namespace, options: BuildOptions, env: Environment) -> list[OutputSpec]:
    specs = output_specs(args.output, args.tag, options, load=args.load, push=args.push)
    check_deletes(specs, parse_entitlements(args.allow, args.network), env.cwd)
    if not args.annotation:
        return specs
    from builder.export.annotation import annotated

    return annotated(specs, args.annotation)


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


def _cache_words(args: argparse.Namespace, options: BuildOptions) -> CacheWords | None:
    """What --cache-from and --cache-to say; None when there is nothing to import for them."""
    is_inline = wants_inline_cache(options.build_args)
    if not (args.cache_from or args.cache_to or is_inline):
        return None
    from builder.commands.build_caches import parse_words

    return parse_words(args.cache_from, args.cache_to, inline=is_inline)


@contextlib.contextmanager
def _equipped(worker: Worker, words: CacheWords | None, env: Environment, platform: str) -> Iterator[Worker]:
    """The worker with the caches that `words` name; closed at the end, and the reporter with them."""
    try:
        if words is not None:
            from builder.commands.build_caches import with_caches

            worker = with_caches(worker, words, env, platform or host_platform())
        yield worker
    finally:
        worker.close_caches()
        worker.reporter.close()


def _solve(plan: Plan, worker: Worker, args: argparse.Namespace, *, whole: bool) -> Solver:
    """Carry the plan out; `whole` when the outputs need the layers of the images."""
    solver = Solver(plan, worker)

    def run_all(states: list[VertexState], run_one: Callable[[VertexState], None]) -> None:
        from builder.sandbox.userns import take_privileges
        from builder.schedule import Schedule, default_jobs

        take_privileges()
        assert worker.sandbox.snapshotter
        if any(isinstance(state.vertex.op, ExecOp) and state.vertex.op.network == "default" for state in states):
            with contextlib.suppress(SandboxError):  # raised again by the step that needs it
                worker.sandbox.launcher.prepare_network()
        Schedule(states, run_one).run(args.jobs or default_jobs(), cancel=worker.cancel)

    for warning in plan.warnings:
        worker.reporter.warning(warning)
    try:
        solver.solve(run_all)
        if whole:
            solver.bring_images()
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
    """The reporter that --progress asks for."""
    from builder.progress import new_reporter

    wanted = "quiet" if args.quiet else args.progress
    return new_reporter(wanted, env.stderr, sum(not vertex.internal for vertex in plan.vertices))
