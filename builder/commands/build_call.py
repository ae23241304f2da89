"""`pybuild build --call`: ask about a Dockerfile instead of building it.

Source: docker buildx build reference (--call, --print, --check).
"""

from __future__ import annotations

import argparse

from builder.check_run import AssumedImages
from builder.commands import Environment, build_options, session
from builder.contexts.opening import Source, open_context
from builder.errors import BuildError, UsageError
from builder.fetcher import Fetcher
from builder.image.platform import host_platform, platform_value
from builder.outline import Outline, outline, targets
from builder.outline_text import outline_json, outline_text, targets_json, targets_text
from builder.resolver import StoreResolver
from grammar.nodes import Dockerfile
from grammar.stages import parse


def run_call(args: argparse.Namespace, env: Environment) -> int:
    """Answer the question of --call on stdout. Raises BuildError or DockerfileError as a build does."""
    if args.locked is not None:
        raise UsageError("--locked is for builds", hint="pybuild explain and pybuild graph take it, too")
    if args.call.name == "check":
        return _check(args, env)
    options = build_options.plan_options(args, env)
    with env.open_store() as store:
        source = Source(Fetcher(store, env.clock), env.cwd, options.build_args)
        context = open_context(args.context, args.file, source)
        dockerfile = parse(context.source, filename=context.dockerfile)
        if args.call.name == "targets":
            env.stdout.write(_targets(args, dockerfile))
            return 0
        # An image that the store does not have is taken to exist: nothing is pulled for a question.
        images = AssumedImages((), StoreResolver(store, options.named_contexts, cwd=env.cwd))
        host = platform_value(host_platform())
        try:
            found = outline(dockerfile, options, images, host=host)
        except BuildError as error:
            error.excerpt = session.excerpt_of(error, context)
            raise
    env.stdout.write(_outline(args, found, dockerfile))
    return 0


def _targets(args: argparse.Namespace, dockerfile: Dockerfile) -> str:
    stages = targets(dockerfile)
    return targets_json(stages, dockerfile.source) if args.call.format == "json" else targets_text(stages)


def _outline(args: argparse.Namespace, found: Outline, dockerfile: Dockerfile) -> str:
    return outline_json(found, dockerfile.source) if args.call.format == "json" else outline_text(found)


def _check(args: argparse.Namespace, env: Environment) -> int:
    """The check command with this command's options; `context` and `--file` mean there what they mean here."""
    from builder.commands import check

    parser = argparse.ArgumentParser()
    check.add_arguments(parser)
    checked = parser.parse_args([args.context])
    for name, value in vars(args).items():
        if name != "context" and hasattr(checked, name):
            setattr(checked, name, value)
    checked.format = "buildx" if args.call.format == "text" else args.call.format
    return int(check.run(checked, env))
