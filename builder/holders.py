"""Who keeps what of the store from being pruned: its images, what their names meant lately, its containers; and what
belongs to git and to URLs.

Images are read from their documents, as they are at the moment of asking. Nothing here notes a use.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from builder.git.repository import walk_repositories
from builder.image.names import familiar_parts
from builder.image.pins import walk_pins
from builder.image.stored import chain_id_of
from builder.ops.fetch import remembered
from builder.runner.container import walk_containers
from cache.digest import Digest
from cache.errors import CacheError
from cache.holding import Place, Roots
from cache.prune import Outside

if TYPE_CHECKING:
    from cache.store import Store

GIT = "source.git.checkout"
CONTAINER = "container"
_DOCUMENT_LIMIT = 4 << 20
KEPT_VERSIONS = 5
"""Of each name: what it meant before is kept like an image, unless a policy says `all`."""
KEPT_NS = 30 * 24 * 3600 * 10**9
"""And no longer than so after it began to mean something else."""
_DEEPEST = 4
"""An index may list indexes; one that goes on and on is not ours."""


def outside(store: Store, now_ns: int = 0) -> Outside:
    """What accounting and pruning have to ask about; former versions of names count when they are not older, `now_ns`,
    than they are kept."""
    images = _Images(store)

    def fetched() -> dict[str, str]:
        return {str(digest): "a URL" for digest in remembered(store)}

    def with_former() -> Roots:
        return images(_former(store, now_ns))

    firm = images if any(_former(store, now_ns)) else None
    return Outside(with_former, partial(_places, store), fetched, images.is_document, firm)


def _former(store: Store, now_ns: int) -> Iterator[tuple[str, str, str]]:
    """Holder, manifest and config of what names meant before, as far as that is kept."""
    current = {record.name: record.manifest_digest for record in store.images.walk() if record.name}
    seen: dict[str, int] = {}
    until_ns: dict[str, int] = {}
    for version in store.images.versions.walk():
        replaced_ns = until_ns.get(version.name, now_ns)
        until_ns[version.name] = version.since_ns
        if version.manifest_digest == current.get(version.name) or replaced_ns < now_ns - KEPT_NS:
            continue
        seen[version.name] = seen.get(version.name, 0) + 1
        if seen[version.name] <= KEPT_VERSIONS:
            name = ":".join(familiar_parts(version.name))
            yield f"version {version.number} of {name}", version.manifest_digest, version.config_digest


class _Images:
    """The roots of images and containers. Documents never change, so each is read once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[frozenset[str], frozenset[str]]] = {}

    def _named(self) -> Iterator[tuple[str, str, str]]:
        """Holder, manifest and config of every image."""
        for record in list(self._store.images.walk()):
            name = ":".join(familiar_parts(record.name)) if record.name else record.config_digest[7:19]
            yield f"image {name}", record.manifest_digest, record.config_digest

    def __call__(self, former: Iterable[tuple[str, str, str]] = ()) -> Roots:
        chains: dict[str, frozenset[str]] = {}
        blobs: dict[str, frozenset[str]] = {}
        for name, manifest, config in (*self._named(), *former):
            holder = frozenset((name,))
            needed, digests = self._needs(manifest)
            for digest in (manifest, config, *digests):
                blobs[digest] = blobs.get(digest, frozenset()) | holder
            for chain in needed:
                chains[chain] = chains.get(chain, frozenset()) | holder
        for digest, holder in self._pinned():
            blobs[digest] = blobs.get(digest, frozenset()) | holder
        for container in walk_containers(self._store.root):
            if container.chain_id:
                holder = frozenset((f"container {container.name or container.container_id[:12]}",))
                chains[container.chain_id] = chains.get(container.chain_id, frozenset()) | holder
        return Roots(chains, blobs)

    def _pinned(self) -> Iterator[tuple[Digest, frozenset[str]]]:
        """The documents of images that a registry's name meant, as long as their layers are here: without them a build
        would have to ask again."""
        for name, pin in walk_pins(self._store):
            chains = self._needs(pin.manifest)[0]
            if any(self._store.snapshots.peek(chain) for chain in chains):
                config = str(_member(self._document(pin.manifest), "config", "digest"))
                holder = frozenset((f"base {name}",))
                yield from ((digest, holder) for digest in (pin.top, pin.manifest, Digest(config)))

    def is_document(self, digest: Digest) -> bool:
        """Whether a blob is the index, the manifest or the config of an image whose layers are in the store, with or
        without a name: an image that a build found in a layout has none."""
        size = self._store.blobs.peek(digest)
        document = self._document(digest) if size is not None and size < _DOCUMENT_LIMIT else {}
        chains = {_chain(document)} if "rootfs" in document else self._needs(str(digest))[0]
        return any(chain and self._store.snapshots.peek(chain) for chain in chains)

    def _needs(self, digest: str, depth: int = 0) -> tuple[frozenset[str], frozenset[str]]:
        """The chains of an image, or of all that an index lists, and every blob that their documents name, whether it
        is there or not."""
        if digest not in self._known:
            document = self._document(digest)
            digests = frozenset(_digests_in(document))
            chains = frozenset((_chain(self._document(str(_member(document, "config", "digest")))),)) - {""}
            for each in document.get("manifests") or () if depth < _DEEPEST else ():
                below, more = self._needs(str(_member(each, "digest")), depth + 1)
                chains, digests = chains | below, digests | more
            if not chains:  # a document may be missing yet
                return chains, digests
            self._known[digest] = chains, digests
        return self._known[digest]

    def _document(self, digest: str) -> dict[str, Any]:
        """A JSON document of the store; empty when it is not there or is none."""
        try:
            document = json.loads(self._store.blobs.peek_bytes(Digest.parse(digest)) or b"{}")
        except (CacheError, ValueError):
            return {}
        if not isinstance(document, dict) or not isinstance(document.get("manifests", []), list):
            return {}
        return document


def _chain(config: dict[str, Any]) -> str:
    """The chain of an image's config; "" for an image without layers, and for what is no config."""
    layers = _member(config, "rootfs", "diff_ids")
    try:
        return chain_id_of([Digest.parse(str(each)) for each in layers]) if isinstance(layers, list) else ""
    except CacheError:
        return ""


def _member(document: dict[str, Any], *names: str) -> Any:
    value: Any = document
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _digests_in(manifest: dict[str, Any]) -> Iterator[str]:
    """The digests of a manifest's config and layers, or of an index's manifests."""
    for name in ("config", "layers", "manifests"):
        listed = manifest.get(name)
        for descriptor in listed if isinstance(listed, list) else [listed]:
            if isinstance(descriptor, dict) and isinstance(descriptor.get("digest"), str):
                yield descriptor["digest"]


def _places(store: Store) -> Iterable[Place]:
    for path, lock, remote in walk_repositories(store.root):
        try:
            used_ns = os.stat(path).st_mtime_ns
        except FileNotFoundError:
            continue
        yield Place(path, GIT, remote, used_ns, used_ns, lock)
    for container in walk_containers(store.root):
        what = f"{container.name or container.container_id[:12]} of {container.image or 'an image'}"
        holders = frozenset((f"container {container.name or container.container_id[:12]}",))
        yield Place(container.directory, CONTAINER, what, container.created_ns, container.created_ns, "", holders)
