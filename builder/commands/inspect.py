"""show what images of the local store are made of, as JSON"""

from __future__ import annotations

import argparse
import json
from typing import Any

from builder.commands import Environment
from builder.image.describe import inspect_document
from builder.image.names import familiar_parts
from builder.image.stored import platforms_of, require_image, require_record
from cache.digest import Digest
from cache.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild inspect`."""
    parser.add_argument("image", nargs="+", metavar="IMAGE", help="a name, a digest, or the start of an id")
    parser.add_argument("--platform", default="", metavar="OS/ARCH", help="of an image for several, the one for this")
    parser.add_argument("--format", choices=("pretty", "json"), default="pretty", help="json: everything on one line")


def run(args: argparse.Namespace, env: Environment) -> int:
    """Print an array with an object for each image."""
    with env.open_store() as store:
        documents = [_document(store, text, args.platform) for text in args.image]
    indent = None if args.format == "json" else 4
    env.stdout.write(json.dumps(documents, indent=indent, ensure_ascii=False) + "\n")
    return 0


def _document(store: Store, text: str, platform: str) -> dict[str, Any]:
    """What is known of one image; of one in an index also which others there are."""
    image = require_image(store, text, platform)
    record = require_record(store, text)
    found = inspect_document(store, image, _names(store, record.manifest_digest))
    if record.manifest_digest != image.manifest_digest:
        index = {"Digest": str(record.manifest_digest), "Platforms": list(platforms_of(store, text))}
        found["Index"] = index
    return found


def _names(store: Store, digest: Digest) -> list[str]:
    mine = [record.name for record in store.images.walk() if record.name and record.manifest_digest == digest]
    return [":".join(familiar_parts(name)) for name in mine]
