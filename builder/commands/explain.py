"""Say which instructions a build would find in the cache, and for those that it would not, what has changed."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator

from builder.commands import Environment, build_options, session
from builder.explain.predict import predict
from builder.explain.reasons import Reasons, lines
from builder.image.platform import host_platform
from builder.progress import QuietReporter
from builder.solver import Solver
from builder.worker import Worker

BARE = build_options.BARE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `pybuild build`, since they decide what it finds, and the format."""
    build_options.add_arguments(parser)
    parser.add_argument("--format", default="text", choices=("text", "json"), help="how to print (default: text)")


def run(args: argparse.Namespace, env: Environment) -> int:
    """Print an explanation for every instruction; nothing is run and nothing is built."""
    options = build_options.plan_options(args, env)
    with (
        session.opened(args, options, env, lambda _plan: QuietReporter()) as (plan, bare),
        _equipped(bare, args, env, options.platform) as worker,
    ):
        solver = Solver(plan, worker)
        predict(solver)
        found = Reasons(solver).all()
        worker.inputs.save()
    if args.format == "json":
        env.stdout.write(json.dumps({"instructions": [each.document() for each in found]}, indent=2) + "\n")
    else:
        env.stdout.write("".join(f"{line}\n" for line in lines(found)))
    return 0


@contextlib.contextmanager
def _equipped(worker: Worker, args: argparse.Namespace, env: Environment, platform: str) -> Iterator[Worker]:
    """The worker with the caches of --cache-from; closed at the end."""
    if not args.cache_from:
        yield worker
        return
    from builder.commands.build_caches import open_imports, parse_words

    def say(text: str) -> None:
        env.stderr.write(f"{text}\n")

    words = parse_words(args.cache_from, (), inline=False)
    worker = worker._replace(
        imports=open_imports(words, env, worker.store, platform=platform or host_platform(), say=say)
    )
    try:
        yield worker
    finally:
        worker.close_caches()
