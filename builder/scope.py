"""What is shared while one Dockerfile is lowered: the options, the global ARGs, the linter and the vertices so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from builder.errors import BuildError
from builder.options import BuildOptions
from builder.plan import LocalSourceOp, Vertex
from cache.namedtuple import NamedTuple
from grammar.errors import DockerfileError
from grammar.ignore import IgnoreMatcher
from grammar.lint import Linter
from grammar.words import Lexer


class Checks(NamedTuple):
    """Where findings go, and what the context leaves out (None: there is no ignore file)."""

    linter: Linter
    ignored: IgnoreMatcher | None = None
    errors: list[BuildError | DockerfileError] | None = None
    """What is wrong with single instructions, where they are all wanted; None: the first is raised."""

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Note an error and go on, if errors are collected."""
        try:
            yield
        except (BuildError, DockerfileError) as error:
            if self.errors is None:
                raise
            self.errors.append(error)


class Scope:
    """Collects vertices; the same operation on the same inputs is one vertex, whoever asks for it."""

    def __init__(
        self, options: BuildOptions, escape: str, global_args: Mapping[str, str], checks: Checks | None = None
    ) -> None:
        self.options = options
        self.lexer = Lexer(escape)
        self.global_args = global_args
        self.checks = checks or Checks(Linter())
        self.vertices: list[Vertex] = []
        self._known: dict[tuple[object, ...], int] = {}
        self._shown_raw = Lexer(escape, raw_quotes=True, skip_unset_env=True)

    def add(self, vertex: Vertex) -> int:
        """The index of the vertex, after adding it if nothing equal is there."""
        identity = (type(vertex.op), vertex.op, vertex.inputs, vertex.no_cache)
        if identity not in self._known:
            self._known[identity] = len(self.vertices)
            self.vertices.append(vertex)
        return self._known[identity]

    def local(self, op: LocalSourceOp) -> int:
        """The vertex of a local directory."""
        shown = "load build context" if op.name == "context" else f"load context {op.name}"
        return self.add(Vertex(op, (), f"[internal] {shown}"))

    def shown(self, text: str, env: Mapping[str, str], *, raw: bool = True) -> str:
        """An instruction as the progress shows it: with its variables filled in where that can be done."""
        try:
            filled = (self._shown_raw if raw else self.lexer).process_word(text, env)
        except DockerfileError:
            filled = text
        keyword, blank, rest = filled.partition(" ")
        return keyword.upper() + blank + rest
