"""What a build gives to caches elsewhere: layers as soon as their vertices have results, the index at the end.

Only one's own results are given: nothing that belongs to a trust domain, and nothing that is built on it. A layer that
was borrowed and not needed is named, mounted or, when the other place has not got it, fetched and passed on. What the
place has is not sent, and when nothing is new the present manifest stays.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

from builder.cachestore.filelists import send_lists
from builder.cachestore.imports import LAZY, Imports, by_content
from builder.cachestore.inline import FIELD, inline_field
from builder.cachestore.mounts import MountExport
from builder.cachestore.options import CacheSpec
from builder.cachestore.place import CacheTarget
from builder.cachestore.reading import write_index
from builder.errors import BuildError
from builder.explain.travelling import travelling_note
from builder.plan import SCRATCH, ImageSourceOp, LocalSourceOp, MergeOp, Plan, PlannedImage
from builder.state import VertexState
from cache.blobs import BlobReader, Readable
from cache.descriptor import Descriptor
from cache.digest import Digest, sha256_bytes
from cache.errors import CacheError
from cache.exchange import TravellingLayer, TravellingRecord, make_index
from cache.namedtuple import NamedTuple
from cache.snapshot import Layer, Snapshot
from cache.store import Store
from cache.tarcontent import describe

Say = Callable[[str], object]
Bring = Callable[[VertexState], None]


class _UnavailableError(Exception):
    """A layer cannot be given, and that is not the fault of the place that it was for."""


class Wiring(NamedTuple):
    """What exports get of a build that has begun."""

    store: Store
    imports: Imports | None
    bring: Bring
    """Makes the root of a vertex whole."""


class Exports:
    """Every `--cache-to` of a build."""

    def __init__(self, targets: Sequence[tuple[CacheSpec, CacheTarget | None]], say: Say) -> None:
        self._exports = [Export(spec, target, say) for spec, target in targets if target is not None]
        self._has_inline = any(target is None for _, target in targets)
        self._states: Sequence[VertexState] = ()
        self._plan = Plan((), ())
        self._wiring: Wiring | None = None

    def begin(self, plan: Plan, states: Sequence[VertexState], wiring: Wiring) -> None:
        """Start with the results that are there already."""
        self._plan, self._states, self._wiring = plan, states, wiring
        for export in self._exports:
            wanted = None if export.spec.mode == "max" else in_images(plan, [image.vertex for image in plan.images])
            export.begin(wanted, wiring)
        for state in states:
            if state.result is not None:
                self.offer(state)

    def offer(self, state: VertexState) -> None:
        """A vertex has its result: start sending its layer to where it is wanted."""
        for export in self._exports:
            export.offer(state)

    def finish(self, mounts: Sequence[str]) -> None:
        """Wait for everything and publish the indexes. `mounts` are the ids of cache mounts of the build's steps.

        BuildError for the first that failed, unless its errors are to be ignored.
        """
        for export in self._exports:
            export.finish(self._states, mounts)

    def inline(self, planned: PlannedImage, snapshot: Snapshot) -> PlannedImage:
        """An image with the records of its own layers in its config, if type=inline was asked for."""
        if not self._has_inline or self._wiring is None:
            return planned
        wanted = in_images(self._plan, [planned.vertex])
        states = [state for state in self._states if state.index in wanted and is_own(state)]
        records = records_of(states, self._wiring)
        told = {record.diff_id for record in records}
        layers = [_described(layer, self._wiring) if layer.diff_id in told else layer for layer in snapshot.layers]
        return planned._replace(config={**planned.config, FIELD: inline_field(layers, records)})

    def cancel(self) -> None:
        """Stop sending; nothing is published. Idempotent."""
        for export in self._exports:
            export.close()


class Export:
    """One `--cache-to` with a place of its own."""

    def __init__(self, spec: CacheSpec, target: CacheTarget, say: Say) -> None:
        self.spec = spec
        self._target = target
        self._say = say
        self._pool = ThreadPoolExecutor(target.parallel, "cache-to")
        self._jobs: dict[int, Future[TravellingLayer | None]] = {}
        self._sending: dict[Layer | None, Future[TravellingLayer | None]] = {}
        self._present: Future[tuple[Digest, frozenset[Digest]]] | None = None
        self._wanted: set[int] | None = set()
        self._wiring: Wiring | None = None

    def begin(self, wanted: set[int] | None, wiring: Wiring) -> None:
        """See Exports. `wanted` are the vertices to give, None for all."""
        self._wanted, self._wiring = wanted, wiring
        self._present = self._pool.submit(self._target.present)

    def offer(self, state: VertexState) -> None:
        """See Exports."""
        if (self._wanted is None or state.index in self._wanted) and is_own(state):
            assert state.result is not None
            top = state.result.layers[-1] if state.result.layers else None
            if top not in self._sending:
                self._sending[top] = self._pool.submit(self._send_layer, state)
            self._jobs[state.index] = self._sending[top]

    def finish(self, states: Sequence[VertexState], mounts: Sequence[str]) -> None:
        """See Exports."""
        try:
            self._publish(states, mounts)
        except (BuildError, CacheError) as error:
            if not self.spec.ignore_error:
                raise BuildError(f"exporting cache: {self.spec.name}: {error}", hint=error.hint) from error
            self._say(f"exporting cache: {self.spec.name} failed: {error}")
        finally:
            self.close()

    def close(self) -> None:
        """Stop sending. Idempotent."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._target.close()
        self._pool.shutdown(wait=True)

    def _publish(self, states: Sequence[VertexState], mounts: Sequence[str]) -> None:
        assert self._present is not None and self._wiring is not None, "an export begins before it ends"
        sent: dict[int, TravellingLayer | None] = {}
        for number, job in self._jobs.items():
            try:
                sent[number] = job.result()
            except _UnavailableError as error:
                self._say(f"exporting cache: {self.spec.name}: {states[number].vertex.name} is left out: {error}")
        given = [state for state in states if state.index in sent and is_own(state)]
        parts = {}
        if self.spec.mounts:
            export = MountExport(self._wiring.store, self._send, self._say, self._wiring.imports)
            parts = export.run(mounts, self._pool)
        layers = [layer for layer in sent.values() if layer is not None]
        records = records_of(given, self._wiring)
        lists = send_lists(records, self._wiring.store, self._wiring.imports, self._send_blob, pool=self._pool)
        index = make_index(layers, records, parts, lists)
        manifest_raw, config_raw = write_index(index)
        if sha256_bytes(manifest_raw) == self._present.result()[0]:
            self._say(f"exporting cache: {self.spec.name} is up to date")
            return
        self._target.publish(manifest_raw, config_raw)
        self._say(f"exporting cache: {self.spec.name}, {len(index.layers)} layers")

    def _send_layer(self, state: VertexState) -> TravellingLayer | None:
        """Have the layer of a vertex at the place; what it is there. None for a root without layers."""
        wiring, compression = self._wiring, self.spec.compression
        assert wiring is not None and state.result is not None
        if compression.force:
            wiring.bring(state)
        if not state.result.layers:
            return None
        layer = state.result.layers[-1]
        if layer.layer_id == LAZY:
            return self._pass_on(layer, wiring)
        store = wiring.store
        blob, diff_id = store.layers.blob(
            layer, compression=compression.kind, level=compression.level, force=compression.force
        )
        if diff_id != layer.diff_id:
            raise _UnavailableError(f"layer {layer.diff_id} cannot be made again as it was")
        described = _described(layer, wiring)
        travelling = TravellingLayer(diff_id, blob, described.content_digest, described.size)
        self._send(travelling, lambda: store.blobs.open(blob.digest), ())
        return travelling

    def _pass_on(self, layer: Layer, wiring: Wiring) -> TravellingLayer:
        assert wiring.imports is not None, "only imports make lazy layers"
        imports = wiring.imports
        cache, travelling = imports.travelling(layer)

        def opening() -> BlobReader:
            try:
                imports.receive(cache, travelling)
            except (BuildError, CacheError) as error:
                raise _UnavailableError(str(error)) from error
            return wiring.store.blobs.open(travelling.blob.digest)

        self._send(travelling, opening, [cache.source.repository] if cache.source.repository else [])
        return travelling

    def _send(self, layer: TravellingLayer, opening: Callable[[], BlobReader], mount_from: Iterable[str]) -> None:
        with ExitStack() as stack:
            self._send_blob(layer.blob, lambda: stack.enter_context(opening()), mount_from)

    def _send_blob(self, blob: Descriptor, opening: Callable[[], Readable], mount_from: Iterable[str] = ()) -> None:
        assert self._present is not None
        if blob.digest not in self._present.result()[1]:
            self._target.send(blob, opening, mount_from)


