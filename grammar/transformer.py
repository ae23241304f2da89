"""Tokens of the line grammar -> plain Python values; one method per rule of dockerfile.lark.

It runs while lark parses, so no tree is built. It knows no keyword.
"""

from __future__ import annotations

from typing import NamedTuple

from lark import Token, Transformer

from grammar.characters import WHITE_SPACE, replace_undecodable
from grammar.flags import unquote_flag
from grammar.json_form import decode_strings


class Head(NamedTuple):
    """A logical line cut in three, as bytes; `rest` is untrimmed."""

    keyword: str
    flags: tuple[str, ...]
    rest: str


class Words(NamedTuple):
    """Arguments, and whether they were a JSON list."""

    args: tuple[str, ...]
    json: bool = False


class LineTransformer(Transformer[Token, object]):
    """Builds the value of each rule; `escape` is the token of the grammar that it serves."""

    def __init__(self, escape: str) -> None:
        super().__init__(visit_tokens=False)
        self.escape = escape

    def head(self, tokens: list[Token]) -> Head:
        flags = tuple(unquote_flag(token, self.escape) for token in tokens if token.type == "FLAG")
        rest = tokens[-1]
        if rest.type != "REST":
            return Head(str(tokens[0]), flags, "")
        return Head(str(tokens[0]), flags, str(rest))

    def health(self, tokens: list[Token]) -> tuple[str, str]:
        return str(tokens[0]), str(tokens[1]) if len(tokens) > 1 else ""

    def no_type(self, _tokens: list[Token]) -> None:
        return None

    def words(self, tokens: list[Token]) -> Words:
        return Words(tuple(str(token) for token in tokens))

    def text(self, tokens: list[Token]) -> Words:
        return Words((str(tokens[0]),))

    def json(self, tokens: list[Token]) -> Words:
        return Words(decode_strings(tokens[0].strip(WHITE_SPACE)), json=True)

    def names(self, tokens: list[Token]) -> list[str]:
        return [replace_undecodable(token) for token in tokens]

    pairs = names

    def legacy_pair(self, tokens: list[Token]) -> str:
        return str(tokens[0])
