"""make an image of a root filesystem's tarball

The tarball, plain or compressed with gzip, zstd, bzip2 or xz, becomes the image's only layer. One that is compressed
with gzip or zstd stays as it is. One behind a URL is fetched as ADD would, and only once while it does not change.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import AbstractContextManager, nullcontext

from builder.commands import Environment
from builder.errors import BuildError, UsageError
from builder.image.names import parse_names
from builder.image.platform import host_platform
from builder.image.stored import tag_image
from builder.redact import redact
from builder.remote import http_source, is_url
from builder.rootfs import CHANGES, Imported, as_changes, import_rootfs
from cache.blobs import Readable
from cache.errors import CacheError
from cache.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild import`, which are those of `docker import`."""
    add = parser.add_argument
    add("file", metavar="FILE|URL|-", help="the tarball, - for standard input")
    add("name", nargs="?", metavar="NAME[:TAG]", help="what to call the image (default: it has its id alone)")
    add(
        "-c",
        "--change",
        action="append",
        default=[],
        metavar="INSTRUCTION",
        help=f"a Dockerfile's line, as 'CMD [\"sh\"]': {', '.join(CHANGES)}",
    )
    add("-m", "--message", default="", metavar="TEXT", help="the comment in the image's history")
    add("--secret", action="append", default=[], metavar="id=ID,src=FILE|env=VAR", help="a token for the URL's host")
    add("--platform", default="", metavar="OS/ARCH", help="what the files are for (default: this machine's)")


def run(args: argparse.Namespace, env: Environment) -> int:
    """Import, and print the image's id."""
    names = parse_names([args.name] if args.name else [])
    url = is_url(args.file)
    source = redact(args.file).partition("?")[0] if url else args.file  # a query may be a signature
    said = Imported(source, args.message, args.platform, as_changes(args.change))
    shown = "standard input" if args.file == "-" else repr(said.source)
    with env.open_store() as store:
        try:
            with _fetched(store, args, env) if url else _opened(args.file, env.cwd) as stream:
                image = import_rootfs(store, stream, said, host=host_platform(), environ=env.environ, clock=env.clock)
        except OSError as error:
            raise BuildError(f"{shown} cannot be read: {(error.strerror or str(error)).lower()}") from error
        except CacheError as error:
            raise BuildError(f"{shown}: {error}", hint=error.hint) from error
        tag_image(store, image.manifest_digest, image.config_digest, names)
    env.stdout.write(f"{image.config_digest}\n")
    return 0


def _fetched(store: Store, args: argparse.Namespace, env: Environment) -> AbstractContextManager[Readable]:
    from builder.commands import build_options
    from builder.fetcher import Fetcher
    from builder.worker import Secrets

    secrets = Secrets(tuple([build_options.secret(text, env.cwd) for text in args.secret]), {}, env.environ)
    fetched = Fetcher(store, env.clock, secrets).file(http_source(args.file, ""))
    return store.blobs.open(fetched.digest)


def _opened(file: str, cwd: str) -> AbstractContextManager[Readable]:
    if file != "-":
        return open(os.path.join(cwd, file), "rb", buffering=0)
    if sys.stdin.isatty():
        raise UsageError("import: standard input is a terminal", hint="give a file: pybuild import rootfs.tar NAME")
    return nullcontext(sys.stdin.buffer)