def is_own(state: VertexState) -> bool:
    """Whether the result of a vertex has a record that may be given to others."""
    is_recorded = not isinstance(state.vertex.op, ImageSourceOp | LocalSourceOp)
    return is_recorded and state.result is not None and not state.domain


def in_images(plan: Plan, roots: Iterable[int]) -> set[int]:
    """The vertices that made the layers of these roots."""
    found: set[int] = set()
    pending = list(roots)
    while pending:
        index = pending.pop()
        if index == SCRATCH or index in found:
            continue
        found.add(index)
        vertex = plan.vertices[index]
        pending += vertex.inputs if isinstance(vertex.op, MergeOp) else vertex.inputs[:1]
    return found


def records_of(states: Sequence[VertexState], wiring: Wiring) -> list[TravellingRecord]:
    """The records of these vertices: what the store keeps, or for what was borrowed what its cache said."""
    own = wiring.store.records.get_many([state.key for state in states])
    notes = wiring.store.notes.get(own)
    chains = {state.result.chain_id for state in states if state.result is not None and state.key in own}
    alike = wiring.store.records.of_chains(chains)
    found = []
    for state in states:
        assert state.result is not None
        record = own.get(state.key)
        layers = state.result.layers
        diff_id = layers[-1].diff_id if layers else None
        if record is not None and record.chain_id == state.result.chain_id:
            others = {other.key: json.loads(other.manifest) for other in alike.get(record.chain_id, ())}
            manifests = {state.key: state.manifest, **by_content(others, state.manifest)}
            note = travelling_note(notes[state.key]) if state.key in notes else {}
            found.append(TravellingRecord(manifests, diff_id, record.created_ns, record.seconds, note))
        elif state.claim is not None and state.claim.record.diff_id == diff_id:
            manifests = {state.key: state.manifest, **by_content(state.claim.record.manifests, state.manifest)}
            found.append(state.claim.record._replace(manifests=manifests))
    return found


def _described(layer: Layer, wiring: Wiring) -> Layer:
    """A layer with its content digest and size, which those that came with images have not got yet."""
    if layer.layer_id == LAZY or (len(layer.content_digest) == 32 and layer.size):
        return layer
    content, size = describe(wiring.store.layers.tar_stream(layer))
    return layer._replace(content_digest=content, size=size)
