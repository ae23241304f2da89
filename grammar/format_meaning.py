"""What a Dockerfile says apart from its layout: two files with equal meanings build the same.

Equal are keywords (upper case), flags, arguments, the JSON form, heredocs, attached comments, directives and the escape
token. Blanks of shell text count as one where they are not quoted, as the shell counts them; places, the case of
keywords, blank lines and comments inside an instruction do not count.
"""

from __future__ import annotations

from typing import Any

from grammar.format_quotes import collapsed
from grammar.nodes import Ast, AstNode

SHELL_TEXT = frozenset(("RUN", "CMD", "ENTRYPOINT", "HEALTHCHECK"))
POSIX_SHELLS = frozenset(("sh", "ash", "bash", "dash", "ksh", "mksh", "zsh", "busybox"))


def meaning(ast: Ast) -> tuple[Any, ...]:
    """A value that is equal for files of equal meaning."""
    posix = has_posix_shell(ast)
    directives = tuple((directive.name, directive.value) for directive in ast.directives)
    syntax = (ast.syntax.ref, ast.syntax.cmdline) if ast.syntax else None
    return (ast.escape, directives, syntax, tuple(node_meaning(node, posix=posix) for node in ast.nodes))


def node_meaning(node: AstNode, *, posix: bool) -> tuple[Any, ...]:
    """The meaning of one instruction; `posix` tells whether the quoting of its shell text is known."""
    args = node.args
    if node.keyword in SHELL_TEXT and not node.json and posix:
        args = tuple(collapsed(arg, "shell", "\\") for arg in args)
    if node.keyword == "FROM" and len(args) == 3:
        args = (args[0], args[1].upper(), args[2])
    if node.keyword == "HEALTHCHECK" and args:
        args = (args[0].upper(), *args[1:])
    return (
        node.keyword or node.instr,
        node.flags,
        args,
        node.json,
        node.heredocs,
        node.comments,
        node_meaning(node.child, posix=posix) if node.child else None,
    )


def has_posix_shell(ast: Ast) -> bool:
    """Whether shell text is quoted as POSIX shells quote, as far as the file tells: a backtick as escape token, or a
    SHELL of another kind, say that it is not."""
    shells = [node.args[0] for node in ast.nodes if node.keyword == "SHELL" and node.args]
    names = {shell.rpartition("/")[2] for shell in shells}
    return ast.escape == "\\" and names <= POSIX_SHELLS
