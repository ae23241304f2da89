"""list the images of the local store"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from builder.commands import Environment
from builder.errors import BuildError
from builder.image.describe import human_age, human_size, layer_sizes, short_id, table
from builder.image.names import familiar_parts
from builder.image.platform import platform_of
from builder.image.stored import StoredImage, read_images
from builder.image.timestamp import parse_time
from cache.digest import Digest
from cache.errors import CacheError
from cache.images import ImageRecord
from cache.store import Store


class _Row(NamedTuple):
    """One name of an image, or of an index over `images`; there are none when the documents cannot be read."""

    record: ImageRecord
    images: Sequence[StoredImage]
    size: int

    @property
    def created(self) -> str:
        return max((str(image.config.get("created") or "") for image in self.images), default="")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild images`."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="only images of this repository, or this name:tag")
    parser.add_argument("--digests", action="store_true", help="show the digests of the manifests")
    parser.add_argument("--no-trunc", action="store_true", help="show whole ids")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="json: one object per line")
    parser.add_argument("-q", "--quiet", action="store_true", help="print ids only, each once")


def run(args: argparse.Namespace, env: Environment) -> int:
    """Print the images, the newest first."""
    with env.open_store() as store:
        rows = sorted(_rows(store), key=lambda row: (-(parse_time(row.created) or 0), row.record.name))
    if args.name:
        rows = [row for row in rows if args.name in _spellings(row.record.name)]
    if args.quiet:
        ids = dict.fromkeys(_id(row, args.no_trunc) for row in rows)
        env.stdout.write("".join(f"{image_id}\n" for image_id in ids))
    elif args.format == "json":
        env.stdout.write("".join(json.dumps(_document(row, env.clock())) + "\n" for row in rows))
    else:
        env.stdout.write(_table(rows, args, env.clock()))
    return 0


def _rows(store: Store) -> Iterator[_Row]:
    records = list(store.images.walk())
    named = {record.manifest_digest for record in records if record.name}
    for record in records:
        if not record.name and record.manifest_digest in named:
            continue
        try:
            images = read_images(store, Digest(record.manifest_digest))
            yield _Row(record, images, sum(size for image in images for size in layer_sizes(store, image)))
        except (BuildError, CacheError):
            yield _Row(record, (), 0)


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
        "Size": row.size,
        "Platforms": [platform_of(image.config) for image in row.images],
    }


def _table(rows: list[_Row], args: argparse.Namespace, now_ns: int) -> str:
    header = ["REPOSITORY", "TAG", *(["DIGEST"] if args.digests else []), "IMAGE ID", "CREATED", "SIZE"]
    lines = []
    for row in rows:
        digest = [str(row.record.manifest_digest)] if args.digests else []
        size = human_size(row.size) if row.images else "damaged"
        lines.append(
            [*familiar_parts(row.record.name), *digest, _id(row, args.no_trunc), human_age(row.created, now_ns), size]
        )
    return table(header, lines)
