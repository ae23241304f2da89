"""The door to the graph library: opened only for plans that branch.

A Dockerfile of one stage is a chain already, with nothing to drop, no circle and one order to work in; loading networkx
for it would cost more than lowering it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from builder.plan import SCRATCH, Plan

if TYPE_CHECKING:
    from builder.stage import StageState


def find_stage_cycle(states: Sequence[StageState]) -> None:
    """Raise BuildError when stages read each other in a circle; see `graph`."""
    if any(
        source is not None and not source.unregistered
        for state in states
        for command in state.commands
        for source in command.sources
    ):
        from builder import graph

        graph.find_stage_cycle(states)


def keep_needed(plan: Plan) -> Plan:
    """The plan with just what its images need, in the order to work in; see `graph`."""
    if is_chain(plan):
        return plan
    from builder import graph

    return graph.keep_needed(plan)


def is_chain(plan: Plan) -> bool:
    """Whether every vertex lies on the way to the one image: on top of the one before it, or read by one of those."""
    if len(plan.images) != 1:
        return False
    seen: set[int] = set()
    index = plan.images[0].vertex
    while index != SCRATCH:
        seen.add(index)
        below, *read = plan.vertices[index].inputs or (SCRATCH,)
        if any(source != SCRATCH and plan.vertices[source].inputs for source in read):
            return False
        seen.update(source for source in read if source != SCRATCH)
        index = below
    return len(seen) == len(plan.vertices)
