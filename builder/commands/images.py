"""list the images of the local store

SHARED is what layers take that another image has, too, UNIQUE what would go with the image. `--tree` shows the layers
instead: each line is a run of layers on those above it, with the images that end there. `--versions NAME` shows what a
name meant before; `pybuild rollback` goes back to it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence

from builder.commands import Environment
from builder.errors import BuildError, UsageError
from builder.image.describe import human_age, human_size, short_id, table
from builder.image.filters import Candidate, matches, parse_image_filters
from builder.image.former import is_whole, versions_of
from builder.image.names import familiar_parts, parse_names
from builder.image.sharing import Sizes, Stack, layer_tree, sizes_of, stack_of, tree_lines
from builder.image.stored import read_images, read_listed, require_record
from builder.image.timestamp import format_time, parse_time
from cache.digest import Digest
from cache.errors import CacheError
from cache.images import ImageRecord
from cache.namedtuple import NamedTuple
from cache.store import Store
from cache.versions import Version


class _Row(NamedTuple):
    """One name of an image, or of an index over several; there are no `stacks` when the documents cannot be read."""

    record: ImageRecord
    stacks: Sequence[Stack]
    platforms: Sequence[str] = ()
    sizes: Sizes = Sizes(0, 0)

    @property
    def created(self) -> str:
        return max((str(stack.image.config.get("created") or "") for stack in self.stacks), default="")

    @property
    def candidate(self) -> Candidate:
        return Candidate(self.record.name, [stack.image for stack in self.stacks], self.created)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild images`."""
    add = parser.add_argument
    add("name", nargs="?", metavar="NAME", help="only this repository, name:tag, or pattern, as 'team/*'")
    add("--tree", action="store_true", help="show the layers as a tree, and which images they make")
    add("--versions", action="store_true", help="show what NAME means and meant before, the newest first")
    add("--digests", action="store_true", help="show the digests of the manifests")
    add("--no-trunc", action="store_true", help="show whole ids")
    which = "reference=PATTERN, dangling=true|false, label=KEY[=VALUE], before=IMAGE, since=IMAGE"
    add("--filter", action="append", default=[], metavar="FILTER", help=which)
    add("--format", choices=("table", "json"), default="table", help="json: one object per line, sizes in bytes")
    add("-q", "--quiet", action="store_true", help="print ids only, each once")


def run(args: argparse.Namespace, env: Environment) -> int:
    """Print the images, the newest first."""
    if args.tree and (args.versions or args.quiet or args.digests):
        raise UsageError("--tree shows no versions, digests or ids alone", hint="leave out one of the options")
    with env.open_store() as store:
        if args.versions:
            env.stdout.write(_versions(store, args, env))
            return 0
        rows = _wanted(store, args)
    if args.tree:
        env.stdout.write(_tree(rows, as_json=args.format == "json"))
    elif args.quiet:
        ids = dict.fromkeys(_id(row, args.no_trunc) for row in rows)
        env.stdout.write("".join(f"{image_id}\n" for image_id in ids))
    elif args.format == "json":
        env.stdout.write("".join(json.dumps(_document(row, env.clock())) + "\n" for row in rows))
    else:
        env.stdout.write(_table(rows, args, env.clock()))
    return 0


def _wanted(store: Store, args: argparse.Namespace) -> list[_Row]:
    found = list(_rows(store))
    sizes = sizes_of({row.record.config_digest: row.stacks for row in found})
    found = [row._replace(sizes=sizes[row.record.config_digest]) for row in found]
    if args.name:
        wanted = args.name
        found = [row for row in found if wanted in _spellings(row.record.name) or matches(row.record.name, wanted)]
    if args.filter:
        fits = parse_image_filters(args.filter, lambda text: _created(store, text))
        found = [row for row in found if fits(row.candidate)]
    return sorted(found, key=lambda row: (-(parse_time(row.created) or 0), row.record.name))


