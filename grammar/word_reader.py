"""One pass over one text of a Dockerfile: the lexing behind `words.Lexer`.

Substitutions nest without a limit, so a reader is a set of generators that a small loop runs: a generator yields the
part to lex next and is sent its text. It knows no instruction.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from grammar import expand
from grammar.characters import quoted, replace_undecodable, split_spaces
from grammar.errors import DockerfileError

Part = Generator[Any, str, str]
"""Lexes one part and returns its text; yields the parts inside it."""

_SPECIAL_PARAMETERS = frozenset("@*#?-$!0")
_SPECIAL = re.compile(r"""[$'"\\`<]""")
_HEREDOC_MARK = re.compile(r"<(?:<[\t\r ]*)?")


class LexerOptions(NamedTuple):
    """The escape token and the switches of a lexer."""

    escape: str = "\\"
    raw_quotes: bool = False
    raw_escapes: bool = False
    skip_process_quotes: bool = False
    skip_unset_env: bool = False


class WordReader:
    """The state of lexing one text."""

    def __init__(self, options: LexerOptions, word: str, env: Mapping[str, str]) -> None:
        self.options = options
        self.source = word
        self.text = replace_undecodable(word).removeprefix("\ufeff")
        self.position = 0
        self.env = env
        self.raw_escapes = options.raw_escapes
        self.words: list[str] = []
        self.matched: set[str] = set()
        self.unmatched: set[str] = set()
        self.partial = ""
        """The word being built. One buffer for all levels: a nested part starts it afresh, and what stood in it is
        lost from the split, though not from the whole text."""

    def read(self) -> str:
        """The expanded text; fills `words`."""
        if not _SPECIAL.search(self.text):
            self.words = [word for word in split_spaces(self.text) if word]
            return self.text
        try:
            return _run(self.scan("", self.raw_escapes, self.words))
        except DockerfileError as error:
            error.message = f"{error.message} in {quoted(self.source)}"
            error.subject = error.subject or self.source
            raise

    def peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def next(self) -> str:
        char = self.peek()
        self.position += 1
        return char

    def take(self, pattern: re.Pattern[str]) -> str:
        """The text that `pattern` matches here; moves behind it."""
        match = pattern.match(self.text, self.position)
        if match is None:
            return ""
        self.position = match.end()
        return match.group()

    def scan(self, stop: str, raw_escapes: bool, words: list[str]) -> Part:
        """Everything up to `stop`, which is consumed, or to the end if `stop` is empty."""
        outer_raw_escapes, self.raw_escapes = self.raw_escapes, raw_escapes
        self.partial = ""
        plain = _plain(stop + self.options.escape + ("" if self.options.skip_process_quotes else "'\""))
        result: list[str] = []
        while char := self.peek():
            if char == stop:
                break
            if chunk := self.take(plain):
                self.split(chunk, words)
            elif char == "$":
                chunk = yield self.dollar()
                self.split(chunk, words)
            elif char == self.options.escape:
                chunk = self.escaped(words)
            else:
                chunk = self.heredoc_mark() if char == "<" else (yield self.quotes(char))
                self.partial += chunk
            result.append(chunk)
        if stop and not char:
            raise DockerfileError(f"matching {stop} is missing")
        self.position += len(stop)
        self.flush(words)
        self.raw_escapes = outer_raw_escapes
        return "".join(result)

    def split(self, chunk: str, words: list[str]) -> None:
        """Add text whose white space separates words."""
        first, *others = split_spaces(replace_undecodable(chunk))
        self.partial += first
        for other in others:
            self.flush(words)
            self.partial = other

    def flush(self, words: list[str]) -> None:
        if self.partial:
            words.append(self.partial)
            self.partial = ""

    def escaped(self, words: list[str]) -> str:
        """The escape token and the character after it; at the end of the text the token alone vanishes."""
        token = self.next()
        char = self.next()
        kept = token if self.raw_escapes else ""
        self.partial += kept + char
        return kept + char

    def heredoc_mark(self) -> str:
        """`<`, or `<<` with the white space behind it, which does not end the word."""
        return self.take(_HEREDOC_MARK)

    def quotes(self, quote: str) -> Part:
        self.position += 1
        chunk = self.single_quotes() if quote == "'" else (yield self.double_quotes())
        return quote + chunk + quote if self.options.raw_quotes else chunk

    def single_quotes(self) -> str:
        end = self.text.find("'", self.position)
        if end < 0:
            self.position = len(self.text)
            raise DockerfileError("matching single quote is missing")
        chunk, self.position = self.text[self.position : end], end + 1
        return chunk

    def double_quotes(self) -> Part:
        """Only `$` is special; the escape token escapes itself, `"` and `$`."""
        plain = _plain('"' + self.options.escape, heredocs=False)
        result: list[str] = []
        while (char := self.peek()) != '"':
            if not char:
                raise DockerfileError("matching double quote is missing")
            if chunk := self.take(plain):
                result.append(chunk)
            elif char == "$":
                result.append((yield self.dollar()))
            else:
                result.append(self.escaped_in_quotes())
        self.position += 1
        return "".join(result)

    def escaped_in_quotes(self) -> str:
        token = self.next()
        kept = token if self.raw_escapes else ""
        char = self.peek()
        if not char:
            return kept
        return kept + (self.next() if char in ('"', "$", token) else token)

    def dollar(self) -> Part:
        """`$name`, or the start of `${`."""
        self.position += 1
        if self.peek() == "{":
            self.position += 1
            return (yield self.braces())
        name = self.name()
        if not name:
            return "$"
        value = self.lookup(name)
        return f"${name}" if value is None and self.options.skip_unset_env else value or ""

    def braces(self) -> Part:
        """What stands between `${` and `}`."""
        first = self.peek()
        if not first:
            raise DockerfileError("matching } is missing")
        if first in "{}:":
            raise DockerfileError(f"substitution ${{{first} is not valid")
        name = self.name()
        modifier = self.next()
        if modifier == "}":
            value = self.lookup(name)
            return f"${{{name}}}" if value is None and self.options.skip_unset_env else value or ""
        if modifier == ":":
            modifier += self.next()
        elif modifier == "/":
            return (yield self.replacement(name))
        if modifier in ("+", "-", "?", "#", "%") or (modifier[:1] == ":" and modifier not in (":#", ":%")):
            return (yield self.alternative(name, modifier))
        raise DockerfileError(f"modifier {quoted(modifier or '(end)')} is not supported")

    def enclosed(self, stop: str, raw_escapes: bool) -> Part:
        """Text inside braces up to `stop`. When the text ends first, that is the error, whatever came of it."""
        try:
            return (yield self.scan(stop, raw_escapes, []))
        except DockerfileError as error:
            if not self.peek():
                error.message = f"matching {stop} is missing"
            raise

    def alternative(self, name: str, modifier: str) -> Part:
        """`:-`, `-`, `:+`, `+`, `:?`, `?`, `#` and `%` with the word that follows."""
        word = yield self.enclosed("}", modifier in ("#", "%"))
        value = self.lookup(name)
        if value is None and self.options.skip_unset_env:
            return f"${{{name}{modifier}{word}}}"
        absent = value is None or (modifier[0] == ":" and not value)
        match modifier[-1]:
            case "-":
                return word if absent else value or ""
            case "+":
                return "" if absent else word
            case "?":
                if absent:
                    state = "unset" if value is None else "empty"
                    raise DockerfileError(f"{name}: {word or f'is not allowed to be {state}'}")
                return value or ""
            case "#" | "%":
                return _trimmed(value or "", word, modifier)
        raise DockerfileError(f"modifier {quoted(modifier)} is not supported")

    def replacement(self, name: str) -> Part:
        """`/pattern/text` and `//pattern/text`."""
        every = self.peek() == "/"
        self.position += every
        pattern = yield self.enclosed("/", True)
        text = yield self.enclosed("}", True)
        value = self.lookup(name)
        if value is None and self.options.skip_unset_env:
            return f"${{{name}/{pattern}/{text}}}"
        replace = expand.replace_all if every else expand.replace_first
        return replace(value or "", pattern, text)

    def name(self) -> str:
        """A run of digits, one special parameter, or letters, digits and underscores; maybe empty."""
        start = self.position
        if self.peek() in _SPECIAL_PARAMETERS and not self.peek().isdecimal():
            return self.next()
        digits_only = self.peek().isdecimal()
        while (char := self.peek()).isdecimal() or (not digits_only and (char.isalpha() or char == "_")):
            self.position += 1
        return self.text[start : self.position]

    def lookup(self, name: str) -> str | None:
        value = self.env.get(name)
        (self.unmatched if value is None else self.matched).add(name)
        return value


@lru_cache
def _plain(stops: str, *, heredocs: bool = True) -> re.Pattern[str]:
    """Runs of characters that mean themselves."""
    return re.compile("[^$" + ("<" if heredocs else "") + re.escape(stops) + "]+")


def _trimmed(value: str, pattern: str, modifier: str) -> str:
    greedy = pattern.startswith(modifier)
    trim = expand.trim_suffix if modifier == "%" else expand.trim_prefix
    return trim(value, pattern[1:] if greedy else pattern, greedy=greedy)


def _run(part: Part) -> str:
    """Runs `part` and every part that it asks for, on a list instead of the interpreter's stack."""
    stack: list[Part] = [part]
    text: str | None = None
    error: DockerfileError | None = None
    while stack:
        try:
            if error is not None:
                inner = stack[-1].throw(error)
            else:
                inner = next(stack[-1]) if text is None else stack[-1].send(text)
        except StopIteration as finished:
            stack.pop()
            text, error = finished.value, None
        except DockerfileError as failure:
            stack.pop()
            text, error = None, failure
        else:
            stack.append(inner)
            text, error = None, None
    if error is not None:
        raise error
    return text or ""
