"""What the stages are based on: images and named contexts looked up, and their ONBUILD triggers run in.

Source: Dockerfile reference (FROM, ONBUILD) and BuildKit's behaviour.
"""

from __future__ import annotations

from builder import lint_from
from builder.config import ImageConfig
from builder.errors import BuildError
from builder.sources import BaseSource, SourceResolver
from builder.stage import Command, StageState, at
from builder.stagegraph import SCRATCH_NAME, StageGraph, stage_hint
from grammar.errors import DockerfileError
from grammar.lint import Linter
from grammar.nodes import OnbuildInstruction
from grammar.platforms import Platform
from grammar.position import Range
from grammar.reference import parse_reference
from grammar.stages import parse_trigger


class BaseResolver:
    """Looks up the bases of a graph's stages; every one is asked for once."""

    def __init__(self, graph: StageGraph, resolver: SourceResolver, default: Platform, linter: Linter) -> None:
        self._graph = graph
        self._resolver = resolver
        self._default = default
        self._linter = linter

    def resolve(self, target: StageState, *, every_stage: bool = False) -> list[StageState]:
        """Look up the bases of what the target needs, or of every stage, and run in the triggers of what it needs;
        returns the stages that it needs. Raises BuildError."""
        while True:
            reachable = self._graph.reachable(target)
            self._check_names()
            for state in self._graph.states if every_stage else reachable:
                if state.base is None and not state.resolved:
                    with at(state.location):
                        self._resolve_base(state)
            added = [self._add_triggers(state) for state in reachable]
            if not any(added):
                return reachable

    def _check_names(self) -> None:
        """Names of images must be possible ones, needed or not."""
        for state in self._graph.states:
            if state.base is None and not state.resolved and state.base_name != SCRATCH_NAME:
                with at(state.location):
                    self._check_name(state.base_name)

    def _check_name(self, name: str) -> None:
        try:
            parse_reference(name)
        except DockerfileError as error:
            hint = error.hint
            if self._graph.find(name):
                hint = f"a stage is named in lower case: FROM {name.lower()}"
            raise BuildError(f'failed to parse stage name "{name}": {error.message}', hint=hint) from error

    def _resolve_base(self, state: StageState) -> None:
        state.resolved = True
        if state.context is None and state.base_name == SCRATCH_NAME:
            state.platform = self._default
            state.source = BaseSource(None, None, self._default)
            state.dispatched = state.unregistered
            return
        platform = state.platform or self._default
        source = state.context or self._resolver.named_context(state.base_name, platform)
        if source is None:
            source = self._image(state, platform)
            self._check_platform(state, source, platform)
        state.source = source
        state.platform = source.platform if state.context is not None else platform
        state.dispatched = state.unregistered or state.context is not None

    def _image(self, state: StageState, platform: Platform) -> BaseSource:
        try:
            return self._resolver.image(state.base_name, platform)
        except BuildError as error:
            names = [other.name for other in self._graph.states if other.name]
            error.hint = stage_hint(state.base_name, names) or error.hint
            raise

    def _check_platform(self, state: StageState, source: BaseSource, platform: Platform) -> None:
        """An image without layers runs anywhere."""
        if source.op is None or source.document is None or state.location is None:
            return
        place = Range(state.location.start_line, state.location.end_line)
        lint_from.check_image_platform(state.base_name, platform, source.document, place, self._linter)

    def _add_triggers(self, state: StageState) -> bool:
        """Put the base's ONBUILD triggers in front of the stage's commands; True when they name new stages."""
        if state.triggers_added or state.dispatched or state.location is None:
            return False
        state.triggers_added = True
        commands = []
        for text in _triggers(state):
            try:
                commands.append(self._trigger(text, state))
            except (BuildError, DockerfileError) as error:
                hint = error.hint or f"it is in the base's trigger: ONBUILD {text}"
                raise BuildError(str(error), hint=hint, location=state.location) from error
        state.commands[:0] = commands
        state.steps += len(commands)
        return any(command.sources for command in commands)

    def _trigger(self, text: str, state: StageState) -> Command:
        assert state.location is not None
        return self._graph.command(parse_trigger(text), state.location, on_build=True)


def _triggers(state: StageState) -> list[str]:
    if state.base is not None:
        instructions = [command.instruction for command in state.base.commands]
        return [each.expression for each in instructions if isinstance(each, OnbuildInstruction)]
    if state.source is not None and state.source.document is not None:
        return list(ImageConfig(state.source.document).triggers)
    return []
