"""What a target of a Dockerfile can be given: its ARGs with their values, secrets, agents and cache mounts; and which
targets there are.

Nothing is built, and nothing is looked up but what lowering asks of its resolver. `outline_text` prints it.
Source: `docker buildx build --call`, BuildKit's frontend.outline and frontend.targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from builder.errors import Location
from builder.lower import Lowered, lower_stages
from builder.options import BuildOptions
from builder.plan import ExecOp, MountOp, Vertex
from builder.scope import Checks
from builder.sources import SourceResolver
from builder.stage import StageState
from builder.stagegraph import needed_by
from cache.namedtuple import NamedTuple
from grammar.lint import Linter
from grammar.nodes import ArgInstruction, ArgValue, Dockerfile, Stage
from grammar.platforms import Platform
from grammar.words import Lexer


class OutlineArg(NamedTuple):
    """An ARG that the target uses, with the value that it has in this build."""

    name: str
    description: str
    value: str
    location: Location


class OutlineMount(NamedTuple):
    """A secret, an agent or a cache by its id; a cache is never required."""

    name: str
    required: bool
    location: Location | None


class Outline(NamedTuple):
    """Everything about one target, each kind in the order of the file."""

    name: str
    description: str
    args: tuple[OutlineArg, ...]
    secrets: tuple[OutlineMount, ...]
    ssh: tuple[OutlineMount, ...]
    caches: tuple[OutlineMount, ...]


class Target(NamedTuple):
    """A stage that can be built, unexpanded."""

    name: str
    is_default: bool
    description: str
    base: str
    platform: str
    location: Location


class _Declared(NamedTuple):
    """An ARG as some line declares it, and the ARGs before the first FROM that its value was made from."""

    arg: OutlineArg
    needs: frozenset[str] = frozenset()


def targets(dockerfile: Dockerfile) -> tuple[Target, ...]:
    """Every stage in the order of the file; the last is the default."""
    last = len(dockerfile.stages) - 1
    return tuple(
        Target(stage.name, index == last, stage.doc, stage.base, stage.platform, _location(dockerfile, stage))
        for index, stage in enumerate(dockerfile.stages)
    )


def outline(dockerfile: Dockerfile, options: BuildOptions, resolver: SourceResolver, *, host: Platform) -> Outline:
    """The outline of the target that `options` name. Raises BuildError or DockerfileError as lowering does."""
    lowered = lower_stages(
        dockerfile, options, resolver, filename=dockerfile.filename, host=host, checks=Checks(Linter())
    )
    stages = {_location(dockerfile, stage): stage for stage in dockerfile.stages}
    stage = stages.get(lowered.target.location) if lowered.target.location else None
    return Outline(
        name=lowered.target.name,
        description=stage.doc if stage else "",
        args=_args(dockerfile, options, lowered, stages),
        secrets=_mounts(lowered, "secret"),
        ssh=_mounts(lowered, "ssh"),
        caches=_mounts(lowered, "cache"),
    )


def _location(dockerfile: Dockerfile, node: Stage | ArgInstruction) -> Location:
    return Location(dockerfile.filename, node.range.start_line, node.range.end_line)


def _args(
    dockerfile: Dockerfile, options: BuildOptions, lowered: Lowered, stages: Mapping[Location, Stage]
) -> tuple[OutlineArg, ...]:
    """The ARGs of the target and of the stages that it needs; of one name, the one nearest to the target."""
    lexer = Lexer(dockerfile.escape)
    before_from = _before_from(dockerfile, options, lexer)
    found: dict[str, OutlineArg] = {}
    for state in needed_by(lowered.target):
        declared = {**before_from, **_own(state, options, lowered.scope.global_args)}
        used = {pair.key for pair, _ in _pairs(state)}
        stage = stages.get(state.location) if state.location and not state.unregistered else None
        for word in (stage.base, stage.platform) if stage else ():
            used |= lexer.process_word_with_matches(word, lowered.scope.global_args).matched
        for name in _with_needs(used, declared):
            if name in declared:
                found.setdefault(name, declared[name].arg)
    return tuple(sorted(found.values(), key=lambda arg: arg.location.start_line))


def _before_from(dockerfile: Dockerfile, options: BuildOptions, lexer: Lexer) -> dict[str, _Declared]:
    """ARGs before the first FROM. One that is made from an earlier one of its name needs what that needed."""
    values: dict[str, str] = {}
    declared: dict[str, _Declared] = {}
    for instruction in dockerfile.meta_args:
        for pair in instruction.args:
            value, needs = options.build_args.get(pair.key), frozenset[str]()
            if value is None and pair.value is not None:
                word = lexer.process_word_with_matches(pair.value, values)
                value, needs = word.result, word.matched - {pair.key}
                if pair.key in word.matched:
                    needs |= declared[pair.key].needs
            if value is not None:
                values[pair.key] = value
            location = _location(dockerfile, instruction)
            declared[pair.key] = _Declared(OutlineArg(pair.key, pair.doc, value or "", location), needs)
    return declared


def _own(state: StageState, options: BuildOptions, global_args: Mapping[str, str]) -> dict[str, _Declared]:
    """ARGs that the stage itself declares; without those that only take the value from before the first FROM."""
    inherited = len(state.base.build_args) if state.base else 0
    values = [value for _, value in state.build_args[inherited:]]
    declared: dict[str, _Declared] = {}
    for (pair, location), value in zip(_pairs(state), values, strict=False):
        takes_global = pair.value is None and pair.key not in options.build_args and pair.key in global_args
        if not takes_global:
            declared[pair.key] = _Declared(OutlineArg(pair.key, pair.doc, value or "", location))
    return declared


def _pairs(state: StageState) -> Iterator[tuple[ArgValue, Location]]:
    for command in state.commands:
        if isinstance(command.instruction, ArgInstruction):
            for pair in command.instruction.args:
                yield pair, command.location


def _with_needs(names: set[str], declared: Mapping[str, _Declared]) -> set[str]:
    """`names` with everything that their values were made from."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += declared[name].needs if name in declared else ()
    return found


def _mounts(lowered: Lowered, kind: str) -> tuple[OutlineMount, ...]:
    """The mounts of one kind; of one id, the target's own and then the first in the file."""
    own = lowered.target.name
    found: dict[str, OutlineMount] = {}
    for vertex, mount in sorted(_mounts_of(lowered.scope.vertices, kind), key=lambda each: each[0].stage != own):
        name = mount.id.partition("/")[2] if kind == "cache" else mount.id
        found.setdefault(name, OutlineMount(name, mount.required, vertex.location))
    return tuple(sorted(found.values(), key=lambda each: each.location.start_line if each.location else 0))


def _mounts_of(vertices: Sequence[Vertex], kind: str) -> Iterator[tuple[Vertex, MountOp]]:
    for vertex in vertices:
        if isinstance(vertex.op, ExecOp):
            yield from ((vertex, mount) for mount in vertex.op.mounts if mount.kind == kind)
