"""look at the directories of RUN --mount=type=cache, carry them elsewhere, empty them

`mounts list` shows them, `mounts export ID -o FILE` writes one as a tar, `mounts import ID -i FILE` puts a tar in its
place, `mounts clear` removes them. An id is what the Dockerfile says, or what the list shows.
"""

from __future__ import annotations

import argparse
import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import BinaryIO

from builder.commands import Environment
from builder.errors import BuildError, UsageError
from cache.cachemounts import CacheMount, digest_of
from cache.store import Store

_SHARED = 0
"""The number of an id's shared directory; the others are private ones of steps that ran at once."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild cache`."""
    things = parser.add_subparsers(dest="thing", required=True, metavar="mounts")
    mounts = things.add_parser("mounts", help="the directories of RUN --mount=type=cache")
    deeds = mounts.add_subparsers(dest="deed", required=True, metavar="list|export|import|clear")
    listing = deeds.add_parser("list", aliases=["ls"], help="show them")
    listing.add_argument("--format", choices=("table", "json"), default="table", help="json: one object per line")
    exporting = deeds.add_parser("export", help="write one as a tar")
    exporting.add_argument("id", metavar="ID")
    exporting.add_argument("-o", "--output", default="-", metavar="FILE", help="where to (default: standard output)")
    importing = deeds.add_parser("import", help="put a tar, plain or compressed, in its place")
    importing.add_argument("id", metavar="ID")
    importing.add_argument("-i", "--input", default="-", metavar="FILE", help="where from (default: standard input)")
    clearing = deeds.add_parser("clear", aliases=["rm"], help="remove some, or with --all all of them")
    clearing.add_argument("ids", nargs="*", metavar="ID")
    clearing.add_argument("-a", "--all", action="store_true", help="all that no step uses")


def run(args: argparse.Namespace, env: Environment) -> int:
    """Carry out one of the four."""
    deed = {"ls": "list", "rm": "clear"}.get(args.deed, args.deed)
    with env.open_store() as store:
        if deed == "list":
            _list(args, env, store)
        elif deed == "export":
            _export(args, env, store)
        elif deed == "import":
            _import(args, env, store)
        else:
            return _clear(args, env, store)
    return 0


def _list(args: argparse.Namespace, env: Environment, store: Store) -> None:
    from builder.image.describe import human_size, table
    from cache.diskuse import Meter

    rows = [(mount, Meter.of(mount.path).size(mount.path)) for mount in store.cache_mounts.walk()]
    if args.format == "json":
        for mount, size in rows:
            fields = {"ID": mount.mount_id, "Number": mount.number, "Size": size, "Path": mount.path}
            fields |= {"CreatedNs": mount.created_ns, "LastUsedNs": mount.used_ns}
            env.stdout.write(json.dumps(fields) + "\n")
        return
    shown = [[mount.mount_id or mount.digest, str(mount.number), human_size(size)] for mount, size in rows]
    env.stdout.write(table(["ID", "NUMBER", "SIZE"], shown))


def _named(store: Store, word: str) -> list[CacheMount]:
    """The directories of an id as the Dockerfile, the list or the disk has it. Ids begin with their namespace."""
    found = [mount for mount in store.cache_mounts.walk() if word in (mount.mount_id, mount.digest)]
    return found or [mount for mount in store.cache_mounts.walk() if mount.mount_id == f"/{word}"]


def _export(args: argparse.Namespace, env: Environment, store: Store) -> None:
    from builder.export.file import open_destination
    from cache.layer import tar_chunks
    from cache.mountparts import entries_of

    mounts = [mount for mount in _named(store, args.id) if mount.number == _SHARED]
    if not mounts:
        raise BuildError(f'no cache mount has the id "{args.id}"', hint="`pybuild cache mounts list` shows them")
    dest = args.output if args.output == "-" else os.path.join(env.cwd, args.output)
    with ExitStack() as stack:
        store.cache_mounts.take(mounts[0].digest, "shared", stack)
        sink = stack.enter_context(open_destination(dest, env.stdout_bytes))
        for chunk in tar_chunks(entries_of(mounts[0].path), mounts[0].path):
            sink.write(chunk)


def _import(args: argparse.Namespace, env: Environment, store: Store) -> None:
    """Unpack beside its place first: a broken tar costs nothing that was there."""
    from cache.compression import open_decompressed
    from cache.unpack import unpack_layer

    if not args.id:
        raise UsageError("cache mounts import: the id is empty")
    known = [mount for mount in _named(store, args.id) if mount.number == _SHARED]
    mode, owner = _rights(known[0].path) if known else (0o755, (0, 0))
    mount_id = known[0].mount_id if known else f"/{args.id}"
    aside = digest_of(mount_id, "importing")
    with ExitStack() as stack:
        stack.enter_context(store.locks.exclusive(f"cache-mount-import:{aside}"))
        stream = _input(args, env, stack)
        for left in (mount for mount in store.cache_mounts.walk() if mount.digest == aside):
            store.cache_mounts.remove(left)
        with store.cache_mounts.filling(aside, _SHARED) as directory:
            assert directory is not None, "nobody else imports this one"
            unpack_layer(open_decompressed(stream), directory)
        if not all(store.cache_mounts.remove(mount) for mount in known):
            raise BuildError(f'cache mount "{args.id}" is in use', hint="wait for the step that uses it")
        with store.cache_mounts.filling(digest_of(mount_id), _SHARED) as directory:
            if directory is None:
                raise BuildError(f'cache mount "{args.id}" is in use', hint="wait for the step that uses it")
            os.rmdir(directory)
            os.rename(store.cache_mounts.path(aside, _SHARED), directory)
            os.rmdir(os.path.dirname(store.cache_mounts.path(aside, _SHARED)))
            os.chown(directory, *owner)
            os.chmod(directory, mode)
    store.cache_mounts.note_use(digest_of(mount_id), _SHARED, mount_id)


def _rights(directory: str) -> tuple[int, tuple[int, int]]:
    """The mode and the owner of a directory: the steps that use it count on them, and a tar has none for it."""
    status = os.stat(directory)
    return stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)


def _input(args: argparse.Namespace, env: Environment, stack: ExitStack) -> BinaryIO:
    if args.input != "-":
        return stack.enter_context(open(os.path.join(env.cwd, args.input), "rb"))
    if sys.stdin.isatty():
        raise UsageError("standard input is a terminal", hint="give a file: -i FILE")
    return sys.stdin.buffer


def _clear(args: argparse.Namespace, env: Environment, store: Store) -> int:
    if bool(args.ids) == args.all:
        raise UsageError("cache mounts clear: give ids, or --all")
    code = 0
    for mount in list(_chosen(args, store)):
        if store.cache_mounts.remove(mount):
            env.stdout.write(f"{mount.mount_id or mount.digest}\n")
        else:
            env.stderr.write(f'pybuild: cache mount "{mount.mount_id}" is in use\n')
            code = 1
    return code


def _chosen(args: argparse.Namespace, store: Store) -> Iterator[CacheMount]:
    if args.all:
        yield from store.cache_mounts.walk()
    for word in dict.fromkeys(args.ids):
        found = _named(store, word)
        if not found:
            raise BuildError(f'no cache mount has the id "{word}"', hint="`pybuild cache mounts list` shows them")
        yield from found
