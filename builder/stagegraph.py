"""The stages of a Dockerfile as a graph: which stage is based on which, which reads which, and what each base is.

Knows names, platforms and ONBUILD triggers; the instructions themselves are `lower`'s.
Source: Dockerfile reference (FROM, COPY --from, RUN --mount, ONBUILD) and BuildKit's behaviour.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from builder.config import ImageConfig
from builder.errors import BuildError, Location
from builder.plan import SCRATCH
from builder.sources import BaseSource, SourceResolver
from grammar.errors import DockerfileError
from grammar.nodes import CopyInstruction, Instruction, OnbuildInstruction, RunInstruction, Stage
from grammar.platforms import Platform, parse_platform
from grammar.reference import parse_reference
from grammar.stages import parse_trigger
from grammar.words import Lexer


class Command(NamedTuple):
    """An instruction with the stages that it reads (by position of its mounts; a COPY has at most one)."""

    instruction: Instruction
    sources: tuple[StageState | None, ...]
    location: Location
    on_build: bool = False


class StageState:
    """One stage while it is being resolved and lowered. Identity, not value: stages refer to each other."""

    def __init__(self, name: str, base_name: str, location: Location) -> None:
        self.name = name
        self.label = name
        self.base_name = base_name
        self.location = location
        self.base: StageState | None = None
        self.platform: Platform | None = None
        self.context: BaseSource | None = None
        self.source: BaseSource | None = None
        self.commands: list[Command] = []
        self.instructions: tuple[Instruction, ...] = ()
        self.unregistered = False
        self.resolved = False
        self.triggers_added = False
        self.dispatched = False
        self.no_cache = False
        self.image: ImageConfig | None = None
        self.env: dict[str, str] = {}
        self.cwd = "/"
        self.build_args: list[tuple[str, str | None]] = []
        self.vertex = SCRATCH
        self.step = 0
        self.steps = 0
        self.cmd_set = False

    def depends_on(self) -> Iterator[StageState]:
        """Stages whose files this one reads, without its base."""
        for command in self.commands:
            for source in command.sources:
                if source is not None:
                    yield source

    def step_name(self, text: str, *, on_build: bool = False) -> str:
        """`[stage 2/5] text`, counting one step up. Source: BuildKit's progress names."""
        if not self.steps:
            return text
        self.step += 1
        width = int(1 + math.log10(self.steps))
        label = self.label + " " if self.label else ""
        return f"[{label}{self.step:{width}d}/{self.steps}] {'ONBUILD ' if on_build else ''}{text}"


@contextmanager
def at(location: Location) -> Iterator[None]:
    """Give errors raised inside the lines they belong to, unless they know better."""
    try:
        yield
    except BuildError as error:
        error.location = error.location or location
        raise
    except DockerfileError as error:
        if error.range is not None:
            raise
        raise BuildError(error.message, hint=error.hint, location=location) from error


