"""COPY and ADD lowered to copy actions, with `--link` as a layer of its own.

Source: Dockerfile reference, COPY and ADD; BuildKit's behaviour for wildcards, URLs, git, heredocs and history.
"""

from __future__ import annotations

import contextlib
from typing import Any

from builder import gofmt, workpath
from builder.errors import BuildError
from builder.ops.wildcard import has_wildcard
from builder.plan import (
    SCRATCH,
    CopyAction,
    FileOp,
    LocalSourceOp,
    MergeOp,
    MkfileAction,
    Vertex,
)
from builder.redact import redact
from builder.remote import git_ref, git_source, http_source, is_url
from builder.step import Step
from grammar import rules
from grammar.errors import DockerfileError
from grammar.gitref import GitRef, parse_git_ref
from grammar.nodes import AddInstruction, CopyInstruction, SourceContent
from grammar.values import parse_chmod

_EVERYTHING = ("*", "**", "**/*")


class _CopyLowering:
    """One COPY or ADD: expands its words, then collects its actions and the inputs that they read."""

    def __init__(self, instruction: CopyInstruction | AddInstruction, step: Step) -> None:
        self.instruction = instruction
        self.step = step
        self.is_add = isinstance(instruction, AddInstruction)
        self.chown = step.word(instruction.chown)
        self.chmod = step.word(instruction.chmod)
        self.checksum = step.word(instruction.checksum) if isinstance(instruction, AddInstruction) else ""
        self.sources = [step.word(source) for source in instruction.sources]
        self.dest = step.word(instruction.dest)
        self.contents = [
            content._replace(data=step.body(content.data)) if content.expand else content
            for content in instruction.contents
        ]
        self.target = workpath.destination(step.state.cwd, self.dest, step.state.system)
        self.inputs: list[int] = []
        self.actions: list[CopyAction] = []
        if self.chmod:
            parse_chmod(self.chmod)

    def _input(self, vertex: int) -> int:
        """The index, among the vertex's inputs, of what a copy reads; the root is input 0."""
        if vertex == SCRATCH:
            return SCRATCH
        if vertex not in self.inputs:
            self.inputs.append(vertex)
        return self.inputs.index(vertex) + 1

    def _add(self, vertex: int, source: str, *, is_literal: bool = True, **options: Any) -> None:
        """One action; a literal source is a name, not a pattern, and a directory is copied as such."""
        action = CopyAction(
            self._input(vertex), source, self.target, exclude_patterns=self.instruction.exclude, chmod=self.chmod
        )
        if is_literal:
            action = action._replace(follow_symlinks=False, dir_contents_only=False, allow_wildcard=False)
        self.actions.append(action._replace(chown=self.chown, **options))

    def check_checksum(self) -> None:
        """`--checksum` wants exactly one source, and that from elsewhere."""
        if not self.checksum:
            return
        if len(self.sources) != 1:
            raise BuildError("checksum can't be specified for multiple sources")
        if not is_url(self.sources[0]) and git_ref(self.sources[0]) is None:
            raise BuildError("checksum requires HTTP(S) or Git sources")

    def add_sources(self, source: int) -> str:
        """Add an action for every source; returns the sources as the history shows them."""
        for text in self.sources:
            ref = parse_git_ref(text)
            if ref is not None and not ref.is_like_local:
                self._add_git(ref)
            elif is_url(text):
                self._add_url(text)
            else:
                self._check_ignored(text)
                self._add_path(text, source)
        for content in self.contents:
            self._add_content(content)
        shown = [*(f" {redact(text)}" for text in self.sources), *(f" <<{content.path}" for content in self.contents)]
        return "".join(shown)

    def _add_git(self, ref: GitRef) -> None:
        if not isinstance(self.instruction, AddInstruction):
            raise BuildError("source can't be a git ref for COPY", hint="ADD takes git repositories")
        op = git_source(ref, self.checksum, keep_git_dir=self.instruction.keep_git_dir)
        self._add(self.step.add_internal(op, (), f"[internal] fetch {redact(ref.remote)}"), "/")

    def _add_url(self, url: str) -> None:
        if not isinstance(self.instruction, AddInstruction):
            raise BuildError("source can't be a URL for COPY", hint="ADD takes URLs")
        from builder.ops.fetch import redacted

        op = http_source(url, self.checksum)
        state, location = self.step.state, self.step.command.location
        vertex = self.step.scope.add(Vertex(op, (), f"[internal] fetch {redacted(url)}", state.name, location))
        self._add(vertex, op.filename, attempt_unpack=bool(self.instruction.unpack))

    def _check_ignored(self, text: str) -> None:
        """A source that .dockerignore leaves out; exceptions in it make this too hard to tell."""
        matcher = self.step.scope.checks.ignored
        if self.step.command.sources or matcher is None or matcher.has_exceptions:
            return
        path = workpath.clean(text)
        if path in (".", "/") and not any(pattern.text in _EVERYTHING for pattern in matcher.patterns):
            return
        with contextlib.suppress(DockerfileError):
            if matcher.ignores(path):
                verb = "Add" if self.is_add else "Copy"
                self.step.report(rules.COPY_IGNORED_FILE, verb, gofmt.quote(path), subject=text)

    def _add_path(self, text: str, source: int) -> None:
        unpack = self.is_add
        if isinstance(self.instruction, AddInstruction) and self.instruction.unpack is not None:
            unpack = self.instruction.unpack
        system = self.step.state.system
        patterns: tuple[str, ...] = ()
        required: tuple[str, ...] = ()
        if isinstance(self.instruction, CopyInstruction) and self.instruction.parents:
            text, patterns, required = _split_parents(text, system)
        self._add(
            source,
            workpath.absolute("/", text, system),
            is_literal=False,
            attempt_unpack=unpack,
            include_patterns=patterns,
            required_paths=required,
        )

    def _add_content(self, content: SourceContent) -> None:
        op = FileOp((MkfileAction("/" + content.path, content.data),))
        self._add(
            self.step.add_internal(op, (SCRATCH,), "[internal] preparing inline document"),
            workpath.without_drive(content.path, self.step.state.system),
        )

    def history(self, shown: str) -> str:
        """The history line: keyword, the flags that it shows, sources, destination."""
        parts = ["ADD" if self.is_add else "COPY"]
        if isinstance(self.instruction, CopyInstruction) and self.instruction.parents:
            parts.append("--parents")
        parts += [f"--chown={self.chown}"] if self.chown else []
        parts += [f"--chmod={self.chmod}"] if self.chmod else []
        return f"{' '.join(parts)}{shown} {self.dest} # buildkit"


