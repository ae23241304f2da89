"""put images of the local store for several platforms under one name, and push them as one

The images have to be in the store. `push` sends the index, and by their digests all images that it names.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence

from builder.commands import Environment, registry_options
from builder.commands.push import add_push_arguments, own_name, push_images
from builder.errors import BuildError, UsageError
from builder.image.lists import annotated, entries_of, find_entry, joined, put_index, require_index
from builder.image.manifest import Index
from builder.image.names import ImageName, at_registry, parse_names
from builder.image.stored import find_record
from builder.registry.client import RegistryClient
from builder.registry.errors import RegistryError
from cache.descriptor import Descriptor
from cache.digest import Digest
from cache.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands of `pybuild manifest`, which are those of `docker manifest` and `podman manifest`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make an index of images", allow_abbrev=False)
    create.add_argument("list", metavar="LIST", help="what to call it")
    create.add_argument("image", nargs="+", metavar="IMAGE", help="an image, or an index whose images are all meant")
    create.add_argument("-a", "--amend", action="store_true", help="add to the index that LIST means already")
    _add_annotation(create, "of the index")
    annotate = actions.add_parser("annotate", help="say more of an image in an index", allow_abbrev=False)
    annotate.add_argument("list", metavar="LIST")
    annotate.add_argument("image", nargs="?", metavar="IMAGE", help="a name or digest (with --index: none)")
    for name in ("os", "arch", "variant", "os-version"):
        annotate.add_argument(f"--{name}", default="", metavar=name.upper(), help=f"the platform's {name}")
    annotate.add_argument("--os-features", action="append", default=[], metavar="FEATURE", help="may be repeated")
    annotate.add_argument("--index", action="store_true", help="annotate the index itself")
    _add_annotation(annotate, "of the image's entry")
    push = actions.add_parser("push", help="send an index and all that it names to a registry", allow_abbrev=False)
    push.add_argument("list", metavar="LIST")
    push.add_argument("dest", nargs="*", metavar="NAME[:TAG]", help="where to push it (default: where its name says)")
    push.add_argument("-p", "--purge", action="store_true", help="forget the local name afterwards")
    add_push_arguments(push)
    inspect = actions.add_parser("inspect", help="show an index, or a manifest, as it is", allow_abbrev=False)
    inspect.add_argument("list", metavar="LIST", help="of the store, or else at its registry")
    registry_options.add_tls_verify(inspect)
    remove = actions.add_parser("rm", help="forget indexes; their images stay", allow_abbrev=False)
    remove.add_argument("list", nargs="+", metavar="LIST")


def _add_annotation(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--annotation", action="append", default=[], metavar="KEY=VALUE", help=what)


def run(args: argparse.Namespace, env: Environment) -> int:
    """Carry out one action; those that change an index print its digest."""
    actions = {"create": _create, "annotate": _annotate, "push": _push, "inspect": _inspect, "rm": _remove}
    with env.open_store() as store:
        actions[args.action](store, args, env)
    return 0


def _create(store: Store, args: argparse.Namespace, env: Environment) -> None:
    [name] = parse_names([args.list])
    before = Index(())
    if store.images.get(str(name)) is not None:
        if not args.amend:
            raise BuildError(f"{name.familiar} is there already", hint="--amend adds to it, `manifest rm` removes it")
        before = require_index(store, str(name))
    entries = [entry for image in args.image for entry in _found(store, image)]
    annotations = {**(before.annotations or {}), **_pairs(args.annotation)}
    index = Index(joined([*before.manifests, *entries]), annotations or None, before.media_type)
    env.stdout.write(f"{put_index(store, name, index)}\n")


def _found(store: Store, image: str) -> Sequence[Descriptor]:
    if find_record(store, image) is None:
        hint = (
            f"bring it here: pybuild pull {image}, or for all platforms pybuild copy -a docker://{image} store:{image}"
        )
        raise BuildError(f"no such image: {image!r}", hint=hint)
    return entries_of(store, image)


def _annotate(store: Store, args: argparse.Namespace, env: Environment) -> None:
    name, index = _named(store, args.list)
    annotations = _pairs(args.annotation)
    words = {"os": args.os, "architecture": args.arch, "variant": args.variant, "os.version": args.os_version}
    platform = {key: value for key, value in {**words, "os.features": args.os_features}.items() if value}
    if not annotations and not platform:
        raise UsageError("annotate: nothing is said", hint="give --os, --arch, --variant, --annotation, …")
    if args.index:
        if args.image or platform:
            raise UsageError("annotate --index is about no image and no platform")
        changed = index._replace(annotations={**(index.annotations or {}), **annotations})
    elif not args.image:
        raise UsageError("annotate: IMAGE is missing", hint="name one of LIST, or give --index")
    else:
        changed = annotated(index, find_entry(store, index, args.image), platform, annotations)
    env.stdout.write(f"{put_index(store, name, changed)}\n")


def _named(store: Store, text: str) -> tuple[ImageName, Index]:
    """A name of the store, and the index that it means."""
    [name] = parse_names([text])
    return name, require_index(store, str(name))


def _push(store: Store, args: argparse.Namespace, env: Environment) -> None:
    name, _ = _named(store, args.list)
    names = parse_names([at_registry(dest) for dest in args.dest])
    push_images(store, args, env, [(str(name), names or (own_name(args.list),))])
    if args.purge:
        store.images.untag(str(name))


def _inspect(store: Store, args: argparse.Namespace, env: Environment) -> None:
    record = find_record(store, args.list)
    raw = store.blobs.read(Digest(record.manifest_digest)) if record is not None else _asked(args, env)
    env.stdout.write(json.dumps(json.loads(raw), indent=4, ensure_ascii=False) + "\n")


def _asked(args: argparse.Namespace, env: Environment) -> bytes:
    """What the name means at its registry: at the first place of the configuration that has it."""
    failure: RegistryError | None = None
    with RegistryClient(env.environ, insecure=not args.tls_verify) as client:
        for repository, reference in client.places(at_registry(args.list)):
            try:
                return repository.manifest(reference).raw
            except RegistryError as error:
                failure = error
    assert failure is not None, "a name leads somewhere"
    raise failure


def _remove(store: Store, args: argparse.Namespace, env: Environment) -> None:
    names = [_named(store, text)[0] for text in args.list]
    for name in names:
        store.images.untag(str(name))
        env.stdout.write(f"Untagged: {name.familiar}\n")


def _pairs(texts: Iterable[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f'--annotation "{text}" is not KEY=VALUE')
        found[key] = value
    return found
