"""What a build would do, without doing it: which vertices it would find, and which would have to run.

Contexts are read and what is fetched is asked for, as a build does before anything runs; nothing is written but what
that learns. What comes after a vertex that would run can still be found, if that one comes out as it was before.
"""

from __future__ import annotations

from builder.ops import definition
from builder.plan import ImageSourceOp, LocalSourceOp, MergeOp
from builder.solver import Solver
from builder.state import VertexState
from cache.keys import key_of
from cache.snapshots import EMPTY, Snapshot, chain_id


def predict(solver: Solver) -> None:
    """Give every vertex of the solver its keys and an outcome: `hit`, `content`, or `would run`.

    Raises BuildError as a build does for what it reads.
    """
    solver.look_up()
    for state in solver.states:
        if state.cached or isinstance(state.vertex.op, ImageSourceOp | LocalSourceOp):
            continue
        with definition.located(state.vertex):
            state.result = None if state.vertex.no_cache else _found(solver, state)
        state.outcome = "would run" if state.result is None else "content"


def _found(solver: Solver, state: VertexState) -> Snapshot | None:
    """The root that a vertex would be found to have by what its inputs hold, None when they are not all known."""
    inputs = solver.inputs(state)
    if not all(each is None or each.result is not None or _is_local(each) for each in inputs):
        return None
    if isinstance(state.vertex.op, MergeOp):
        return _merged(inputs)
    state.content = definition.by_content(state.vertex, inputs, solver.worker)
    key = key_of(state.content.manifest)
    record = solver.worker.store.records.find((key,)).get(key)
    found = solver.worker.store.snapshots.get(record.chain_id) if record is not None else None
    if found is None or not found.layers:
        return found
    return _on(solver.base(state), found)


def _on(base: Snapshot, found: Snapshot) -> Snapshot:
    """What the build would stack, not written down."""
    top = found.layers[-1]
    return Snapshot(chain_id(base.chain_id, top.diff_id), (*base.layers, top))


def _merged(inputs: list[VertexState | None]) -> Snapshot:
    base, top = (EMPTY if each is None or each.result is None else each.result for each in inputs)
    for layer in top.layers:
        base = _on(base, Snapshot("", (layer,)))
    return base


def _is_local(state: VertexState) -> bool:
    return isinstance(state.vertex.op, LocalSourceOp)
