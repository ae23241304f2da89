"""Any bytes give a Dockerfile or a DockerfileError, and nothing else."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from grammar.directives import detect_syntax, read_directives
from grammar.errors import DockerfileError
from grammar.ignore import IgnoreMatcher, read_patterns
from grammar.mount_flag import parse_mount
from grammar.nodes import Dockerfile, Instruction
from grammar.platforms import Platform, normalize, parse_platform
from grammar.ports import split_port
from grammar.reference import parse_reference
from grammar.stages import parse, parse_trigger
from grammar.values import parse_chmod, parse_duration, parse_size
from grammar.words import Lexer

KEYWORDS = "FROM RUN COPY ADD ENV LABEL ARG CMD ENTRYPOINT SHELL EXPOSE VOLUME USER WORKDIR ONBUILD HEALTHCHECK NOPE"
PIECES = st.sampled_from(
    [
        *KEYWORDS.split(),
        "STOPSIGNAL",
        "MAINTAINER",
        "alpine",
        "AS",
        "a=b",
        "--from=x",
        "--mount=type=cache",
        "--link",
        "--",
        "<<EOF",
        "<<-'E'",
        "EOF",
        "E",
        '["a"]',
        "[1]",
        '["',
        "\\",
        "`",
        "'",
        '"',
        "#",
        "# escape=`",
        "$x",
        "${",
        "\n",
        "\n",
        "\r\n",
        "\t",
        "\xa0",
        "\udcff",
        "\x00",
        "CMD",
        "NONE",
        "--interval=1s",
        "=",
        " ",
    ]
)
LINES = st.lists(PIECES, max_size=40).map(lambda pieces: "FROM a\n" + " ".join(pieces))
SHELL_TEXT = st.text(alphabet=st.sampled_from("ab$ {}:-+?#%/*\\'\"`<=^_0\n\u00a0\udc80é"), max_size=40)
ENV = {"a": "b a/b*", "b": "", "ab": "x$y\\z"}


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def check_parse(source: bytes) -> None:
    try:
        assert isinstance(parse(source), Dockerfile)
    except DockerfileError as error:
        assert error.lines
        error.render().encode()


@given(st.binary(max_size=200))
@example(b"\\")
@example(b"\xef\xbb\xbf")
@example(b"FROM a\nHEALTHCHECK -- \xa0x")
@example(b"FROM a\nCOPY --x\x85\xa0 \xc2\xa0")
def test_any_bytes_parse_or_are_refused(source: bytes) -> None:
    check_parse(source)
    detect_syntax(source)
    read_directives(source)


@given(LINES)
def test_any_lines_of_keywords_parse_or_are_refused(text: str) -> None:
    check_parse(encoded(text))


@given(LINES)
def test_any_trigger_parses_or_is_refused(text: str) -> None:
    try:
        assert isinstance(parse_trigger(text.removeprefix("FROM a\n")), Instruction)
    except DockerfileError as error:
        assert error.lines


@given(LINES)
def test_parsing_twice_gives_equal_trees(text: str) -> None:
    try:
        assert parse(encoded(text)) == parse(encoded(text))
    except DockerfileError:
        return


@given(SHELL_TEXT, st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_any_word_is_lexed_or_refused(word: str, quotes: bool, escapes: bool, no_quotes: bool, unset: bool) -> None:
    lexer = Lexer(raw_quotes=quotes, raw_escapes=escapes, skip_process_quotes=no_quotes, skip_unset_env=unset)
    try:
        result = lexer.process_word(word, ENV)
    except DockerfileError:
        result = None
    try:
        words = lexer.process_words(word, ENV)
    except DockerfileError:
        assert result is None
    else:
        assert result is not None
        assert all(words)


@given(st.text(alphabet=st.characters(blacklist_characters="$'\"\\<\ufeff", blacklist_categories=["Cs"])))
def test_a_word_without_marks_is_itself(word: str) -> None:
    assert Lexer().process_word(word, {}) == word


@given(st.text(alphabet="ab/*?[]^-!\\. #\n", max_size=30), st.lists(st.text(alphabet="ab/.*", max_size=12), max_size=4))
def test_any_ignore_file_gives_answers_or_is_refused(text: str, paths: list[str]) -> None:
    try:
        matcher = IgnoreMatcher(read_patterns(encoded(text)))
        for path in paths:
            state = None
            for end in [index for index, char in enumerate(path) if char == "/"]:
                _, state = matcher.match(path[:end], state)
            matcher.match(path, state)
            matcher.ignores(path)
            matcher.may_have_exceptions_below(path)
    except DockerfileError:
        return


@given(st.text(alphabet='abcdefimnorstuvwx=,0123456789"$/:@.+-%() \u0663A', max_size=40))
def test_any_small_value_is_read_or_refused(text: str) -> None:
    host = Platform("linux", "amd64")
    readers = (
        lambda: parse_mount(text, str),
        lambda: parse_mount(text, None),
        lambda: split_port(text).ports(),
        lambda: str(parse_reference(text)),
        lambda: normalize(parse_platform(text, host)),
        lambda: parse_duration(text),
        lambda: parse_size(text),
        lambda: parse_chmod(text),
    )
    for read in readers:
        try:
            read()
        except DockerfileError as error:
            assert error.message


@given(st.text(alphabet="abz09._-/:@A", max_size=30))
def test_a_complete_reference_completes_to_itself(text: str) -> None:
    try:
        reference = parse_reference(text)
    except DockerfileError:
        return
    if reference.domain:
        assert parse_reference(str(reference)) == reference
