"""What a build may take from caches elsewhere: claims for keys, and the layers behind them when they are needed.

A claim costs nothing: only manifests and indexes were read. Its layer is *lazy* then: it is named, but not in the
store (`layer_id` 0). `prefetch` gets several at a time, each checked against everything that was said of it.

Trust. A cache that is trusted in full gives results like a build of one's own. What comes from any other belongs to a
*domain*, named by the untrusted caches of this build; the records of a domain lie under keys of their own, which only a
build with the same caches asks for.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from builder.cachestore.options import CacheSpec
from builder.cachestore.place import CacheSource
from builder.cachestore.reading import read_index
from builder.errors import BuildError
from cache.arrival import receive, stack_received
from cache.blobs import Readable
from cache.descriptor import Descriptor
from cache.digest import Digest, sha256_hex
from cache.errors import CacheError
from cache.exchange import EMPTY_INDEX, CacheIndex, TravellingLayer, TravellingRecord
from cache.keys import key_of
from cache.layerrows import LayerRows
from cache.namedtuple import NamedTuple
from cache.snapshot import Layer, Snapshot, chain_id
from cache.snapshots import EMPTY
from cache.store import Store

_PARALLEL = 6
PATIENCE = 15.0
"""Seconds that a cache may waste: a place that is down, or worse than that, takes its time to say so for each layer."""
_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
LAZY = 0
"""The `layer_id` of a layer that is not in the store."""


class Cache:
    """One `--cache-from`: what it said, and whether it was caught at something untrue."""

    def __init__(self, spec: CacheSpec, source: CacheSource, index: CacheIndex) -> None:
        self.spec = spec
        self.source = source
        self.index = index
        self.is_revoked = False
        self.lost: set[TravellingLayer] = set()
        """Layers that could not be had."""
        self.wasted_seconds = 0.0
        """Spent on what could not be had."""

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def is_usable(self) -> bool:
        """Whether to ask it at all: it said nothing untrue, and has not cost more time than it can be hoped to save."""
        return not self.is_revoked and self.wasted_seconds < PATIENCE

    @contextlib.contextmanager
    def opened(self, blob: Descriptor) -> Iterator[Readable]:
        """The bytes of a blob, unverified; the time that an error takes is counted."""
        began = time.monotonic()
        try:
            with self.source.open(blob) as stream:
                yield stream
        except (BuildError, CacheError):
            self.wasted_seconds += time.monotonic() - began
            raise


class Claim(NamedTuple):
    """A cache says that a key has this result; `layer` None is for an empty root."""

    cache: Cache
    record: TravellingRecord
    layer: TravellingLayer | None


class Imports:
    """The caches of one build. Any thread may use it."""

    def __init__(
        self, store: Store, caches: Sequence[Cache], say: Callable[[str], object], chance: Callable[[], float]
    ) -> None:
        self.store = store
        self.caches = list(caches)
        self.say = say
        self._chance = chance
        self._guard = threading.Lock()
        self._offered: dict[Layer, list[tuple[Cache, TravellingLayer]]] = {}
        self._had: set[TravellingLayer] = set()
        untrusted = sorted(cache.name for cache in caches if cache.spec.trust != "full")
        self.domain = sha256_hex("\n".join(untrusted).encode()) if untrusted else ""

    def close(self) -> None:
        """Give connections up. Idempotent."""
        for cache in self.caches:
            cache.source.close()

    # Claims

    def claims(self, key: str) -> Iterable[Claim]:
        """What the caches say of a key, the first named cache first."""
        for cache in self.caches:
            offer = cache.index.offers.get(key) if cache.is_usable else None
            if offer is None:
                continue
            if not offer.is_sound:
                self.say(f"{cache.name}: a record's key is not that of its manifest; the record is left out")
                continue
            layer = None if offer.record.diff_id is None else cache.index.layers[offer.record.diff_id]
            if layer is None or layer not in cache.lost:
                yield Claim(cache, offer.record, layer)

    def is_sampled(self, claim: Claim) -> bool:
        """Whether a result is to be made anew and compared, by chance. Asked once for a claim."""
        return self._chance() < claim.cache.spec.sample

    def put_on(self, base: Snapshot, claim: Claim, *, adopting: bool = True) -> Snapshot:
        """The root that a claim promises on top of `base`: whole when the store has the layer and it may be written
        down (`adopting`), else lazy."""
        if claim.layer is None:
            return EMPTY
        whole = self.store.snapshots.adopt(base, claim.layer.diff_id) if adopting and is_whole(base) else None
        if whole is not None:
            return whole
        layer = Layer(LAZY, claim.layer.diff_id, claim.layer.content_digest, claim.layer.tar_size, 0)
        with self._guard:
            self._offered.setdefault(layer, []).append((claim.cache, claim.layer))
        return lazily_on(base, layer)

    def travelling(self, layer: Layer) -> tuple[Cache, TravellingLayer]:
        """Where a lazy layer may be had, and as what."""
        with self._guard:
            return self._offered[layer][0]

    def mount(self, mount_id: str) -> tuple[Cache, tuple[TravellingLayer, ...]] | None:
        """Where the parts of a cache mount may be had, None for nowhere. Only of caches with mounts=true."""
        for cache in self.caches:
            if cache.spec.mounts and mount_id in cache.index.mounts:
                return cache, cache.index.mounts[mount_id]
        return None

    # Layers

    def prefetch(self, layers: Iterable[Layer]) -> None:
        """Have the lazy ones of these layers in the store, several at a time; `put` says which cannot be had."""
        wanted = [layer for layer in dict.fromkeys(layers) if layer in self._offered]

        def attempt(layer: Layer) -> None:
            with contextlib.suppress(BuildError, CacheError):
                self._fetch(layer)

        self.each(attempt, wanted)

    def put(self, base: Snapshot, layer: Layer) -> Snapshot:
        """A layer on a whole root. CacheError or BuildError when it can be had nowhere, or is not what was said."""
        if layer.layer_id == LAZY:
            return stack_received(self.store.snapshots, base, self._fetch(layer))
        return self.store.snapshots.stack(base, layer)

    def each(self, work: Callable[[_Item], _Made], items: Sequence[_Item]) -> list[_Made]:
        """What `work` makes of each item, several at a time; the first error comes out when all have ended."""
        if len(items) <= 1:
            return [work(item) for item in items]
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(_PARALLEL, "cache-from") as pool:
            return list(pool.map(work, items))

    def _fetch(self, layer: Layer) -> TravellingLayer:
        """Have a layer's blob in the store: from the first cache that gives what it said."""
        with self._guard:
            offers = list(self._offered[layer])
        reason: BuildError | CacheError = CacheError(f"layer {layer.diff_id} is offered nowhere any more")
        for cache, travelling in offers:
            if travelling in cache.lost or not cache.is_usable:
                continue
            try:
                if travelling not in self._had:
                    self.receive(cache, travelling)
                    self._had.add(travelling)
                return travelling
            except (BuildError, CacheError) as error:
                cache.lost.add(travelling)
                self.say(f"{cache.name}: {error}" + ("" if cache.is_usable else "; it is not asked any more"))
                reason = error
        raise reason

    def receive(self, cache: Cache, layer: TravellingLayer) -> None:
        """A layer's blob into the store, unless it is there and was checked. CacheError, BuildError."""
        blobs, digest = self.store.blobs, layer.blob.digest
        with self.store.locks.exclusive(f"blob-{digest}"):
            is_here = blobs.size(digest) == layer.blob.size
            if is_here and LayerRows(self.store.database).is_checked(layer.diff_id, digest, layer.content_digest):
                return
            if is_here:  # of an image, say: its bytes are right, but is it the layer that it is said to be?
                with blobs.open(digest) as reader:
                    receive(blobs, layer, reader, lambda _: None)
                return
            self.say(f"importing layer {layer.diff_id[7:19]}, {layer.blob.size} bytes, from {cache.name}")
            with cache.opened(layer.blob) as stream:
                receive(blobs, layer, stream, lambda _: None)


