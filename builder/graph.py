"""The graph of a build: cycles among stages, what a target needs, and the order to work in.

The only importer of networkx, and so behind the plan memo: a build whose plan is known never comes here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import networkx as nx

from builder.errors import BuildError
from builder.plan import SCRATCH, ExecOp, Plan, Vertex

if TYPE_CHECKING:
    from builder.stagegraph import Command, StageState


def find_stage_cycle(states: Sequence[StageState]) -> None:
    """Raise BuildError when stages copy from or mount each other in a circle; the place is a command in it."""
    graph: nx.DiGraph[int] = nx.DiGraph()
    places = {id(state): state for state in states}
    commands: dict[tuple[int, int], Command] = {}
    for state in states:
        for command in state.commands:
            for source in command.sources:
                if source is not None:
                    graph.add_edge(id(state), id(source))
                    commands.setdefault((id(state), id(source)), command)
    try:
        cycle = nx.find_cycle(graph)
    except nx.NetworkXNoCycle:
        return
    first = places[cycle[0][0]]
    around = " -> ".join(places[edge[0]].label for edge in [*cycle, cycle[0]])
    raise BuildError(
        f"circular dependency detected on stage: {first.label}",
        hint=f"the stages need each other: {around}",
        location=commands[cycle[0][0], cycle[0][1]].location,
    )


def to_digraph(vertices: Sequence[Vertex]) -> nx.DiGraph[int]:
    """Edges from what is read to who reads it, over the vertices' indices."""
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(len(vertices)))
    graph.add_edges_from(
        (source, index) for index, vertex in enumerate(vertices) for source in vertex.inputs if source != SCRATCH
    )
    return graph


def keep_needed(plan: Plan) -> Plan:
    """The plan with just what its images need, ordered so that the longest chain of RUNs is begun first.

    The order is topological: a vertex comes after its inputs.
    """
    graph = to_digraph(plan.vertices)
    needed: set[int] = set()
    for image in plan.images:
        if image.vertex != SCRATCH:
            needed |= nx.ancestors(graph, image.vertex) | {image.vertex}
    heights = _heights(graph.subgraph(needed), plan.vertices)
    order = list(nx.lexicographical_topological_sort(graph.subgraph(needed), key=lambda i: (-heights[i], i)))
    place = {old: new for new, old in enumerate(order)}
    place[SCRATCH] = SCRATCH
    vertices = tuple(
        plan.vertices[old]._replace(inputs=tuple(place[source] for source in plan.vertices[old].inputs))
        for old in order
    )
    images = tuple(image._replace(vertex=place[image.vertex]) for image in plan.images)
    return plan._replace(vertices=vertices, images=images)


def _heights(graph: nx.DiGraph[int], vertices: Sequence[Vertex]) -> dict[int, int]:
    """For every vertex, how many RUNs at the most lie between it and a result, itself included."""
    heights: dict[int, int] = {}
    for index in reversed(list(nx.topological_sort(graph))):
        above = max((heights[reader] for reader in graph.successors(index)), default=0)
        heights[index] = above + isinstance(vertices[index].op, ExecOp)
    return heights


def generations(plan: Plan) -> Iterable[list[int]]:
    """Groups of vertices that can run at the same time, first to last."""
    return (sorted(group) for group in nx.topological_generations(to_digraph(plan.vertices)))
