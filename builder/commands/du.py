"""show what the store takes on the disk, and what of it could be pruned

The sizes are those of du(1): all entries together are what the store's directory takes. A `*` marks what several images
or builds share.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

from builder.commands import Environment
from builder.holders import outside
from builder.redact import redact
from builder.usage_filter import parse_filters
from builder.usage_report import as_blocks, as_json, as_table, sums
from cache.store import Store
from cache.usage import Entry, Survey


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild du`."""
    add = parser.add_argument
    add(
        "--filter",
        action="append",
        default=[],
        metavar="FILTER",
        help="type=TYPE, id=ID, until=AGE, description~=REGEX, inuse, shared, private, reclaimable",
    )
    add("--format", choices=("table", "json"), default="table", help="json: one object per line")
    add("-v", "--verbose", action="store_true", help="all that is known of each entry")


def run(args: argparse.Namespace, env: Environment) -> int:
    """Print the entries and their sums."""
    now_ns = env.clock()
    wanted = parse_filters(args.filter, now_ns)
    with env.open_store(reads_trees=True) as store:
        found = outside(store, env.clock())
        survey = Survey(store, found.roots(), found.places(), found.fetched())
        entries = [entry for entry in survey.entries() if wanted.fits(entry, now_ns)]
        describe = describer(store)
        if args.format == "json":
            env.stdout.write(as_json(entries, describe))
            return 0
        shown = as_blocks(entries, describe) if args.verbose else as_table(entries, now_ns) + "\n"
    env.stdout.write(shown + sums(entries))
    return 0


def describer(store: Store) -> Callable[[Entry], str]:
    """A function that says what made a layer, from the manifests of the records that lead to it."""

    def describe(entry: Entry) -> str:
        records = store.records.get_many(entry.keys[:4]).values()
        said = [text for text in (_operation(record.manifest) for record in records) if text]
        return redact(said[0] if said else entry.description)

    return describe


def _operation(manifest: bytes) -> str:
    """A line about the operation of a record."""
    try:
        fields = json.loads(manifest)
    except ValueError:
        return ""
    op = str(fields.get("op", ""))
    if op == "exec":
        return "RUN " + " ".join(map(str, fields.get("argv") or ()))
    if op == "file":
        actions = fields.get("actions") or ()
        return "; ".join(f"{each.get('action', '').removesuffix('Action').lower()} {_paths(each)}" for each in actions)
    return op


def _paths(action: dict[str, object]) -> str:
    return " ".join(str(action[name]) for name in ("source", "dest", "path") if action.get(name))
