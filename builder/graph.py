"""The graph of a build: circles among stages, what a target needs, and the order to work in.

The only importer of networkx, and so behind the plan memo: a build whose plan is known never comes here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import networkx as nx

from builder.errors import BuildError
from builder.plan import SCRATCH, ExecOp, Plan, Vertex

if TYPE_CHECKING:
    from builder.stage import Command, StageState


class CycleError(BuildError):
    """Stages need each other."""

    def __init__(self, message: str, *, hint: str, first: Command, commands: Sequence[Command]) -> None:
        super().__init__(message, hint=hint, location=first.location)
        self.commands = tuple(commands)
        """What leads into the circle and around it, in the order of reading; `first` is the first in the circle."""


def find_stage_cycle(states: Sequence[StageState]) -> None:
    """Raise CycleError when stages copy from or mount each other in a circle."""
    visited: set[int] = set()
    for state in states:
        _visit(state, visited)


def _visit(start: StageState, visited: set[int]) -> None:
    """Depth first from one stage; what was visited before leads to no circle."""
    if id(start) in visited:
        return
    visited.add(id(start))
    path: list[tuple[StageState, Iterator[tuple[StageState, Command]]]] = [(start, _dependencies(start))]
    commands: list[Command] = []
    while path:
        step = next(path[-1][1], None)
        if step is None:
            path.pop()
            del commands[-1:]
            continue
        source, command = step
        commands.append(command)
        states = [state for state, _ in path]
        if source in states:
            circle = states.index(source)
            around = " -> ".join(_shown(state) for state in [*states[circle:], source])
            raise CycleError(
                f"circular dependency detected on stage: {_shown(start)}",
                hint=f"the stages need each other: {around}",
                first=commands[circle],
                commands=commands,
            )
        if id(source) in visited:
            commands.pop()
            continue
        visited.add(id(source))
        path.append((source, _dependencies(source)))


def _shown(state: StageState) -> str:
    """A stage as errors name it; the label of a lone one is empty."""
    return state.label or state.name or "stage-0"


def _dependencies(state: StageState) -> Iterator[tuple[StageState, Command]]:
    """The stages that a stage reads, each with the last command that does."""
    found = {id(source): (source, command) for command in state.commands for source in command.sources if source}
    return iter(found.values())


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
