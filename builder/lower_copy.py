"""COPY and ADD lowered to copy actions, with `--link` as a layer of its own.

Source: Dockerfile reference, COPY and ADD; BuildKit's behaviour for wildcards, URLs, heredocs and history.
"""

from __future__ import annotations

import posixpath
from urllib.parse import unquote, urlsplit

from builder.errors import BuildError
from builder.plan import (
    SCRATCH,
    CopyAction,
    FileOp,
    HttpSourceOp,
    LocalSourceOp,
    MergeOp,
    MkfileAction,
    Vertex,
)
from builder.scope import Scope
from builder.stagegraph import Command, StageState
from grammar.nodes import AddInstruction, CopyInstruction, SourceContent
from grammar.values import parse_chmod
from grammar.words import Lexer

_GIT_PREFIXES = ("git@", "git://", "ssh://")


class _CopyLowering:
    """One COPY or ADD: collects its actions and the inputs that they read."""

    def __init__(self, instruction: CopyInstruction | AddInstruction, state: StageState, scope: Scope) -> None:
        self.instruction = instruction
        self.state = state
        self.scope = scope
        self.is_add = isinstance(instruction, AddInstruction)
        self.dest = self._word(instruction.dest)
        self.target = scope.join_keeping_slash(state.cwd, self.dest)
        self.chown = self._word(instruction.chown)
        self.chmod = self._word(instruction.chmod)
        self.excludes = tuple(self._word(pattern) for pattern in instruction.exclude)
        self.inputs: list[int] = []
        self.actions: list[CopyAction] = []
        if self.chmod:
            parse_chmod(self.chmod)

    def _word(self, text: str) -> str:
        return self.scope.lexer.process_word(text, self.state.env)

    def _input(self, vertex: int) -> int:
        """The index, among the vertex's inputs, of what a copy reads; the root is input 0."""
        if vertex == SCRATCH:
            return SCRATCH
        if vertex not in self.inputs:
            self.inputs.append(vertex)
        return self.inputs.index(vertex) + 1

    def add_sources(self, source: int) -> str:
        """Add an action for every source; returns the sources as the history shows them."""
        shown = ""
        for raw in self.instruction.sources:
            text = self._word(raw)
            shown += " " + text
            if is_git_source(text):
                self._refuse_git(text)
            elif text.startswith(("http://", "https://")):
                self._add_url(text)
            else:
                self._add_path(text, source)
        for content in self.instruction.contents:
            shown += " <<" + content.path
            self._add_content(content)
        return shown

    def _refuse_git(self, text: str) -> None:
        if not self.is_add:
            raise BuildError("source can't be a git ref for COPY", hint="ADD takes git repositories")
        raise BuildError(
            f'source "{text}" is a git repository, which this version cannot fetch',
            hint="clone it beside the Dockerfile and give it with --build-context name=DIR",
        )

    def _add_url(self, url: str) -> None:
        if not isinstance(self.instruction, AddInstruction):
            raise BuildError("source can't be a URL for COPY", hint="ADD takes URLs")
        from builder.ops.fetch import redacted

        filename = posixpath.basename(unquote(urlsplit(url).path)) or "__unnamed__"
        checksum = self._word(self.instruction.checksum)
        vertex = self.scope.add(
            Vertex(HttpSourceOp(url, filename, checksum), (), f"[internal] fetch {redacted(url)}", self.state.name)
        )
        self.actions.append(
            CopyAction(
                self._input(vertex),
                filename,
                self.target,
                follow_symlinks=False,
                dir_contents_only=False,
                allow_wildcard=False,
                attempt_unpack=bool(self.instruction.unpack),
                exclude_patterns=self.excludes,
                chmod=self.chmod,
                chown=self.chown,
            )
        )

    def _add_path(self, text: str, source: int) -> None:
        unpack = self.is_add
        if isinstance(self.instruction, AddInstruction) and self.instruction.unpack is not None:
            unpack = self.instruction.unpack
        path = text
        patterns: tuple[str, ...] = ()
        required: tuple[str, ...] = ()
        if isinstance(self.instruction, CopyInstruction) and self.instruction.parents:
            path, patterns, required = _split_parents(text)
        self.actions.append(
            CopyAction(
                self._input(source),
                self.scope.join("/", path),
                self.target,
                attempt_unpack=unpack,
                include_patterns=patterns,
                exclude_patterns=self.excludes,
                required_paths=required,
                chmod=self.chmod,
                chown=self.chown,
            )
        )

    def _add_content(self, content: SourceContent) -> None:
        body = content.data
        if content.expand:
            body = Lexer("\\", skip_process_quotes=True).process_word(body, self.state.env)
        action = MkfileAction("/" + content.path, body)
        vertex = self.scope.add(
            Vertex(FileOp((action,)), (SCRATCH,), "[internal] preparing inline document", internal=True)
        )
        self.actions.append(
            CopyAction(
                self._input(vertex),
                content.path,
                self.target,
                follow_symlinks=False,
                dir_contents_only=False,
                allow_wildcard=False,
                exclude_patterns=self.excludes,
                chmod=self.chmod,
                chown=self.chown,
            )
        )

    def history(self, shown: str) -> str:
        """The history line: keyword, the flags that it shows, sources, destination."""
        parts = ["ADD" if self.is_add else "COPY"]
        if isinstance(self.instruction, CopyInstruction) and self.instruction.parents:
            parts.append("--parents")
        parts += [f"--chown={self.chown}"] if self.chown else []
        parts += [f"--chmod={self.chmod}"] if self.chmod else []
        return f"{' '.join(parts)}{shown} {self.dest} # buildkit"

    def check_checksum(self) -> None:
        """`--checksum` wants exactly one source, and that a URL."""
        if not isinstance(self.instruction, AddInstruction) or not self.instruction.checksum:
            return
        if len(self.instruction.sources) != 1:
            raise BuildError("checksum can't be specified for multiple sources")
        source = self._word(self.instruction.sources[0])
        if not source.startswith(("http://", "https://")) and not is_git_source(source):
            raise BuildError("checksum requires HTTP(S) or Git sources")