def _rows(store: Store) -> Iterator[_Row]:
    records = list(store.images.walk())
    named = {record.manifest_digest for record in records if record.name}
    for record in records:
        if not record.name and record.manifest_digest in named:
            continue
        try:
            listed = read_listed(store, Digest(record.manifest_digest))
            yield _Row(record, [stack_of(store, image) for _, image in listed], [platform for platform, _ in listed])
        except (BuildError, CacheError):
            yield _Row(record, ())


def _created(store: Store, text: str) -> str:
    record = require_record(store, text)
    return _Row(record, [Stack(image, ()) for image in read_images(store, Digest(record.manifest_digest))]).created


def _spellings(name: str) -> tuple[str, ...]:
    repository, tag = familiar_parts(name)
    return name, name.rpartition(":")[0], repository, f"{repository}:{tag}"


def _id(row: _Row, whole: bool) -> str:
    return str(row.record.config_digest) if whole else short_id(row.record.config_digest)


def _document(row: _Row, now_ns: int) -> dict[str, object]:
    repository, tag = familiar_parts(row.record.name)
    return {
        "Repository": repository,
        "Tag": tag,
        "ID": str(row.record.config_digest),
        "Digest": str(row.record.manifest_digest),
        "CreatedAt": row.created,
        "CreatedSince": human_age(row.created, now_ns),
        "Size": row.sizes.size,
        "SharedSize": row.sizes.shared,
        "UniqueSize": row.sizes.unique,
        "Platforms": list(row.platforms),
    }


def _table(rows: list[_Row], args: argparse.Namespace, now_ns: int) -> str:
    digests = ["DIGEST"] if args.digests else []
    header = ["REPOSITORY", "TAG", *digests, "IMAGE ID", "CREATED", "SIZE", "SHARED", "UNIQUE"]
    lines = []
    for row in rows:
        digest = [str(row.record.manifest_digest)] if args.digests else []
        sizes = [human_size(size) for size in (row.sizes.size, row.sizes.shared, row.sizes.unique)]
        sizes = sizes if row.stacks else ["damaged", "", ""]
        age = human_age(row.created, now_ns)
        lines.append([*familiar_parts(row.record.name), *digest, _id(row, args.no_trunc), age, *sizes])
    return table(header, lines)


def _tree(rows: list[_Row], *, as_json: bool) -> str:
    named = [
        (_label(row, platform), stack)
        for row in rows
        for platform, stack in zip(row.platforms, row.stacks, strict=True)
    ]
    root = layer_tree(named)
    if as_json:
        return json.dumps(root.document()) + "\n"
    return table(["LAYER", "LAYERS", "SIZE", "IMAGES"], tree_lines(root))


def _label(row: _Row, platform: str) -> str:
    name = ":".join(familiar_parts(row.record.name)) if row.record.name else short_id(row.record.config_digest)
    return name if len(row.stacks) == 1 else f"{name} ({platform})"


def _versions(store: Store, args: argparse.Namespace, env: Environment) -> str:
    if not args.name or args.filter:
        raise UsageError("--versions is about one name", hint="pybuild images --versions NAME[:TAG]")
    [name] = parse_names([args.name])
    former = versions_of(store, name)
    states = {
        version.number: "current"
        if version.number == former.current
        else "kept"
        if is_whole(store, version)
        else "gone"
        for version in former.versions
    }
    if args.format == "json":
        return "".join(json.dumps(_version_document(each, states[each.number])) + "\n" for each in former.versions)
    digests = ["DIGEST"] if args.digests else []
    rows = []
    for version in former.versions:
        image_id = str(version.config_digest) if args.no_trunc else short_id(version.config_digest)
        digest = [str(version.manifest_digest)] if args.digests else []
        age = human_age(format_time(version.since_ns), env.clock())
        rows.append([str(version.number), image_id, *digest, age, states[version.number]])
    return table(["VERSION", "IMAGE ID", *digests, "SINCE", "STATE"], rows)


def _version_document(version: Version, state: str) -> dict[str, object]:
    return {
        "Version": version.number,
        "ID": str(version.config_digest),
        "Digest": str(version.manifest_digest),
        "Since": format_time(version.since_ns),
        "State": state,
    }
