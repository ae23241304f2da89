"""COPY and ADD, typed: sources and destination, heredocs among the sources, flags."""

from __future__ import annotations

from typing import Any

from grammar import nodes
from grammar.characters import quoted
from grammar.errors import DockerfileError
from grammar.flags import FlagKind, FlagValues, parse_flags
from grammar.heredoc import chomp, is_heredoc
from grammar.instruction_common import common

_FILE_FLAGS = {
    "chown": FlagKind.TEXT,
    "chmod": FlagKind.TEXT,
    "link": FlagKind.BOOLEAN,
    "exclude": FlagKind.TEXTS,
}
_COPY_FLAGS = {**_FILE_FLAGS, "from": FlagKind.TEXT, "parents": FlagKind.BOOLEAN}
_ADD_FLAGS = {
    **_FILE_FLAGS,
    "keep-git-dir": FlagKind.BOOLEAN,
    "checksum": FlagKind.TEXT,
    "unpack": FlagKind.BOOLEAN,
}


def build_copy(node: nodes.AstNode) -> nodes.CopyInstruction:
    """COPY. Raises DockerfileError."""
    _needs_destination(node)
    flags = parse_flags(node.flags, _COPY_FLAGS)
    return nodes.CopyInstruction(
        **_shared(node, flags),
        from_=flags.text("from"),
        parents=flags.is_true("parents"),
    )


def build_add(node: nodes.AstNode) -> nodes.AddInstruction:
    """ADD. Raises DockerfileError."""
    _needs_destination(node)
    flags = parse_flags(node.flags, _ADD_FLAGS)
    return nodes.AddInstruction(
        **_shared(node, flags),
        checksum=flags.text("checksum"),
        keep_git_dir=flags.boolean("keep-git-dir"),
        unpack=flags.boolean("unpack"),
    )


def _shared(node: nodes.AstNode, flags: FlagValues) -> dict[str, Any]:
    """What COPY and ADD have in common."""
    sources, contents = _sources(node)
    return {
        **common(node),
        "sources": sources,
        "dest": node.args[-1],
        "contents": contents,
        "chown": flags.text("chown"),
        "chmod": flags.text("chmod"),
        "link": flags.is_true("link"),
        "exclude": flags.texts("exclude"),
    }


def _needs_destination(node: nodes.AstNode) -> None:
    if len(node.args) < 2:
        raise DockerfileError(
            f"{node.keyword} requires at least two arguments, a source and a destination, got {len(node.args)}"
        )


def _sources(node: nodes.AstNode) -> tuple[tuple[str, ...], tuple[nodes.SourceContent, ...]]:
    """The paths and the heredocs among the sources. Of two heredocs with one name, both get the last body."""
    if is_heredoc(node.args[-1]):
        raise DockerfileError(
            f"{node.keyword} destination {quoted(node.args[-1])} is a heredoc, expected a path", subject=node.args[-1]
        )
    bodies = {heredoc.name: heredoc.content for heredoc in node.heredocs}
    paths: list[str] = []
    contents: list[nodes.SourceContent] = []
    for word in node.args[:-1]:
        heredoc = is_heredoc(word)
        if heredoc is None:
            paths.append(word)
        else:
            body = bodies.get(heredoc.name, "")
            contents.append(nodes.SourceContent(heredoc.name, chomp(body) if heredoc.chomp else body, heredoc.expand))
    return tuple(paths), tuple(contents)