def lower_copy(
    command: Command, instruction: CopyInstruction | AddInstruction, state: StageState, scope: Scope
) -> None:
    """Add the vertex (or, with --link, the two vertices) of one COPY or ADD and make it the stage's root."""
    assert state.image is not None
    lowering = _CopyLowering(instruction, state, scope)
    lowering.check_checksum()
    shown = lowering.add_sources(_source_vertex(command, instruction, state, scope))
    name = state.step_name(scope.shown(instruction.original, state.env, raw=False), on_build=command.on_build)
    op = FileOp(tuple(lowering.actions))
    common = (state.name, command.location)
    if instruction.link and not lowering.chmod:
        layer = scope.add(Vertex(op, (SCRATCH, *lowering.inputs), name, *common, no_cache=state.no_cache))
        state.vertex = scope.add(Vertex(MergeOp(), (state.vertex, layer), f"LINK {name}", *common, internal=True))
    else:
        state.vertex = scope.add(Vertex(op, (state.vertex, *lowering.inputs), name, *common, no_cache=state.no_cache))
    state.image.commit(lowering.history(shown), layer=True)


def _source_vertex(
    command: Command, instruction: CopyInstruction | AddInstruction, state: StageState, scope: Scope
) -> int:
    if not command.sources or command.sources[0] is None:
        needed = any(not text.startswith(("http://", "https://")) for text in instruction.sources)
        return scope.local(LocalSourceOp("context")) if needed else SCRATCH
    source = command.sources[0]
    if not source.dispatched:
        raise BuildError(
            f'cannot copy from stage "{source.name or source.base_name}", it needs to be defined before current stage '
            f'"{state.label}"'
        )
    return source.vertex


def _split_parents(text: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """`--parents`: the directory before a `/./` pivot, the pattern below it, and the path that has to exist."""
    parent, pivot, pattern = text.partition("/./")
    if not pivot:
        parent, pattern = "/", text
    absolute = Scope.join("/", pattern)
    required: tuple[str, ...] = ()
    if not has_wildcards(parent) and not has_wildcards(pattern):
        required = (Scope.join("/", posixpath.normpath(posixpath.join(parent, absolute.lstrip("/")))),)
    return parent, (absolute.removeprefix("/"),), required


def has_wildcards(name: str) -> bool:
    """Whether a path holds `*`, `?` or `[` that no backslash takes the meaning from."""
    escaped = False
    for char in name:
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char in "*?[":
            return True
    return False


def is_git_source(text: str) -> bool:
    """Whether an ADD source names a git repository (Dockerfile reference, ADD: private and public git)."""
    if text.startswith(_GIT_PREFIXES):
        return True
    if text.startswith(("http://", "https://")):
        return urlsplit(text).path.split("#")[0].endswith(".git")
    return text.startswith("github.com/")
