"""The stages of a Dockerfile as a graph: which stage is based on which, and which reads which.

Knows names and platforms; what a base is, is `bases`' business, and the instructions themselves are `lower`'s.
Source: Dockerfile reference (FROM, COPY --from, RUN --mount) and BuildKit's behaviour.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NoReturn

from builder import lint_from
from builder.args import GlobalArgs
from builder.errors import BuildError, Location
from builder.sources import SourceResolver, normal_name
from builder.stage import Command, StageState, at
from grammar.errors import DockerfileError
from grammar.lint import Linter
from grammar.mount_flag import parse_mount
from grammar.nodes import CopyInstruction, Instruction, RunInstruction, Stage
from grammar.platforms import Platform, parse_platform
from grammar.words import Lexer, WordMatches

_INDEX = re.compile("[+-]?[0-9]{1,18}")
SCRATCH_NAME = "scratch"


class StageGraph:
    """All stages of one Dockerfile, later also the images that its commands name (they come unregistered)."""

    def __init__(
        self,
        filename: str,
        escape: str,
        arguments: GlobalArgs,
        *,
        host: Platform,
        linter: Linter,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """`aliases` are the names that --build-context gave to stages: name -> stage."""
        self.filename = filename
        self._aliases = aliases or {}
        self.lexer = Lexer(escape)
        self.arguments = arguments
        self._host = host
        self._linter = linter
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

    def _expanded(self, text: str, stage: Stage) -> WordMatches:
        """A word of FROM with the ARGs before it; those that nobody declared are remarked on."""
        unset: set[str] = set()
        values = self.arguments.values
        try:
            self.lexer.process_word(text, values, unset)
        finally:
            linter = self._linter.for_comments(stage.comments)
            lint_from.check_undeclared(unset, self.arguments.declared, stage.range, linter)
        return self.lexer.process_word_with_matches(text, values)

    def _base_name(self, stage: Stage) -> str:
        name = self._expanded(stage.base, stage).result
        if not name:
            raise BuildError(
                f"base name ({stage.base}) should not be blank",
                hint="give the ARG a default before the first FROM, or pass --build-arg",
            )
        return name

    def _platform(self, stage: Stage) -> Platform | None:
        if not stage.platform:
            return None
        found = self._expanded(stage.platform, stage)
        linter = self._linter.for_comments(stage.comments)
        lint_from.check_platform(stage, found, self.arguments.values, self._host, linter)
        if not found.result:
            raise BuildError(f"empty platform value from expression {stage.platform}")
        try:
            return parse_platform(found.result, self._host)
        except DockerfileError as error:
            raise BuildError(f"failed to parse platform {stage.platform}: {error.message}", hint=error.hint) from error

    def _register(self, state: StageState) -> None:
        self.states.append(state)
        state.base = self._by_name.get(state.base_name)
        alias = self._alias(state.base_name)
        if alias is not None:
            state.base = self._by_name.get(alias.lower()) or _no_stage(state.base_name, alias)
        if state.name:
            self._by_name[state.name.lower()] = state

    def find(self, name: str) -> StageState | None:
        """The stage of this name, regardless of case; of several with one name the last. Raises BuildError for a name
        that --build-context gave to a stage that is not there, or only further down."""
        alias = self._alias(name)
        return (
            self._by_name.get(name.lower())
            if alias is None
            else self._by_name.get(alias.lower()) or _no_stage(name, alias)
        )

    def _alias(self, name: str) -> str | None:
        return self._aliases.get(normal_name(name)) if self._aliases else None

    def target(self, name: str) -> StageState:
        """The stage to build: the last one, or the one `--target` names (never a number)."""
        if not name:
            return self.states[-1]
        found = self.find(name)
        if found is None:
            names = [state.name for state in self.states if state.name]
            raise BuildError(f'target stage "{name}" could not be found', hint=stage_hint(name, names))
        return found

    def connect(self) -> None:
        """Turn every stage's instructions into commands with their sources."""
        for state in list(self.states):
            for instruction in state.instructions:
                rows = instruction.range
                location = Location(self.filename, rows.start_line, rows.end_line)
                with at(location):
                    state.commands.append(self.command(instruction, location))
        if len(self.states) == 1:
            self.states[0].label = ""

    def command(self, instruction: Instruction, location: Location, *, on_build: bool = False) -> Command:
        """An instruction with the stages and images that it reads; images that are new are registered."""
        sources: tuple[StageState | None, ...] = ()
        if isinstance(instruction, CopyInstruction) and instruction.from_:
            sources = (self._copy_source(instruction.from_, location),)
        elif isinstance(instruction, RunInstruction):
            # A mount without `from` counts as one from scratch, and so can be found by number, too.
            names = [parse_mount(value, None).from_ or SCRATCH_NAME for value in instruction.mounts]
            sources = tuple(self._source(name, location) for name in names)
        return Command(instruction, sources, location, on_build)

    def _copy_source(self, name: str, location: Location) -> StageState:
        if self.lexer.process_word(name, {}) != name:
            raise BuildError(
                "variable expansion is not supported for --from, define a new stage with FROM using ARG from global "
                "scope as a workaround"
            )
        if not _INDEX.fullmatch(name):
            return self._source(name, location)
        index = int(name)
        if not 0 <= index < len(self.states):
            raise BuildError(
                f"invalid stage index {index}", hint=f"the stages are numbered 0 to {len(self.states) - 1}"
            )
        return self.states[index]

    def _source(self, name: str, location: Location) -> StageState:
        found = self.find(name)
        if found is not None:
            return found
        state = StageState("", name, location)
        state.unregistered = True
        self._register(state)
        return state

    def reachable(self, target: StageState) -> list[StageState]:
        """The target and everything that it needs, in the order of the Dockerfile."""
        seen = {id(state) for state in needed_by(target)}
        return [state for state in self.states if id(state) in seen]


def _no_stage(name: str, stage: str) -> NoReturn:
    raise BuildError(
        f'context "{name}=target:{stage}": there is no stage "{stage}" above',
        hint="a target is a stage of this Dockerfile",
    )


def _count_steps(state: StageState) -> int:
    steps = 1 if state.base is None and state.base_name != SCRATCH_NAME else 0
    return steps + sum(i.keyword in ("RUN", "COPY", "ADD", "WORKDIR") for i in state.instructions)


def stage_hint(name: str, names: Sequence[str]) -> str | None:
    """A stage that `name` may have meant."""
    import difflib

    near = difflib.get_close_matches(name.lower(), [other for other in names if other != name], 1)
    return f"did you mean {near[0]}?" if near else None


def needed_by(target: StageState) -> list[StageState]:
    """The target, its base, and what it reads, nearest first."""
    needed: list[StageState] = []
    seen: set[int] = set()
    pending = [target]
    while pending:
        state = pending.pop()
        if id(state) in seen:
            continue
        seen.add(id(state))
        needed.append(state)
        pending += [*reversed([*state.depends_on()]), *([state.base] if state.base else [])]
    return needed
