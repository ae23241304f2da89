"""write images of the local store to an archive"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from builder.commands import Environment
from builder.export.archive import write_archive
from builder.export.archiveplan import Archive, plan_archive
from builder.export.file import open_destination
from builder.export.pack import Compression, pack_stored
from builder.export.stored import plan_stored
from builder.image.names import parse_names
from builder.image.stored import read_images, require_image, require_record
from cache.digest import Digest
from cache.images import ImageRecord
from cache.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild save`."""
    parser.add_argument("image", nargs="+", metavar="IMAGE", help="a name, a digest, or the start of an id")
    parser.add_argument("-o", "--output", default="-", metavar="FILE", help="the archive, - for standard output")
    parser.add_argument("--format", choices=("docker", "oci"), default="docker", help="docker: for docker load too")
    which = "of an image for several only this one (default: all of them in oci, this machine's in docker)"
    parser.add_argument("--platform", default="", metavar="OS/ARCH", help=which)


def run(args: argparse.Namespace, env: Environment) -> int:
    """Write the archive: each image once, under the names that it was asked for by."""
    with env.open_store() as store:
        wanted: dict[str, list[ImageRecord]] = {}
        for text in args.image:
            record = require_record(store, text)
            wanted.setdefault(record.manifest_digest, []).append(record)
        archives = [_archive(store, records, args) for records in wanted.values()]
        dest = args.output if args.output == "-" else os.path.join(env.cwd, args.output)
        with open_destination(dest, env.stdout_bytes) as sink:
            write_archive(archives, store.blobs, sink)
    return 0


def _archive(store: Store, records: Sequence[ImageRecord], args: argparse.Namespace) -> Archive:
    """One image, or an index with all of its images; the records are its names."""
    digest = Digest(records[0].manifest_digest)
    names = parse_names([record.name for record in records if record.name])
    image = require_image(store, digest, args.platform)
    is_whole = args.format == "oci" and not args.platform
    packed = [pack_stored(store, each, Compression()) for each in (read_images(store, digest) if is_whole else [image])]
    if is_whole:
        return plan_stored(store, digest, packed, names)
    return plan_archive(packed, names, docker=args.format == "docker")
