"""What the fuzzer feeds: one function per language, from bytes to nothing; a defect is any exception it lets out.

Knows no fuzzer, so that the suite runs the kept findings without one.
"""

from __future__ import annotations

from collections.abc import Callable

from grammar.directives import detect_syntax, read_directives
from grammar.errors import DockerfileError
from grammar.format import format_dockerfile
from grammar.ignore import IgnoreMatcher, read_patterns
from grammar.mount_flag import parse_device, parse_mount
from grammar.nodes import Dockerfile
from grammar.platforms import Platform, normalize, parse_platform
from grammar.ports import split_port
from grammar.reference import parse_reference
from grammar.stages import parse, parse_trigger
from grammar.values import parse_chmod, parse_duration, parse_size
from grammar.words import Lexer

ENV = {"a": "b a/b*", "b": "", "ab": "x$y\\z", "PATH": "/bin:/usr/bin"}
HOST = Platform("linux", "amd64")


def fuzz_parser(source: bytes) -> None:
    """A whole Dockerfile, and the same bytes as a trigger."""
    detect_syntax(source)
    read_directives(source)
    try:
        assert isinstance(parse(source), Dockerfile)
    except DockerfileError as error:
        assert error.lines, "an error without a place"
        error.render().encode()
    try:
        parse_trigger(_text(source))
    except DockerfileError as error:
        assert error.lines, "an error without a place"


def fuzz_format(source: bytes) -> None:
    """A Dockerfile's canonical form: it exists, it means the same (the formatter checks), and it is its own."""
    try:
        formatted = format_dockerfile(source)
    except DockerfileError:
        return
    assert format_dockerfile(formatted) == formatted, "the canonical form has another canonical form"


def fuzz_words(source: bytes) -> None:
    """A word; the first byte holds the lexer's switches."""
    switches = source[0] if source else 0
    lexer = Lexer(
        "`" if switches & 1 else "\\",
        raw_quotes=bool(switches & 2),
        raw_escapes=bool(switches & 4),
        skip_process_quotes=bool(switches & 8),
        skip_unset_env=bool(switches & 16),
    )
    word = _text(source[1:])
    result: str | None = None
    try:
        result = lexer.process_word(word, ENV)
        result.encode()
    except DockerfileError as error:
        assert error.message
    try:
        words = lexer.process_words(word, ENV)
    except DockerfileError:
        assert result is None, "split fails where the whole does not"
    else:
        assert result is not None, "the whole fails where split does not"
        assert all(words)


def fuzz_ignore(source: bytes) -> None:
    """An ignore file, a NUL, and the paths to ask, one per line. Without exceptions, walking to a path and
    asking for it agree; with them the walk has never looked at an exception for what is not ignored so far."""
    text, _, rest = source.partition(b"\0")
    paths = [path.strip("/") for path in _text(rest).split("\n")[:10]]
    try:
        matcher = IgnoreMatcher(read_patterns(text))
        for path in filter(None, paths):
            _walk_to(matcher, path)
    except DockerfileError as error:
        assert error.message


def _walk_to(matcher: IgnoreMatcher, path: str) -> None:
    state = None
    may_hold = True
    for end in [index for index, char in enumerate(path) if char == "/"]:
        is_ignored, state = matcher.match(path[:end], state)
        may_hold = may_hold and (not is_ignored or matcher.may_have_exceptions_below(path[:end]))
    is_ignored, _ = matcher.match(path, state)
    if "//" not in path and not matcher.has_exceptions:
        assert matcher.ignores(path) == is_ignored, "walking to a path and asking for it differ"
    assert is_ignored or may_hold, "a walker would not have come to a path that is kept"


def fuzz_references(source: bytes) -> None:
    """An image reference, and the other small values that share its alphabet."""
    text = _text(source)
    readers: tuple[Callable[[], object], ...] = (
        lambda: _reference(text),
        lambda: str(normalize(parse_platform(text, HOST))),
        lambda: split_port(text).ports(),
        lambda: parse_mount(text, str),
        lambda: parse_mount(text, None),
        lambda: parse_device(text),
        lambda: parse_duration(text),
        lambda: parse_size(text),
        lambda: parse_chmod(text),
    )
    for read in readers:
        try:
            read()
        except DockerfileError as error:
            assert error.message


def _reference(text: str) -> None:
    reference = parse_reference(text)
    assert parse_reference(str(reference)) == reference, "a complete reference means something else"
    for short in (reference.familiar, str(reference.with_default_tag()), str(reference.pinned())):
        assert short


def _text(source: bytes) -> str:
    return source.decode("utf-8", "surrogateescape")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "parser": fuzz_parser,
    "format": fuzz_format,
    "words": fuzz_words,
    "ignore": fuzz_ignore,
    "references": fuzz_references,
}