def lower_copy(instruction: CopyInstruction | AddInstruction, step: Step) -> None:
    """Add the vertex (or, with --link, the two vertices) of one COPY or ADD and make it the stage's root."""
    state = step.state
    lowering = _CopyLowering(instruction, step)
    source = _source_vertex(lowering, step)
    lowering.check_checksum()
    shown = lowering.add_sources(source)
    name = step.name(redact(step.scope.shown(instruction.original, state.env, raw=False)))
    op = FileOp(tuple(lowering.actions))
    if instruction.link and not lowering.chmod:
        layer = step.add(op, (SCRATCH, *lowering.inputs), name)
        state.vertex = step.add_internal(MergeOp(), (state.vertex, layer), f"LINK {name}")
    else:
        state.vertex = step.add(op, (state.vertex, *lowering.inputs), name)
    step.image.commit(lowering.history(shown), layer=True)


def _source_vertex(lowering: _CopyLowering, step: Step) -> int:
    """What the paths among the sources are in: another stage, an image, or the context."""
    if not step.command.sources or step.command.sources[0] is None:
        needed = any(not is_url(text) for text in lowering.sources)
        return step.scope.local(LocalSourceOp("context")) if needed else SCRATCH
    source = step.command.sources[0]
    if not source.dispatched:
        raise BuildError(
            f'cannot copy from stage "{source.name or source.base_name}", it needs to be defined before current stage '
            f'"{step.state.label}"'
        )
    return source.vertex


def _split_parents(text: str, system: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """`--parents`: the directory before a `/./` pivot, the pattern below it, and the path that has to exist."""
    parent, pivot, pattern = text.partition("/./")
    if not pivot:
        parent, pattern = "/", text
    pattern = workpath.absolute("/", pattern, system)
    required: tuple[str, ...] = ()
    if not has_wildcard(parent) and not has_wildcard(pattern):
        required = (workpath.absolute("/", workpath.clean(f"{parent}/{pattern}"), system),)
    return parent, (pattern.removeprefix("/"),), required
