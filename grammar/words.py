"""Words of a Dockerfile: quotes, escapes, `$name`, `${name...}`, and splitting into words.

It follows the shell where Dockerfiles do, which is not everywhere. It knows no instruction, and it must stay cheap
to import: expansion is on the way of every build.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from grammar.word_reader import LexerOptions, WordReader


class WordMatches(NamedTuple):
    """An expanded word with the names that it looked up: found in the environment, and not."""

    result: str
    matched: frozenset[str]
    unmatched: frozenset[str]


class Lexer:
    """Expands words. The switches keep quotes and escapes in the result, give quotes no meaning, or leave unset
    variables as they are written; all are off for instructions and on in parts for heredocs and history."""

    def __init__(
        self,
        escape: str = "\\",
        *,
        raw_quotes: bool = False,
        raw_escapes: bool = False,
        skip_process_quotes: bool = False,
        skip_unset_env: bool = False,
    ) -> None:
        self._options = LexerOptions(escape, raw_quotes, raw_escapes, skip_process_quotes, skip_unset_env)

    def process_word(self, word: str, env: Mapping[str, str], unset: set[str] | None = None) -> str:
        """`word` expanded, as one string; names that `env` has not are added to `unset`, whatever comes of it.
        Raises DockerfileError for a quote, a brace or a modifier that is wrong."""
        reader = WordReader(self._options, word, env)
        try:
            return reader.read()
        finally:
            if unset is not None:
                unset |= reader.unmatched

    def process_words(self, word: str, env: Mapping[str, str]) -> list[str]:
        """`word` expanded and then split at white space outside quotes; quoted empty strings make no word."""
        reader = WordReader(self._options, word, env)
        reader.read()
        return reader.words

    def process_word_with_matches(self, word: str, env: Mapping[str, str]) -> WordMatches:
        """As `process_word`, with the names that were looked up."""
        reader = WordReader(self._options, word, env)
        result = reader.read()
        return WordMatches(result, frozenset(reader.matched), frozenset(reader.unmatched))
