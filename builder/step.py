"""One instruction while it is lowered: its stage, what is shared, its words, its findings and its vertices."""

from __future__ import annotations

from builder.config import ImageConfig
from builder.plan import Op, Vertex
from builder.redact import redact
from builder.scope import Scope
from builder.stage import Command, StageState
from grammar import rules
from grammar.lint import suggestion
from grammar.position import Range
from grammar.rules import Rule
from grammar.words import Lexer

UNSEEN_ARGS = ("BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE")
"""ARGs that are for the builder: no instruction sees their value."""
_BODY_LEXER = Lexer("\\", skip_process_quotes=True)


class Step:
    """What the lowering of one instruction works with."""

    def __init__(self, command: Command, state: StageState, scope: Scope) -> None:
        self.command = command
        self.state = state
        self.scope = scope
        self.linter = scope.checks.linter.for_comments(command.instruction.comments)

    @property
    def image(self) -> ImageConfig:
        assert self.state.image is not None, f"stage {self.state.label} was not started"
        return self.state.image

    @property
    def range(self) -> Range:
        """The lines that findings are about; a trigger's are those of the stage that it runs in."""
        return Range(self.command.location.start_line, self.command.location.end_line)

    def report(self, rule: Rule, *values: str, near: str | None = None, subject: str = "") -> None:
        """Note a finding about this instruction."""
        self.linter.report(rule, self.range, *values, near=near, subject=subject)

    def word(self, text: str) -> str:
        """`text` expanded; variables that nobody has set are remarked on. Raises DockerfileError."""
        return self._expanded(self.scope.lexer, text)

    def body(self, text: str) -> str:
        """A heredoc's text expanded, which always has the backslash as escape and gives quotes no meaning."""
        return self._expanded(_BODY_LEXER, text)

    def _expanded(self, lexer: Lexer, text: str) -> str:
        unset: set[str] = set()
        try:
            return lexer.process_word(text, self.state.env, unset)
        finally:
            if unset:
                unset -= {key for key, _ in self.state.build_args}
                for name in sorted(unset.difference(UNSEEN_ARGS)):
                    self.report(rules.UNDEFINED_VAR, name, near=_variable(suggestion(name, self.state.env)))

    def name(self, text: str) -> str:
        """The vertex's name in the progress; counts one step up."""
        return self.state.step_name(text, on_build=self.command.on_build)

    def add(self, op: Op, inputs: tuple[int, ...], name: str) -> int:
        """A vertex that the progress shows as this instruction."""
        state = self.state
        vertex = Vertex(op, inputs, name, state.name, self.command.location, no_cache=state.no_cache)
        return self.scope.add(vertex._replace(text=self._text, args=self._args()))

    def add_internal(self, op: Op, inputs: tuple[int, ...], name: str) -> int:
        """A vertex that the instruction needs, shown only if it fails."""
        return self.scope.add(Vertex(op, inputs, name, "", self.command.location, internal=True, text=self._text))

    @property
    def _text(self) -> str:
        return redact(self.command.instruction.original)

    def _args(self) -> tuple[str, ...]:
        """The build arguments that no ENV has replaced."""
        if not self.state.build_args:
            return ()
        variables = {entry.partition("=")[0] for entry in self.image.env}
        return tuple(sorted({key for key, _ in self.state.build_args} - variables))

    def set_once(self, kind: str) -> None:
        """Note that the stage has an instruction of which only the last counts."""
        before = self.state.used.get(kind)
        if before is not None:
            name = self.command.instruction.name
            self.linter.report(rules.MULTIPLE_INSTRUCTIONS_DISALLOWED, before, name)
        self.state.used[kind] = self.range


def _variable(name: str | None) -> str | None:
    return f"${name}" if name else None
