"""Carrying a Plan out: every vertex gets its key, is looked up, and runs only when nothing with that key is known.

Two keys, as in BuildKit: the definition key (operation and the keys of its inputs) needs no result, the content key
(operation and what its inputs hold) is tried when the inputs are there, so that an input rebuilt to the same content
does not rebuild what follows. Knows keys and order; how an operation runs is in `ops`, threads are in `schedule`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from builder.ops import definition
from builder.plan import SCRATCH, ImageSourceOp, LocalSourceOp, MergeOp, Plan, Vertex
from builder.state import VertexState
from cache.errors import StoreFullError
from cache.keys import key_of, readable
from cache.records import CacheRecord
from cache.snapshots import EMPTY, Snapshot

if TYPE_CHECKING:
    from builder.borrowing import Borrowing
    from builder.cachestore.exports import Exports
    from builder.worker import Worker


class Solver:
    """One build. `solve` returns when every image of the plan has its root, or raises what stopped it."""

    def __init__(self, plan: Plan, worker: Worker) -> None:
        self.plan = plan
        self.worker = worker
        self.began_ns = worker.clock()
        self.states = [VertexState(index, vertex) for index, vertex in enumerate(plan.vertices)]
        self.has_run = False
        """Whether anything was not known at once: the store may have grown."""
        self.borrowing: Borrowing | None = None

    def solve(self, run_all: Callable[[list[VertexState], Callable[[VertexState], None]], None]) -> None:
        """Look everything up, then hand the vertices that have to run to `run_all(states, run_one)`.

        Raises BuildError with the place of the vertex that failed.
        """
        self.look_up()
        self.borrowing = self.borrow()
        if self.borrowing is not None:
            self.borrowing.look_up()
        missing = self.missing()
        for state in self.states:
            if state.cached and not state.vertex.internal and not isinstance(state.vertex.op, LocalSourceOp):
                self.worker.reporter.cached(state.index, state.vertex.name)
        if self.worker.exports is not None:
            self._begin_exports(self.worker.exports)
        self.has_run = bool(missing) or self.borrowing is not None
        if missing:
            run_all(missing, self._run if self.borrowing is None else self.borrowing.run_once)
        self.worker.store.records.touch([state.record.key for state in self.states if state.cached and state.record])

    def borrow(self, *, is_asked_only: bool = False) -> Borrowing | None:
        """What takes results from caches elsewhere, None when there are none; `is_asked_only` writes nothing down."""
        if self.worker.imports is None:
            return None
        from builder.borrowing import Borrowing

        return Borrowing(
            self.states, self.worker, inputs=self.inputs, run=self._run, note=self._note, is_asked_only=is_asked_only
        )

    def _begin_exports(self, exports: Exports) -> None:
        from builder.cachestore.exports import Wiring

        bring = self.borrowing.bring if self.borrowing is not None else lambda _: None
        exports.begin(self.plan, self.states, Wiring(self.worker.store, self.worker.imports, bring))

    def bring_images(self) -> None:
        """Have the roots of all images in the store, layers that were borrowed fetched. Raises BuildError."""
        for image in self.plan.images:
            if self.borrowing is not None and image.vertex != SCRATCH:
                self.borrowing.bring(self.states[image.vertex])

    def inputs(self, state: VertexState) -> list[VertexState | None]:
        """The states of a vertex's inputs, None for an empty root."""
        return [None if index == SCRATCH else self.states[index] for index in state.vertex.inputs]

    def look_up(self) -> None:
        """Give every vertex its definition key, and its result where there is a record. Raises BuildError."""
        for state in self.states:
            with definition.located(state.vertex):
                state.manifest = definition.by_definition(state.vertex, self.inputs(state), self.worker)
                state.key = key_of(state.manifest)
            above = [item for item in self.inputs(state) if item is not None]
            state.tainted = state.vertex.no_cache or any(item.tainted for item in above)
        wanted = [state.key for state in self.states if _is_recorded(state.vertex)]
        records = self.worker.store.records.find(wanted)
        for state in self.states:
            if _is_recorded(state.vertex) and not state.tainted:
                state.record = records.get(state.key)
        chains = {state.record.chain_id for state in self.states if state.record is not None}
        chains |= {state.vertex.op.chain_id for state in self.states if isinstance(state.vertex.op, ImageSourceOp)}
        snapshots = self.worker.store.snapshots.get_many(chains)
        for state in self.states:
            self._take_known(state, snapshots)

    def _take_known(self, state: VertexState, snapshots: dict[str, Snapshot]) -> None:
        op = state.vertex.op
        if isinstance(op, ImageSourceOp):
            state.result = snapshots.get(op.chain_id)
            state.cached = state.result is not None
        elif isinstance(op, LocalSourceOp):
            state.result = self.worker.inputs.snapshot(op.name)
            state.cached = True
        elif state.record is not None:
            state.result = EMPTY if state.record.chain_id == "" else snapshots.get(state.record.chain_id)
            state.cached = state.result is not None
            state.created_ns = state.record.created_ns
            state.outcome = "hit" if state.cached else ""

    def missing(self) -> list[VertexState]:
        """The vertices without a result that an image needs, directly or through others without one."""
        needed: set[int] = set()
        pending = [image.vertex for image in self.plan.images if image.vertex != SCRATCH]
        while pending:
            index = pending.pop()
            if index in needed or self.states[index].cached:
                continue
            needed.add(index)
            pending += [source for source in self.states[index].vertex.inputs if source != SCRATCH]
        return [state for state in self.states if state.index in needed]

    def _run(self, state: VertexState) -> None:
        """Bring one vertex to its result; its inputs have theirs."""
        started = time.perf_counter()
        reporter = self.worker.reporter
        reporter.started(state.index, state.vertex.name, internal=state.vertex.internal)
        try:
            with definition.located(state.vertex):
                self._find_or_execute(state)
        except BaseException as error:
            reporter.failed(state.index, str(error) or "canceled", time.perf_counter() - started)
            raise
        reporter.done(state.index, time.perf_counter() - started, cached=state.cached)
        if self.worker.exports is not None:
            self.worker.exports.offer(state)

    def _find_or_execute(self, state: VertexState) -> None:
        if isinstance(state.vertex.op, ImageSourceOp):
            state.result = definition.execute(state.vertex, state.index, (), self.worker)
            return
        waiting = self.worker.reporter.waiting
        if self.borrowing is not None:
            self.borrowing.prepare(state)
        with self.worker.store.locks.exclusive(state.key, on_wait=lambda _: waiting(state.index)):
            content_key = self._describe(state)
            keys = [] if state.tainted else [state.key]
            if not isinstance(state.vertex.op, MergeOp):  # quicker made than found
                keys.append(content_key)
            if not state.vertex.no_cache and self._take_record(state, keys):
                return
            if self.borrowing is not None:
                if not state.vertex.no_cache and self.borrowing.take(state, keys):
                    return
                self.borrowing.bring_inputs(state)  # one that had to be built may hold something else than was said
                content_key = self._describe(state)
            self._execute(state, content_key)
        if self.borrowing is not None:
            self.borrowing.compare(state)

    def _describe(self, state: VertexState) -> str:
        """The content key of a vertex whose inputs have their results; its manifest stays with the state."""
        state.content = definition.by_content(state.vertex, self.inputs(state), self.worker)
        return key_of(state.content.manifest)

    def _execute(self, state: VertexState, content_key: str) -> None:
        """Run the operation and keep the result under both keys."""
        assert state.content is not None
        state.outcome = "ran"
        began = time.perf_counter()
        result = self.execute(state)
        state.created_ns = self.worker.clock()
        seconds = time.perf_counter() - began
        records = [
            CacheRecord(key, result.chain_id, readable(shown), state.created_ns, seconds)
            for key, shown in ((state.key, state.manifest), (content_key, state.content.manifest))
        ]
        for record in records if self.borrowing is None else self.borrowing.records(state, records):
            self.worker.store.records.put(record, replace=state.tainted)
        state.result = result
        if not state.domain:
            self._note(state)

    def execute(self, state: VertexState) -> Snapshot:
        """What the operation of a vertex makes now, in its trust domain; no record says so. Raises BuildError."""
        worker = self.worker._replace(domain=state.domain) if state.domain else self.worker
        return definition.execute(state.vertex, state.index, self.inputs(state), worker)

    def _note(self, state: VertexState) -> None:
        """Keep what will explain why a later build does not find this record."""
        from builder.explain.notes import take_notes

        with contextlib.suppress(StoreFullError):  # the result is there, only its story is not
            take_notes(state, self.inputs(state), self.worker)

    def _take_record(self, state: VertexState, keys: list[str]) -> bool:
        """Use a record of one of the keys, if its snapshot is there; the definition key then leads there, too."""
        store = self.worker.store
        for key in keys:
            record = store.records.find((key,)).get(key)
            found = store.snapshots.get(record.chain_id) if record and record.chain_id else EMPTY
            if record is None or found is None:
                continue
            if key != state.key:
                found = self._on_its_input(state, found)
                alias = record._replace(key=state.key, chain_id=found.chain_id, manifest=readable(state.manifest))
                if self.borrowing is None or self.borrowing.may_keep(state, found):
                    store.records.put(alias, replace=True)
                    self._note(state)
            state.result, state.created_ns, state.cached, state.record = found, record.created_ns, True, record
            state.outcome = "hit" if key == state.key else "content"
            return True
        return False

    def _on_its_input(self, state: VertexState, found: Snapshot) -> Snapshot:
        """The layer of a root that was found by content, on the root that the vertex has in this build.

        Roots of the same content can differ in times and in empty layers, and an image has a layer for every vertex.
        """
        base = self.base(state)
        if not found.layers or found.layers[:-1] == base.layers:
            return found
        if self.borrowing is not None:
            return self.borrowing.stack(base, found.layers[-1])
        return self.worker.store.snapshots.stack(base, found.layers[-1])

    def base(self, state: VertexState) -> Snapshot:
        """The root that a vertex starts from; its inputs have their results."""
        inputs = self.inputs(state)
        base = inputs[0].result if inputs and inputs[0] is not None else EMPTY
        assert base is not None, f"{state.vertex.name} runs after its inputs"
        return base

    def bring(self, state: VertexState) -> None:
        """Have the files of a vertex's root and of its inputs in the store. Raises BuildError."""
        if self.borrowing is not None:
            self.borrowing.bring_inputs(state)
            self.borrowing.bring(state)

    def layer_states(self, vertex: int) -> list[VertexState]:
        """The vertices that made the layers of a root, bottom first, without those of its base image."""
        states: list[VertexState] = []
        while vertex != SCRATCH:
            state = self.states[vertex]
            if isinstance(state.vertex.op, ImageSourceOp | LocalSourceOp):
                break
            states.append(state)
            vertex = state.vertex.inputs[0] if state.vertex.inputs else SCRATCH
        return states[::-1]


def _is_recorded(vertex: Vertex) -> bool:
    return not isinstance(vertex.op, ImageSourceOp | LocalSourceOp)
