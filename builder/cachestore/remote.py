"""Caches in a registry: a tag for each, stored and collected like an image (OCI distribution-spec 1.1).

An image that has records in its config (type=inline) is read the same way. The protocol is `registry`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from builder.cachestore.options import CacheSpec
from builder.cachestore.place import Found
from builder.errors import BuildError
from builder.image.manifest import Manifest, parse_manifest
from builder.image.select import select_manifest
from builder.registry.client import RegistryClient
from builder.registry.errors import NotFoundError
from builder.registry.neighbours import remember
from builder.registry.repository import Repository
from cache.blobs import Readable
from cache.descriptor import MEDIA_MANIFEST, Descriptor
from cache.digest import Digest
from cache.exchange import MAX_SIZE
from cache.store import Store
from grammar.errors import DockerfileError
from grammar.reference import parse_reference


class _Place:
    """A repository and the tag or digest in it."""

    def __init__(self, spec: CacheSpec, environ: Mapping[str, str], *, may_push: bool) -> None:
        name = spec.attributes["ref"]
        try:
            reference = parse_reference(name).with_default_tag()
        except DockerfileError as error:
            raise BuildError(f"cache {name!r}: {error.message}", hint=error.hint) from error
        self._client = RegistryClient(environ, insecure=spec.flag("registry.insecure"))
        self._repository: Repository = self._client.repository(name, may_push=may_push)
        self._reference = reference.digest or reference.tag

    def close(self) -> None:
        """See the contracts."""
        self._client.cancel()
        self._client.close()


class RegistrySource(_Place):
    """See CacheSource."""

    def __init__(self, spec: CacheSpec, environ: Mapping[str, str], platform: str) -> None:
        super().__init__(spec, environ, may_push=False)
        self._platform = platform

    @property
    def repository(self) -> str:
        """See CacheSource."""
        return str(self._repository)

    def read(self) -> Found | None:
        """See CacheSource."""
        try:
            fetched = self._repository.manifest(self._reference)
        except NotFoundError:
            return None
        known = {fetched.digest: fetched.raw}

        def read(descriptor: Descriptor) -> bytes:
            return known.get(descriptor.digest) or self._repository.manifest(str(descriptor.digest)).raw

        selected = select_manifest([fetched.descriptor], read, self._platform)
        if selected is None:
            return None
        return Found(selected.manifest, self._repository.read_blob(selected.manifest.config, MAX_SIZE))

    @contextmanager
    def open(self, blob: Descriptor) -> Iterator[Readable]:
        """See CacheSource."""
        with self._repository.open_blob(blob) as stream:
            yield stream

    def note(self, store: Store, blobs: Iterable[Digest]) -> None:
        """See CacheSource. An image with these layers that goes to the same registry need not be sent."""
        remember(store, self._repository.endpoint, blobs)


class RegistryTarget(_Place):
    """See CacheTarget."""

    parallel = 6

    def __init__(self, spec: CacheSpec, environ: Mapping[str, str]) -> None:
        super().__init__(spec, environ, may_push=True)

    def present(self) -> tuple[Digest, frozenset[Digest]]:
        """See CacheTarget. A registry keeps what a tagged manifest names."""
        try:
            fetched = self._repository.manifest(self._reference)
        except NotFoundError:
            return Digest(""), frozenset()
        document = parse_manifest(fetched.raw)
        layers = document.layers if isinstance(document, Manifest) else ()
        return fetched.digest, frozenset(layer.digest for layer in layers)

    def send(self, blob: Descriptor, opening: Callable[[], Readable], mount_from: Iterable[str]) -> bool:
        """See CacheTarget."""
        own = str(self._repository).partition("/")
        neighbours = [name.partition("/")[2] for name in mount_from if name.partition("/")[0] == own[0]]
        uploaded = self._repository.upload(blob, opening, mount_from=[name for name in neighbours if name != own[2]])
        return uploaded.how == "sent"

    def publish(self, manifest_raw: bytes, config_raw: bytes) -> None:
        """See CacheTarget."""
        config = parse_manifest(manifest_raw)
        assert isinstance(config, Manifest)
        self._repository.upload_bytes(config_raw, config.config.media_type)
        self._repository.put_manifest(manifest_raw, MEDIA_MANIFEST, self._reference)
