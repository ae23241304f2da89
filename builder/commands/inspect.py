"""show what images are made of, as JSON or a part of that

IMAGE is one of the local store, or with docker:// in front one at its registry, of which no layer is fetched. That is
told with what refers to it there, such as signatures and SBOMs: `Referrers`, and those of its index: `Index.Referrers`.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from builder.commands import Environment, registry_options
from builder.image.describe import inspect_document, layer_sizes
from builder.image.names import familiar_parts
from builder.image.path import follow, parse_path, show
from builder.image.stored import platforms_of, require_image, require_record
from cache.digest import Digest
from cache.store import Store

_REMOTE = "docker://"
_EPILOG = (
    'A PATH starts with a dot and is made of .NAME and ["NAME"] for a member, [N] for an item (from the end when '
    "negative), and [*] for all of them, one a line: .Config.Env[0], .Layers[*].digest, .RepoTags[-1], "
    '.Config.Labels["org.opencontainers.image.title"]. Case does not matter where it is not ambiguous; text is printed '
    "bare, anything else as JSON. What is not there is an error."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild inspect`."""
    parser.add_argument("image", nargs="+", metavar="IMAGE", help="a name, a digest, the start of an id; docker://NAME")
    parser.add_argument("--platform", default="", metavar="OS/ARCH", help="of an image for several, the one for this")
    shown = "json: everything on one line; a path, as .Config.Env[0]: what is there, on a line for each image"
    parser.add_argument("-f", "--format", default="pretty", metavar="pretty|json|PATH", help=shown)
    registry_options.add_tls_verify(parser)
    parser.epilog = _EPILOG


def run(args: argparse.Namespace, env: Environment) -> int:
    """Print an array with an object for each image, or what a path leads to in each."""
    steps = None if args.format in ("pretty", "json") else parse_path(args.format)
    with env.open_store() as store:
        documents = [_described(store, text, args, env) for text in args.image]
    if steps is not None:
        env.stdout.write("".join(f"{show(value)}\n" for document in documents for value in follow(document, steps)))
        return 0
    indent = None if args.format == "json" else 4
    env.stdout.write(json.dumps(documents, indent=indent, ensure_ascii=False) + "\n")
    return 0


def _described(store: Store, text: str, args: argparse.Namespace, env: Environment) -> dict[str, Any]:
    if not text.startswith(_REMOTE):
        return _document(store, text, args.platform)
    from builder.copying.remote import describe_remote
    from builder.registry.client import RegistryClient

    with RegistryClient(env.environ, insecure=not args.tls_verify) as client:
        return describe_remote(store, client, text.removeprefix(_REMOTE), args.platform)


def _document(store: Store, text: str, platform: str) -> dict[str, Any]:
    """What is known of one image; of one in an index also which others there are."""
    image = require_image(store, text, platform)
    record = require_record(store, text)
    found = inspect_document(image, _names(store, record.manifest_digest), sum(layer_sizes(store, image)))
    if record.manifest_digest != image.manifest_digest:
        index = {"Digest": str(record.manifest_digest), "Platforms": list(platforms_of(store, text))}
        found["Index"] = index
    return found


def _names(store: Store, digest: Digest) -> list[str]:
    mine = [record.name for record in store.images.walk() if record.name and record.manifest_digest == digest]
    return [":".join(familiar_parts(name)) for name in mine]