class StageGraph:
    """All stages of one Dockerfile, later also the images that its commands name (they come unregistered)."""

    def __init__(self, filename: str, escape: str, global_args: Mapping[str, str], *, host: Platform) -> None:
        self.filename = filename
        self.lexer = Lexer(escape)
        self._escape = escape
        self.global_args = global_args
        self._host = host
        self.states: list[StageState] = []
        self._by_name: dict[str, StageState] = {}

    def add_stages(self, stages: Sequence[Stage], resolver: SourceResolver, default: Platform) -> None:
        """Register every stage in order; a named context of a stage's name replaces it."""
        for index, stage in enumerate(stages):
            location = Location(self.filename, stage.range.start_line, stage.range.end_line)
            with at(location):
                state = StageState(stage.name, self._base_name(stage), location)
                state.platform = self._platform(stage)
                state.instructions = stage.commands
                if stage.name:
                    state.context = resolver.named_context(stage.name, state.platform or default)
                else:
                    state.label = f"stage-{index}"
                self._register(state)
                if state.context is not None:
                    state.base = None
                    state.instructions = ()
                state.steps = _count_steps(state)

    def _base_name(self, stage: Stage) -> str:
        name = self.lexer.process_word(stage.base, self.global_args)
        if not name:
            raise BuildError(
                f"base name ({stage.base}) should not be blank",
                hint="give the ARG a default before the first FROM, or pass --build-arg",
            )
        return name

    def _platform(self, stage: Stage) -> Platform | None:
        if not stage.platform:
            return None
        text = self.lexer.process_word(stage.platform, self.global_args)
        if not text:
            raise BuildError(f"empty platform value from expression {stage.platform}")
        try:
            return parse_platform(text, self._host)
        except DockerfileError as error:
            raise BuildError(f"failed to parse platform {stage.platform}: {error.message}", hint=error.hint) from error

    def _register(self, state: StageState) -> None:
        self.states.append(state)
        state.base = self._by_name.get(state.base_name)
        if state.name:
            self._by_name[state.name.lower()] = state

    def find(self, name: str) -> StageState | None:
        """The stage of this name, regardless of case; of several with one name the last."""
        return self._by_name.get(name.lower())

    def target(self, name: str) -> StageState:
        """The stage to build: the last one, or the one `--target` names (never a number)."""
        if not name:
            return self.states[-1]
        found = self.find(name)
        if found is None:
            names = [state.name for state in self.states if state.name]
            raise BuildError(f'target stage "{name}" could not be found', hint=_stage_hint(name, names))
        return found

    def connect(self) -> None:
        """Turn every stage's instructions into commands with their sources."""
        for state in list(self.states):
            for instruction in state.instructions:
                rows = instruction.range
                location = Location(self.filename, rows.start_line, rows.end_line)
                with at(location):
                    state.commands.append(self._command(instruction, location))
        if len(self.states) == 1:
            self.states[0].label = ""

    def _command(self, instruction: Instruction, location: Location, *, on_build: bool = False) -> Command:
        sources: tuple[StageState | None, ...] = ()
        if isinstance(instruction, CopyInstruction) and instruction.from_:
            sources = (self._copy_source(instruction.from_, location),)
        elif isinstance(instruction, RunInstruction):
            sources = tuple(
                self._mount_source(mount_from(value), location) if mount_from(value) else None
                for value in instruction.mounts
            )
        return Command(instruction, sources, location, on_build)

    def _copy_source(self, name: str, location: Location) -> StageState:
        if self.lexer.process_word(name, {}) != name:
            raise BuildError(
                "variable expansion is not supported for --from, define a new stage with FROM using ARG from global "
                "scope as a workaround"
            )
        digits = name[1:] if name[:1] in "+-" else name
        if digits.isascii() and digits.isdecimal():
            index = int(name)
            if not 0 <= index < len(self.states):
                raise BuildError(
                    f"invalid stage index {index}", hint=f"the stages are numbered 0 to {len(self.states) - 1}"
                )
            return self.states[index]
        return self._mount_source(name, location)

    def _mount_source(self, name: str, location: Location) -> StageState:
        found = self.find(name)
        if found is not None:
            return found
        state = StageState("", name, location)
        state.unregistered = True
        self._register(state)
        return state

    def reachable(self, target: StageState) -> list[StageState]:
        """The target and everything that it needs, in the order of the Dockerfile."""
        seen: set[int] = set()
        pending = [target]
        while pending:
            state = pending.pop()
            if id(state) in seen:
                continue
            seen.add(id(state))
            pending += [*([state.base] if state.base else []), *state.depends_on()]
        return [state for state in self.states if id(state) in seen]

    def resolve(self, target: StageState, resolver: SourceResolver, default: Platform) -> list[StageState]:
        """Look up the bases of all reachable stages and run their ONBUILD triggers in; returns the reachable stages."""
        while True:
            reachable = self.reachable(target)
            for state in reachable:
                if state.base is None and not state.resolved:
                    with at(state.location):
                        self._resolve_base(state, resolver, default)
            added = [self._add_triggers(state) for state in reachable]
            if not any(added):
                return reachable

    def _resolve_base(self, state: StageState, resolver: SourceResolver, default: Platform) -> None:
        state.resolved = True
        if state.context is None and state.base_name == "scratch":
            state.platform = default
            state.source = BaseSource(None, None, default)
            state.dispatched = state.unregistered
            return
        platform = state.platform or default
        source = state.context
        if source is None:
            try:
                parse_reference(state.base_name)
            except DockerfileError as error:
                hint = error.hint
                if self.find(state.base_name):
                    hint = f"a stage is named in lower case: FROM {state.base_name.lower()}"
                raise BuildError(
                    f'failed to parse stage name "{state.base_name}": {error.message}', hint=hint
                ) from error
            source = resolver.named_context(state.base_name, platform) or self._image(state, resolver, platform)
        state.source = source
        state.platform = source.platform if state.context is not None else platform
        state.dispatched = state.unregistered or state.context is not None

    def _image(self, state: StageState, resolver: SourceResolver, platform: Platform) -> BaseSource:
        try:
            return resolver.image(state.base_name, platform)
        except BuildError as error:
            names = [other.name for other in self.states if other.name]
            error.hint = _stage_hint(state.base_name, names) or error.hint
            raise

    def _add_triggers(self, state: StageState) -> bool:
        """Put the base's ONBUILD triggers in front of the stage's commands; True when they name new stages."""
        if state.triggers_added or state.dispatched:
            return False
        state.triggers_added = True
        triggers: list[str] = []
        if state.base is not None:
            triggers = [
                command.instruction.expression
                for command in state.base.commands
                if isinstance(command.instruction, OnbuildInstruction)
            ]
        elif state.source is not None and state.source.document is not None:
            triggers = list(ImageConfig(state.source.document).triggers)
        commands = []
        for text in triggers:
            with at(state.location):
                instruction = parse_trigger(text, self._escape)
                commands.append(self._command(instruction, state.location, on_build=True))
        state.commands[:0] = commands
        state.steps += len(commands)
        return any(command.sources for command in commands)


def mount_from(value: str) -> str:
    """The `from` field of a `--mount` value as written, empty when there is none."""
    for field in value.split(","):
        key, _, rest = field.strip('"').partition("=")
        if key.lower() == "from":
            return rest
    return ""


def _count_steps(state: StageState) -> int:
    steps = 1 if state.base is None and state.base_name != "scratch" else 0
    return steps + sum(i.keyword in ("RUN", "COPY", "ADD", "WORKDIR") for i in state.instructions)


def _stage_hint(name: str, names: Sequence[str]) -> str | None:
    import difflib

    near = difflib.get_close_matches(name.lower(), names, 1)
    return f"did you mean {near[0]}?" if near else None
