"""check the store: every blob, layer, chain and image; repair it, and tell what is lost

Damage makes builds fail or be done again; leftovers of killed processes only take space. `--repair` removes what is
wrong, so that it is made anew, and gives leftovers back. The exit code is 1 when damage is left.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator

from builder.commands import Environment
from builder.errors import UsageError
from builder.holders import outside
from builder.image.describe import human_size
from builder.image_check import check_images
from cache.check import DAMAGE, Finding, check, repair
from cache.errors import StoreCorruptError
from cache.store import Store

_PASSES = 5
"""A repair may show what stood on what it removed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild store`."""
    parser.add_argument(
        "action", choices=("check",), help="check: read everything and compare it with what is recorded"
    )
    parser.add_argument("--repair", action="store_true", help="remove what is wrong and what is left over")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: one object per line")
    parser.add_argument("-q", "--quiet", action="store_true", help="print damage only")


def run(args: argparse.Namespace, env: Environment) -> int:
    """Check, and print every finding and the sums."""
    if not os.path.exists(os.path.join(env.root, "version")):
        raise UsageError(f"{env.root}: there is no store", hint="name one with PYBUILD_ROOT")
    try:
        return _run(args, env)
    except StoreCorruptError as error:
        if not args.repair:
            raise
        _set_aside(env, error)
        return _run(args, env)


def _run(args: argparse.Namespace, env: Environment) -> int:
    left: list[Finding] = []
    lost = 0
    with env.open_store(reads_trees=True) as store, store.locks.exclusive("gc"):
        if any(text != "ok" for (text,) in store.database.rows("PRAGMA quick_check(1)")):
            raise StoreCorruptError(f"{store.database.path}: the database is damaged", hint="use --repair")
        for number in range(_PASSES if args.repair else 1):
            left, is_changed = [], False
            for finding in _findings(store):
                is_repaired = args.repair and repair(finding)
                is_changed |= is_repaired
                lost += finding.size if not number or is_repaired else 0
                if not is_repaired:
                    left.append(finding)
                _print(finding, is_repaired, args, env)
            if not is_changed:
                break
    damage = sum(finding.severity == DAMAGE for finding in left)
    if args.format == "text" and not args.quiet:
        verb = "freed" if args.repair else "lost to leftovers"
        env.stdout.write(f"{damage} damaged, {len(left) - damage} left over, {human_size(lost)} {verb}\n")
    return 1 if damage else 0


def _findings(store: Store) -> Iterator[Finding]:
    yield from check(store, outside(store))
    yield from check_images(store)


def _print(finding: Finding, is_repaired: bool, args: argparse.Namespace, env: Environment) -> None:
    if args.quiet and finding.severity != DAMAGE:
        return
    if args.format == "json":
        fields = {name: getattr(finding, name) for name in ("severity", "subject", "message", "size")}
        env.stdout.write(json.dumps({**fields, "repaired": is_repaired}) + "\n")
        return
    size = f" ({human_size(finding.size)})" if finding.size else ""
    env.stdout.write(
        f"{finding.severity}: {finding.subject}: {finding.message}{size}{', repaired' if is_repaired else ''}\n"
    )


def _set_aside(env: Environment, error: StoreCorruptError) -> None:
    """A database that cannot be read is renamed; a new one knows nothing, so what lies about is swept as leftovers."""
    names: Iterable[str] = ("index.db", "index.db-wal", "index.db-shm")
    for name in names:
        path = os.path.join(env.root, name)
        if os.path.exists(path):
            os.replace(path, f"{path}.damaged")
    env.stderr.write(f"pybuild: {error}: set aside as index.db.damaged; images have to be built or loaded again\n")
