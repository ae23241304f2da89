"""remove what nothing needs from the store, the least recently used first

What an image, a container or a running build needs stays. Without limits everything else goes; `--all` also removes
what could be made anew from what stays (compressed layers, and the records of layers that an image keeps), and what
names of images meant before.
"""

from __future__ import annotations

import argparse
import os

from builder.commands import Environment
from builder.errors import UsageError
from builder.gc import carry_out, settings
from builder.holders import outside
from builder.image.describe import human_size
from builder.quantities import parse_space
from builder.runner.container import Containers
from builder.usage_filter import PRUNABLE, parse_filters
from builder.usage_report import as_blocks, as_json, as_table
from cache.prune import Policy, Pruned, prune
from cache.usage import Entry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild prune`, which are those of `docker buildx prune` and `docker builder prune`."""
    add = parser.add_argument
    add("-a", "--all", action="store_true", help="also what can be made anew, and former versions of names")
    add(
        "--filter", action="append", default=[], metavar="FILTER", help="type=TYPE, id=ID, until=AGE: only such entries"
    )
    add("-f", "--force", action="store_true", help="do not ask, even on a terminal")
    add("--keep-duration", default="", metavar="AGE", help="keep what was used within that time, like until=AGE")
    add("--max-used-space", default="", metavar="SIZE", help="remove until the store takes no more (10GB, 20%%)")
    add("--reserved-space", default="", metavar="SIZE", help="never get the store below that; alone: get down to it")
    add("--keep-storage", default="", metavar="SIZE", help="the same, as docker builder prune calls it")
    add("--min-free-space", default="", metavar="SIZE", help="remove until the file system has so much left")
    add("--policy", action="store_true", help="carry out the policies of config.toml, or the default ones, now")
    add("--format", choices=("table", "json"), default="table", help="json: one object per line")
    add("-v", "--verbose", action="store_true", help="all that is known of what is removed")


def run(args: argparse.Namespace, env: Environment) -> int:
    """Remove, and print what is gone and how much that was."""
    with env.open_store(reads_trees=True) as store:
        policy = _policy(args, env)
        if not args.force and not _is_sure(args, env):
            return 0
        Containers(store.root, store.locks).bury_dead()
        with store.locks.exclusive("gc"):
            if args.policy:
                done = carry_out(store, settings(store.root, {}), env.clock)
            else:
                done = prune(store, outside(store, env.clock()), [policy], env.clock())
    _print(done, args, env)
    return 0


def _policy(args: argparse.Namespace, env: Environment) -> Policy:
    limits = (args.max_used_space, args.reserved_space or args.keep_storage, args.min_free_space)
    wanted = parse_filters(
        [*args.filter, *([f"until={args.keep_duration}"] if args.keep_duration else [])], env.clock()
    )
    if args.policy and (any(limits) or wanted != parse_filters([], 0) or args.all):
        raise UsageError("--policy: the policies say themselves what they remove", hint="leave the other options out")
    if wanted.patterns or wanted.flags:
        raise UsageError("prune --filter: only type, id and until are possible", hint="pybuild du has the others")
    kept = sorted(wanted.types - set(PRUNABLE))
    if kept:
        raise UsageError(f'--filter type "{kept[0]}" is never pruned', hint=f"types are {', '.join(PRUNABLE)}")
    disk = os.statvfs(env.root)
    size = disk.f_blocks * disk.f_frsize
    names = ("--max-used-space", "--reserved-space", "--min-free-space")
    sizes = [parse_space(text, name, size) if text else 0 for name, text in zip(names, limits, strict=True)]
    return Policy(wanted.types, wanted.ids, wanted.keep_ns, sizes[0], sizes[1], sizes[2], all=args.all)


def _is_sure(args: argparse.Namespace, env: Environment) -> bool:
    """Ask whoever sits at the terminal; without one there is nobody to ask."""
    import sys

    if not sys.stdin.isatty():
        return True
    what = "all of the build cache that no image needs" if not args.policy else "what the policies say"
    env.stderr.write(f"WARNING! This will remove {what}. Are you sure you want to continue? [y/N] ")
    env.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _print(done: Pruned, args: argparse.Namespace, env: Environment) -> None:
    if args.format == "json":
        env.stdout.write(as_json(done.entries, _description))
        return
    if args.verbose:
        env.stdout.write(as_blocks(done.entries, _description))
    elif done.entries:
        env.stdout.write(as_table(done.entries, env.clock()) + "\n")
    env.stdout.write(f"Total reclaimed space: {human_size(done.freed)}\n")


def _description(entry: Entry) -> str:
    return entry.description
