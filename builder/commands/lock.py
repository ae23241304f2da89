"""Write down what the names in a Dockerfile mean today: images, files behind URLs, git references."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from functools import partial

from builder.commands import Environment, build_options, session
from builder.commands.locking import lock_path, read_lock
from builder.context import BuildContext
from builder.contexts.opening import Source, add_named, open_context
from builder.errors import BuildError, UsageError
from builder.fetcher import Fetcher
from builder.frontend import make_plan
from builder.image.platform import host_platform
from builder.locked import LockedSources
from builder.lockfile import Entry, Key, differences, named, render
from builder.options import BuildOptions
from builder.pulling import RemoteImages
from builder.recording import Recorder, record
from builder.resolver import StoreResolver
from cache.atomic import write_atomic
from cache.errors import CacheError
from cache.namedtuple import NamedTuple
from cache.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that decide the plan, where the lock goes, and what of it is to be written."""
    add = parser.add_argument
    add("context", metavar="PATH|URL|-", nargs="?", default=".", help="the context, as for a build (default: here)")
    add("-o", "--output", default="", metavar="FILE", help="the lock file (default: the Dockerfile's name and .lock)")
    add("--update", action="append", default=[], metavar="NAME", help="ask anew for this name only, or add it")
    add("--check", action="store_true", help="write nothing; exit code 1 if the lock file would not stay as it is")
    add("-q", "--quiet", action="store_true", help="do not print what is new")
    add("--secret", action="append", default=[], metavar="id=ID,src=FILE|env=VAR", help="a token for URLs and git")
    add("--ssh", action="append", default=[], metavar="default|ID[=SOCKET]", help="an agent for git over ssh")
    parser.epilog = (
        "Everything is asked anew, whatever the store knows; only an image that was built or loaded here is taken from "
        "it. The frontend that `# syntax` names is recorded, but never run: pybuild is its own frontend. Contexts that "
        "are fetched are locked as well; directories and oci-layout:// are not."
    )
    build_options.add_plan_arguments(parser)


class _Target(NamedTuple):
    """The lock file: where it is, its name in messages, and what is in it."""

    path: str
    shown: str
    lock: dict[Key, Entry] | None


def run(args: argparse.Namespace, env: Environment) -> int:
    """Write the lock and print what is new in it, or with --check what would be."""
    if args.check and args.update:
        raise UsageError("--check writes nothing, --update does", hint="give one of the two")
    if args.pull and args.update:
        raise UsageError("--pull asks for every name, --update for one", hint="give one of the two")
    if args.output == "-":
        raise UsageError("-o -: a lock is a file, of which --update and --locked read", hint="name one: -o FILE")
    options = build_options.plan_options(args, env)
    with env.open_store() as store:
        target, found = _recorded(args, options, env, store)
    if target.lock is None and args.check:
        raise BuildError(f"{target.shown} does not exist", hint="write it: pybuild lock")
    lines = differences(target.lock or {}, found)
    if not args.quiet:
        text = "".join(f"{line}\n" for line in lines)
        env.stdout.write(text.encode("utf-8", "backslashreplace").decode())
    if args.check:
        return 1 if lines else 0
    if lines or target.lock is None:
        write_atomic(target.path, render(found))
    return 0


def _recorded(
    args: argparse.Namespace, options: BuildOptions, env: Environment, store: Store
) -> tuple[_Target, Mapping[Key, Entry]]:
    """The lock file as it is, and what is to be in it."""
    say = partial(_say, args, env)
    images = RemoteImages(store, env.environ, say=say)
    resolver = StoreResolver(store, options.named_contexts, cwd=env.cwd, remote=images)
    fetcher = Fetcher(store, env.clock, session.secrets_of(args, env), images)
    resolver.dates(args.context, fetcher)
    source = Source(fetcher, env.cwd, options.build_args, say)
    try:
        context = None if args.output else open_context(args.context, args.file, source)
        target = _target(args, context, env)
        recorder = Recorder(images, _kept(args, target, images))
        resolver.pins = fetcher.pins = recorder
        context = context or open_context(args.context, args.file, source)
        add_named(context, resolver.file_contexts(), source)
        try:
            plan = make_plan(context, options, resolver, host_platform())
            record(plan, recorder, fetcher, resolver.file_contexts())
        except BuildError as error:
            error.excerpt = session.excerpt_of(error, context)
            raise
    except CacheError as error:
        raise BuildError(str(error), hint=error.hint) from error
    finally:
        images.close()
    return target, _updated(args.update, target, recorder.found)


def _target(args: argparse.Namespace, context: BuildContext | None, env: Environment) -> _Target:
    path, shown = lock_path(args.output, context, env.cwd, option="-o ")
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise BuildError(f"{shown}: its directory does not exist")
    return _Target(path, shown, read_lock(path, shown))


def _kept(args: argparse.Namespace, target: _Target, images: RemoteImages) -> LockedSources | None:
    """What is not asked for: with --update everything in the lock but the names given."""
    if not args.update:
        return None
    if target.lock is None:
        raise BuildError(f"{target.shown} does not exist", hint="write it, without --update: pybuild lock")
    moved = {key for text in args.update for key in named(text, target.lock)}
    return LockedSources({key: each for key, each in target.lock.items() if key not in moved}, target.shown, images)


def _updated(names: list[str], target: _Target, found: Mapping[Key, Entry]) -> Mapping[Key, Entry]:
    """All that was found, or the lock with the names given as they were found. Raises UsageError for a name that
    nothing refers to."""
    if not names:
        return found
    updated = dict(target.lock or {})
    for text in names:
        keys = named(text, found)
        if not keys:
            known = ", ".join(sorted(key.name for key in found)) or "none"
            raise UsageError(f'--update "{text}": nothing refers to it', hint=f"what is referred to: {known}")
        updated.update((key, found[key]) for key in keys)
    return updated


def _say(args: argparse.Namespace, env: Environment, text: str) -> None:
    if not args.quiet:
        env.stderr.write(f"{text}\n")
        env.stderr.flush()
