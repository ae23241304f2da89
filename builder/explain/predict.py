"""What a build would do, without doing it: which vertices it would find, and which would have to run.

Contexts are read and what is fetched is asked for, as a build does before anything runs; nothing is written but what
that learns. What comes after a vertex that would run can still be found, if that one comes out as it was before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.cachestore.imports import is_whole
from builder.ops import definition
from builder.plan import FileOp, ImageSourceOp, LocalSourceOp, MergeOp
from builder.solver import Solver
from builder.state import VertexState
from cache.keys import key_of
from cache.snapshots import EMPTY, Snapshot, chain_id

if TYPE_CHECKING:
    from builder.borrowing import Borrowing


def predict(solver: Solver) -> None:
    """Give every vertex of the solver its keys and an outcome: `hit`, `content`, `would run`, "" for not needed.

    Raises BuildError as a build does for what it reads.
    """
    solver.look_up()
    borrowing = solver.borrow(is_asked_only=True)
    if borrowing is not None:
        borrowing.look_up()
    for state in solver.states:
        if state.result is not None or _is_source(state):
            continue
        with definition.located(state.vertex):
            if not state.vertex.no_cache and _can_look_inside(solver, state):
                _find(solver, state, borrowing)
        state.cached = state.result is not None
    for state in solver.missing():
        if not _is_source(state):
            state.outcome = "would run"


def _can_look_inside(solver: Solver, state: VertexState) -> bool:
    """Whether the results of a vertex's inputs are known, and here where files of them are read."""
    inputs = solver.inputs(state)
    known = [each is None or _is_local(each) or each.result is not None for each in inputs]
    if isinstance(state.vertex.op, FileOp):
        known += [each is None or each.result is None or is_whole(each.result) for each in inputs[1:]]
    return all(known)


def _find(solver: Solver, state: VertexState, borrowing: Borrowing | None) -> None:
    """Give a vertex the root that it would be found to have by what its inputs hold."""
    if isinstance(state.vertex.op, MergeOp):
        state.result, state.outcome = _merged(solver.inputs(state)), "content"
        return
    state.content = definition.by_content(state.vertex, solver.inputs(state), solver.worker)
    key = key_of(state.content.manifest)
    record = solver.worker.store.records.find((key,)).get(key)
    found = solver.worker.store.snapshots.get(record.chain_id) if record is not None else None
    if found is not None:
        state.result, state.outcome = _on(solver.base(state), found) if found.layers else found, "content"
    elif borrowing is not None:
        borrowing.take(state, (key,))


def _on(base: Snapshot, found: Snapshot) -> Snapshot:
    """What the build would stack, not written down."""
    top = found.layers[-1]
    return Snapshot(chain_id(base.chain_id, top.diff_id), (*base.layers, top))


def _merged(inputs: list[VertexState | None]) -> Snapshot:
    base, top = (EMPTY if each is None or each.result is None else each.result for each in inputs)
    for layer in top.layers:
        base = _on(base, Snapshot("", (layer,)))
    return base


def _is_source(state: VertexState) -> bool:
    return isinstance(state.vertex.op, ImageSourceOp | LocalSourceOp)


def _is_local(state: VertexState) -> bool:
    return isinstance(state.vertex.op, LocalSourceOp)