def open_cache(
    spec: CacheSpec, opening: Callable[[CacheSpec], CacheSource], say: Callable[[str], object]
) -> Cache | None:
    """A cache as it is now. One that is not there, or cannot be used, is told to the user and left out: the build is
    right without it."""
    try:
        source = opening(spec)
        found = source.read()
        if found is None:
            say(f"importing cache: {spec.name} has no cache yet")
            return Cache(spec, source, EMPTY_INDEX)
        index = read_index(found)
        say(f"importing cache: {spec.name} has {len(index.offers)} keys, {len(index.layers)} layers")
        return Cache(spec, source, index)
    except (BuildError, CacheError) as error:
        if getattr(error, "exit_code", 1) == 2:
            raise
        say(f"importing cache: {spec.name} is not used: {error}" + (f" ({error.hint})" if error.hint else ""))
        return None


def is_whole(snapshot: Snapshot) -> bool:
    """Whether every layer of a root is in the store."""
    return all(layer.layer_id != LAZY for layer in snapshot.layers)


def lazy_root(name: str) -> Snapshot:
    """The root of a base image that is somewhere else: its chain id is known, its layers and their content are not."""
    return Snapshot(name, (Layer(LAZY, Digest(name), f"of {name}", 0, 0),))


def lazily_on(base: Snapshot, layer: Layer) -> Snapshot:
    """A layer on a root, said and not done."""
    return Snapshot(chain_id(base.chain_id, layer.diff_id), (*base.layers, layer))


def by_content(
    manifests: Mapping[str, Mapping[str, Any]], definition: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """Of manifests by their keys those that say by content what `definition` says: others are for other operations,
    which a record has no business to speak for."""
    return {
        key: manifest
        for key, manifest in manifests.items()
        if _is_same_operation(manifest, definition) and key_of(manifest) == key
    }


def _is_same_operation(content: Mapping[str, Any], definition: Mapping[str, Any]) -> bool:
    names = ("inputs", "by")
    if content.get("by") != "content":
        return False
    plain = json.loads(json.dumps({name: value for name, value in definition.items() if name not in names}))
    return bool({name: value for name, value in content.items() if name not in names} == plain)
