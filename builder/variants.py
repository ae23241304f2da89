"""Several results of one Dockerfile: one lowering for each target and platform, and one graph of all of them.

What two variants have in common (the same operation on the same inputs) is one vertex, and so is run once.
"""

from __future__ import annotations

from collections.abc import Sequence

from builder.options import BuildOptions
from builder.order import keep_needed
from builder.plan import SCRATCH, Plan, PlanWarning, Vertex
from grammar.platforms import Platform, normalize, parse_platform


def variants(options: BuildOptions, host: Platform) -> list[BuildOptions]:
    """The options of every single result, by target and then by platform, each of them once.

    Raises DockerfileError for a platform that cannot be read.
    """
    targets = list({name.lower(): name for name in options.targets or (options.target,)}.values())
    platforms: dict[Platform | None, str] = {}
    for text in options.platforms or (options.platform,):
        platforms.setdefault(normalize(parse_platform(text, host)) if text else None, text)
    return [options._replace(target=target, platform=text) for target in targets for text in platforms.values()]


def merge(plans: Sequence[Plan]) -> Plan:
    """One plan with the images of all, in their order. A finding that several have made is told once."""
    if len(plans) == 1:
        return plans[0]
    vertices: list[Vertex] = []
    known: dict[tuple[object, ...], int] = {}
    images = []
    for plan in plans:
        place = {SCRATCH: SCRATCH}
        for index, vertex in enumerate(plan.vertices):
            moved = vertex._replace(inputs=tuple([place[source] for source in vertex.inputs]))
            identity = (type(moved.op), moved.op, moved.inputs, moved.no_cache)
            if identity not in known:
                known[identity] = len(vertices)
                vertices.append(moved)
            place[index] = known[identity]
        images += [image._replace(vertex=place[image.vertex]) for image in plan.images]
    return keep_needed(Plan(tuple(vertices), tuple(images), _warnings(plans)))


def _warnings(plans: Sequence[Plan]) -> tuple[PlanWarning, ...]:
    return tuple(dict.fromkeys(warning for plan in plans for warning in plan.warnings))
