"""What the builders of typed instructions share: the common fields, and checks of the number of arguments."""

from __future__ import annotations

from typing import TypedDict

from grammar import nodes
from grammar.characters import trim
from grammar.errors import DockerfileError
from grammar.flags import FlagKind
from grammar.position import Range

NO_FLAGS: dict[str, FlagKind] = {}


class Common(TypedDict):
    keyword: str
    name: str
    original: str
    range: Range
    flags: tuple[str, ...]
    comments: tuple[str, ...]


def common(node: nodes.AstNode) -> Common:
    """The fields that every instruction has."""
    return {
        "keyword": node.keyword,
        "name": node.instr,
        "original": trim(node.original),
        "range": node.range,
        "flags": node.flags,
        "comments": node.comments,
    }


def needs_arguments(node: nodes.AstNode) -> None:
    """Raises DockerfileError if there are none."""
    if not node.args:
        raise DockerfileError(f"{node.keyword} requires at least one argument", subject=node.instr)


def one_argument(node: nodes.AstNode) -> str:
    """The only argument. Raises DockerfileError if there is none."""
    if len(node.args) != 1:
        raise DockerfileError(f"{node.keyword} requires exactly one argument", subject=node.instr)
    return node.args[0]
