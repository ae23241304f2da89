"""The contract of a place that holds caches, and the one door to all kinds of them.

A place holds blobs by digest and names for manifests. What it gives is not believed: whoever reads it hashes it. What
it holds already is not sent again. Any thread may use a place; opening one sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from builder.cachestore.options import CacheSpec
from builder.image.manifest import Manifest
from cache.blobs import Readable
from cache.descriptor import Descriptor
from cache.digest import Digest
from cache.namedtuple import NamedTuple
from cache.store import Store


class Found(NamedTuple):
    """The documents of a cache, or of an image that has one in its config; both hashed to what named them."""

    manifest: Manifest
    config_raw: bytes


class CacheSource(Protocol):
    """Where a cache is read from."""

    @property
    def repository(self) -> str:
        """`registry/path` for a place that a registry can mount blobs from, "" for others."""

    def read(self) -> Found | None:
        """The cache that it holds now, None when there is none. BuildError or CacheError when it cannot be read."""

    def open(self, blob: Descriptor) -> AbstractContextManager[Readable]:
        """The bytes of a blob, unverified."""

    def note(self, store: Store, blobs: Iterable[Digest]) -> None:
        """Write down that it has these blobs, if that helps whoever pushes them to a neighbour."""

    def close(self) -> None:
        """Give connections up. Idempotent."""


class CacheTarget(Protocol):
    """Where a cache is written to."""

    @property
    def parallel(self) -> int:
        """How many blobs may be sent at once."""

    def present(self) -> tuple[Digest, frozenset[Digest]]:
        """What the name means now: its manifest's digest ("" for none), and the blobs that are there because of it."""

    def send(self, blob: Descriptor, opening: Callable[[], Readable], mount_from: Iterable[str]) -> bool:
        """Bring a blob there, unless it is there; whether bytes were sent. `opening` gives its bytes from the start."""

    def publish(self, manifest_raw: bytes, config_raw: bytes) -> None:
        """Let the name mean a manifest, whose blobs are there, from now on; `config_raw` is its config's bytes."""

    def close(self) -> None:
        """Give connections up. Idempotent."""


def open_source(spec: CacheSpec, cwd: str, environ: Mapping[str, str], platform: str) -> CacheSource:
    """The place that a `--cache-from` names; of an image for several platforms `platform` is taken."""
    if spec.type == "local":
        from builder.cachestore.local import LocalSource

        return LocalSource(spec, cwd, platform)
    if spec.type == "s3":
        from builder.cachestore.s3 import BucketSource

        return BucketSource(spec, environ)
    from builder.cachestore.remote import RegistrySource

    return RegistrySource(spec, environ, platform)


def open_target(spec: CacheSpec, cwd: str, environ: Mapping[str, str]) -> CacheTarget:
    """The place that a `--cache-to` names. Not for type=inline, which has no place of its own."""
    if spec.type == "local":
        from builder.cachestore.local import LocalTarget

        return LocalTarget(spec, cwd)
    if spec.type == "s3":
        from builder.cachestore.s3 import BucketTarget

        return BucketTarget(spec, environ)
    from builder.cachestore.remote import RegistryTarget

    return RegistryTarget(spec, environ)
