"""What a command that plans a build has open: store, context, images, secrets, and the plan itself.

One way in for `build` and for those that only ask (`explain`): errors get the lines of the Dockerfile that they name.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from builder import resources
from builder.commands import Environment, build_options, left_out
from builder.commands.entitlements import parse_entitlements
from builder.commands.merging import chosen, is_remapped, remapped
from builder.context import BuildContext
from builder.contexts.kinds import is_git_over_ssh
from builder.contexts.opening import Source, add_named, open_context
from builder.errors import BuildError, SandboxError
from builder.fetcher import Fetcher
from builder.frontend import load_plan
from builder.image.platform import host_platform
from builder.inputs import Inputs
from builder.plan import Plan
from builder.pulling import RemoteImages
from builder.redact import redact
from builder.resolver import StoreResolver
from builder.security_options import parse_security_options
from builder.worker import Sandbox, Secrets, StepOptions, Worker
from cache.errors import CacheError

if TYPE_CHECKING:
    from builder.options import BuildOptions
    from builder.progress import Reporter


@contextlib.contextmanager
def opened(
    args: argparse.Namespace, options: BuildOptions, env: Environment, make: Callable[[Plan], Reporter]
) -> Iterator[tuple[Plan, Worker]]:
    """The plan of the command line, and the worker to carry it out with, whose reporter `make` makes.

    Errors get the lines of the Dockerfile that they are about.
    """
    secrets = secrets_of(args, env)
    say = partial(_say, args, env)
    with env.open_store() as store:
        images = RemoteImages(store, env.environ, pull=args.pull, say=say)
        resolver = StoreResolver(store, options.named_contexts, cwd=env.cwd, remote=images)
        fetcher = Fetcher(store, env.clock, secrets, images)
        resolver.dates(args.context, fetcher)
        source = Source(fetcher, env.cwd, options.build_args, say)
        context = opened_context(args, env, source, resolver)
        add_named(context, resolver.file_contexts(), source)
        try:
            sandbox = _sandbox(args, env)
            remap = partial(remapped, store) if is_remapped(args) else None
            sandbox.merge_layers(partial(chosen, args.snapshotter, store, say), remap)
            warm_up = partial(_warm_up, sandbox, context, env, has_network=options.network == "default")
            plan = load_plan(
                context, options, resolver, memo=store.memo, host=host_platform(), clock=env.clock, on_miss=warm_up
            )
            if any(image.epoch is not None for image in plan.images):
                sandbox.options = sandbox.options._replace(restarts_clocks=True)
            inputs = Inputs(context, plan.vertices, fetcher, modes=options.cache_key_mode)
            reporter = make(plan)
            store.on_left_out(lambda names: reporter.message(left_out(names)))
            yield plan, Worker(store, inputs, sandbox, secrets, reporter, env.clock)
        except (BuildError, CacheError) as error:
            _explain(error, context)
            raise
        finally:
            images.close()


def opened_context(args: argparse.Namespace, env: Environment, source: Source, resolver: StoreResolver) -> BuildContext:
    """The context of the command line; with --locked what the lock says is in force from then on."""
    if args.locked is None:
        return open_context(args.context, args.file, source)
    from builder.commands.locking import open_locked

    return open_locked(args, env, source, resolver)


def _sandbox(args: argparse.Namespace, env: Environment) -> Sandbox:
    limits = build_limits = None
    if args.resource or args.build_resource:
        limits = resources.parse_limits(args.resource)
        build_limits = resources.parse_limits(args.build_resource)
    shell = "hint" if args.debug_shell == "off" and env.stderr.isatty() else args.debug_shell
    return Sandbox(
        StepOptions(
            parse_entitlements(args.allow, args.network),
            limits,
            build_limits,
            cgroup_parent=resources.cgroup_parent(args.cgroup_parent),
            debug_shell=shell,
            is_own_network_required=args.network == build_options.BRIDGE,
            dns=build_options.dns_options(args),
            security=parse_security_options(args.security_opt, env.cwd),
        )
    )


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


def _explain(error: BuildError | CacheError, context: BuildContext) -> None:
    from builder.sandbox.diagnosis import explain

    if isinstance(error, BuildError):
        error.excerpt = excerpt_of(error, context)
    error.hint = error.hint or explain(error)


def secrets_of(args: argparse.Namespace, env: Environment) -> Secrets:
    """What --secret and --ssh give."""
    sources = tuple(build_options.secret(text, env.cwd) for text in args.secret)
    agents = args.ssh
    if not agents and is_git_over_ssh(args.context) and env.environ.get("SSH_AUTH_SOCK"):
        agents = ["default"]
    return Secrets(sources, dict(build_options.agent(text, env) for text in agents), env.environ)


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
