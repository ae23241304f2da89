"""The door to the graph library: opened only when there is something to find out.

Loading networkx costs more than lowering a whole Dockerfile, and most need none of it: where stages read only stages
above them there can be no circle, and where no more chains of vertices are ready than run at once, no order is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from builder.plan import SCRATCH, ImageSourceOp, LocalSourceOp, Plan

if TYPE_CHECKING:
    from builder.stage import StageState

CHAINS_AT_ONCE = 4
"""No build runs fewer vertices at a time, unless --jobs says so."""


def find_stage_cycle(states: Sequence[StageState]) -> None:
    """Raise BuildError when stages read each other in a circle; see `graph`."""
    place = {id(state): number for number, state in enumerate(states)}
    if any(
        source is not None and not source.unregistered and place[id(source)] >= place[id(state)]
        for state in states
        for command in state.commands
        for source in command.sources
    ):
        from builder import graph

        graph.find_stage_cycle(states)


def keep_needed(plan: Plan) -> Plan:
    """The plan with just what its images need, in the order to work in; see `graph`."""
    if is_in_order(plan):
        return plan
    from builder import graph

    return graph.keep_needed(plan)


def is_in_order(plan: Plan) -> bool:
    """Whether every vertex is needed, and so few chains lie side by side that all their ends can run at once."""
    needed = set()
    pending = [image.vertex for image in plan.images]
    while pending:
        index = pending.pop()
        if index != SCRATCH and index not in needed:
            needed.add(index)
            pending += plan.vertices[index].inputs
    return len(needed) == len(plan.vertices) and _chains(plan) <= CHAINS_AT_ONCE


def _chains(plan: Plan) -> int:
    """How many chains cover the vertices, each going on with one whose end it reads.

    No more vertices are ever ready at once, since of a chain only one can be (Dilworth's theorem).
    """
    ends: set[int] = set()
    chains = 0
    for index, vertex in enumerate(plan.vertices):
        if isinstance(vertex.op, ImageSourceOp | LocalSourceOp):
            continue
        read = ends.intersection(vertex.inputs)
        if read:
            ends.remove(min(read))
        else:
            chains += 1
        ends.add(index)
    return chains
