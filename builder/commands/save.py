"""write an image of the local store to an archive"""

from __future__ import annotations

import argparse
import os

from builder.commands import Environment
from builder.export.archive import write_archive
from builder.export.archiveplan import plan_archive
from builder.export.file import open_destination
from builder.export.pack import Compression, pack_stored
from builder.export.stored import plan_stored
from builder.image.names import parse_names
from builder.image.stored import read_images, require_image, require_record
from cache.digest import Digest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild save`."""
    parser.add_argument("image", metavar="IMAGE", help="a name, a digest, or the start of an id")
    parser.add_argument("-o", "--output", default="-", metavar="FILE", help="the archive, - for standard output")
    parser.add_argument("--format", choices=("docker", "oci"), default="docker", help="docker: for docker load too")
    which = "of an image for several only this one (default: all of them in oci, this machine's in docker)"
    parser.add_argument("--platform", default="", metavar="OS/ARCH", help=which)


def run(args: argparse.Namespace, env: Environment) -> int:
    """Write the archive, under the name that the image was asked for by."""
    with env.open_store() as store:
        record = require_record(store, args.image)
        names = parse_names([record.name] if record.name else [])
        image = require_image(store, args.image, args.platform)
        is_whole = args.format == "oci" and not args.platform
        images = read_images(store, record.manifest_digest) if is_whole else [image]
        packed = [pack_stored(store, each, Compression()) for each in images]
        if is_whole:
            archive = plan_stored(store, Digest(record.manifest_digest), packed, names)
        else:
            archive = plan_archive(packed, names, docker=args.format == "docker")
        dest = args.output if args.output == "-" else os.path.join(env.cwd, args.output)
        with open_destination(dest, env.stdout_bytes) as sink:
            write_archive([archive], store.blobs, sink)
    return 0
