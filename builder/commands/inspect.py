"""show what images of the local store are made of, as JSON"""

from __future__ import annotations

import argparse
import json

from builder.commands import Environment
from builder.image.describe import inspect_document
from builder.image.names import familiar_parts
from builder.image.stored import StoredImage, require_image
from cache.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild inspect`."""
    parser.add_argument("image", nargs="+", metavar="IMAGE", help="a name, a digest, or the start of an id")
    parser.add_argument("--format", choices=("pretty", "json"), default="pretty", help="json: everything on one line")


def run(args: argparse.Namespace, env: Environment) -> int:
    """Print an array with an object for each image."""
    with Store.open(env.root) as store:
        images = [require_image(store, text) for text in args.image]
        documents = [inspect_document(store, image, _names(store, image)) for image in images]
    indent = None if args.format == "json" else 4
    env.stdout.write(json.dumps(documents, indent=indent, ensure_ascii=False) + "\n")
    return 0


def _names(store: Store, image: StoredImage) -> list[str]:
    records = [record for record in store.images.walk() if record.name]
    mine = [record.name for record in records if record.manifest_digest == image.manifest_digest]
    return [":".join(familiar_parts(name)) for name in mine]
