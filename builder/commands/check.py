"""find mistakes in a Dockerfile"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from builder.check_report import FORMATS
from builder.check_run import ALL_RULES, AssumedImages, Report, Subject, check
from builder.commands import Environment, build_options
from builder.context import BuildContext
from builder.contexts import kinds
from builder.errors import BuildError, UsageError
from builder.image.platform import host_platform, platform_value
from builder.resolver import StoreResolver
from builder.rewrite import replace_file
from cache.errors import CacheError
from grammar.errors import nearest
from grammar.lint_fix import fix

_ROUNDS = 3
"""A fix may show the next thing to fix; it never takes more rounds than this."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild check`."""
    add = parser.add_argument
    add("context", metavar="PATH|URL|-", nargs="?", default=".", help="the context (default: here)")
    add("--format", default="text", choices=tuple(FORMATS), help="how to print (default: text)")
    add("--rules", action="append", default=[], metavar="all|NAME,…", help="turn on rules that are off")
    add("--fix", action="store_true", help="rewrite what is safe to rewrite, and print the rest")
    build_options.add_plan_arguments(parser)


def run(args: argparse.Namespace, env: Environment) -> int:
    """Print every finding; 1 if one of them is an error. Nothing is built, and no image is needed."""
    names = _rule_names(args.rules)
    path = os.path.join(env.cwd, args.file or os.path.join(args.context, "Dockerfile"))
    if args.fix and (args.file == "-" or not os.path.isfile(path)):
        raise UsageError("--fix needs a file that it can write", hint="give the Dockerfile as a file with -f")
    context = _context(args, env)
    if not context.source.strip():
        raise BuildError(f"the Dockerfile cannot be empty: {context.dockerfile} has no instructions")
    report = _check(args, env, context, names)
    if args.fix:
        before = context.source
        fixed, report = _fixed(args, env, context, report)
        if context.source != before:
            replace_file(path, context.source)
        env.stderr.write(f"fixed {fixed} finding{'' if fixed == 1 else 's'} in {context.dockerfile}\n")
    env.stdout.write(FORMATS[args.format](report))
    return int(report.has_errors)


def _context(args: argparse.Namespace, env: Environment) -> BuildContext:
    """The context with its Dockerfile. One on this machine needs no store."""
    is_here = os.path.isdir(os.path.join(env.cwd, args.context)) or not kinds.is_remote(args.context)
    if args.context != "-" and is_here and not kinds.is_url(args.file):
        return BuildContext.open(args.context, args.file, cwd=env.cwd)
    from builder.contexts.opening import Source, open_context
    from builder.fetcher import Fetcher

    with env.open_store() as store:
        return open_context(args.context, args.file, Source(Fetcher(store, env.clock), env.cwd))


def _rule_names(words: list[str]) -> frozenset[str]:
    names = {name.strip() for word in words for name in word.split(",")} - {""}
    if "all" in names:
        return frozenset(ALL_RULES)
    for name in sorted(names.difference(ALL_RULES)):
        near = nearest(name, [*ALL_RULES])
        raise UsageError(f'rule "{name}" is not known', hint=f"did you mean {near}?" if near else "RULES.md lists them")
    return frozenset(names)


def _check(args: argparse.Namespace, env: Environment, context: BuildContext, names: frozenset[str]) -> Report:
    options = build_options.plan_options(args, env)
    subject = Subject(context.dockerfile, context.source, context.local("context").matcher)
    with _images(options.named_contexts, env) as resolver:
        return check(subject, options, resolver, host=platform_value(host_platform()), rule_names=names)


@contextmanager
def _images(contexts: Mapping[str, str], env: Environment) -> Iterator[AssumedImages]:
    """The images of the store, if there is one: none is made for a check."""
    directories = [name for name, value in contexts.items() if "://" not in value]
    if not os.path.exists(os.path.join(env.root, "version")):
        yield AssumedImages(directories)
        return
    try:
        store = env.open_store()
    except CacheError:
        yield AssumedImages(directories)
        return
    with store:
        yield AssumedImages(directories, StoreResolver(store, contexts, cwd=env.cwd))


def _fixed(args: argparse.Namespace, env: Environment, context: BuildContext, report: Report) -> tuple[int, Report]:
    """How much was fixed in the context's Dockerfile, and what is left."""
    count = 0
    names = _rule_names(args.rules)
    for _ in range(_ROUNDS):
        source, fixed = fix(context.source, report.findings)
        if not fixed:
            break
        count += len(fixed)
        context.source = source
        report = _check(args, env, context, names)
    return count, report
