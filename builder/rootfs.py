"""An image of one layer out of a root filesystem's tarball, as `docker import` makes it.

Source: docker image import reference; the instructions of `--change` are lowered as a Dockerfile FROM scratch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from builder.epoch import NAME as EPOCH
from builder.errors import BuildError, UsageError
from builder.image.config import encode_config
from builder.image.manifest import Manifest, encode_manifest
from builder.image.platform import platform_value
from builder.image.stored import StoredImage, put_document, read_image
from builder.image.timestamp import format_time
from builder.plan import GitSourceOp, HttpSourceOp, PlannedImage
from builder.sources import BaseSource
from cache.blobs import Readable
from cache.descriptor import MEDIA_CONFIG, Descriptor
from cache.digest import sha256_bytes
from cache.namedtuple import NamedTuple
from cache.snapshot import EMPTY
from cache.store import Store
from cache.tarblob import put_tar
from grammar.errors import DockerfileError
from grammar.platforms import Platform

CHANGES = (
    *("CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD", "SHELL", "STOPSIGNAL"),
    *("USER", "VOLUME", "WORKDIR"),
)
"""Instructions that only say something about the image."""


class Imported(NamedTuple):
    """What is said of an image besides its files."""

    source: str
    """What the tarball is called in the image's history."""
    message: str = ""
    platform: str = ""
    changes: tuple[str, ...] = ()


def import_rootfs(
    store: Store, stream: Readable, said: Imported, *, host: str, environ: Mapping[str, str], clock: Callable[[], int]
) -> StoredImage:
    """Return the image of a tarball, which is unpacked and checked; it has no name yet. UsageError for a change that
    cannot be made, LayerError for a tar that is broken or unsafe."""
    planned = plan_changes(said, host, environ)
    made = put_tar(store.blobs, stream)
    with store.blobs.open(made.blob.digest) as reader:
        store.snapshots.unpack_layer(EMPTY, made.diff_id, made.blob, reader)
    created = format_time(clock() if planned.epoch is None else planned.epoch * 10**9)
    history = {"created": created, "comment": said.message or f"Imported from {said.source}"}
    rootfs = {"type": "layers", "diff_ids": [str(made.diff_id)]}
    config_raw = encode_config({**planned.config, "created": created, "history": [history], "rootfs": rootfs})
    config = Descriptor(MEDIA_CONFIG, sha256_bytes(config_raw), len(config_raw))
    put_document(store, config_raw)
    return read_image(store, put_document(store, encode_manifest(Manifest(config, (made.blob,)))))


def plan_changes(said: Imported, host: str, environ: Mapping[str, str]) -> PlannedImage:
    """Return the config of an empty image for the platform after these instructions. UsageError for one that is none,
    or that would change files."""
    from builder.lower import lower
    from builder.options import BuildOptions
    from grammar.stages import parse

    for text in said.changes:
        _check(text)
    arguments = {EPOCH: environ[EPOCH]} if environ.get(EPOCH) else {}
    options = BuildOptions(platform=said.platform, build_args=arguments)
    source = "\n".join(["FROM scratch", *said.changes]).encode()
    try:
        plan = lower(parse(source), options, _Nothing(), filename="--change", host=platform_value(host))
    except DockerfileError as error:
        raise UsageError(f"--change: {error.message}", hint=error.hint) from error
    except BuildError as error:
        error.location = None  # lines of a Dockerfile that nobody has written
        raise
    return plan.images[0]


def _check(text: str) -> None:
    """That a text is one instruction, and one that can be made."""
    from grammar.stages import parse

    try:
        commands = parse(b"FROM scratch\n" + text.encode()).stages[0].commands
    except DockerfileError as error:
        raise UsageError(f'--change "{text}": {error.message}', hint=error.hint) from error
    keywords = [command.keyword for command in commands]
    if len(keywords) != 1 or keywords[0] not in CHANGES:
        hint = f"one of {', '.join(CHANGES)}"
        raise UsageError(f'--change "{text}" is not an instruction that an import can carry out', hint=hint)


class _Nothing:
    """A SourceResolver of a world without images and contexts; FROM scratch asks for neither."""

    def named_context(self, _name: str, _platform: Platform) -> BaseSource | None:
        """No context has that name."""
        return None

    def context_time(self, _name: str) -> int | None:
        """Unknown."""
        return None

    def source_time(self, _op: GitSourceOp | HttpSourceOp) -> int | None:
        """Unknown."""
        return None

    def image(self, name: str, _platform: Platform) -> NoReturn:
        """Raises BuildError."""
        raise BuildError(f"{name}: an import has no base image")


def as_changes(texts: Sequence[str]) -> tuple[str, ...]:
    """Return what several `--change` say, without blanks around it and without those that say nothing."""
    return tuple([text.strip() for text in texts if text.strip()])
