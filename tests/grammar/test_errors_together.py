"""Places, phrases and suggestions of errors, and several of them in one file."""

from __future__ import annotations

import pytest

from grammar.errors import MAX_ERRORS, DockerfileError
from grammar.parser import MAX_SOURCE_SIZE
from grammar.stages import parse


def parse_all_errors(source: bytes, *, filename: str = "Dockerfile") -> list[DockerfileError]:
    """Everything that is refused; first the error that is raised."""
    try:
        parse(source, filename=filename)
    except DockerfileError as error:
        return [error, *error.others]
    return []


def only_error(text: str) -> DockerfileError:
    errors = parse_all_errors(text.encode())
    assert len(errors) == 1, [str(error) for error in errors]
    return errors[0]


@pytest.mark.parametrize(
    ("instruction", "phrase"),
    [
        ("COPY a", "COPY requires at least two arguments"),
        ("ADD", "ADD requires at least two arguments"),
        ("ENV", "ENV requires at least one argument"),
        ("LABEL", "LABEL requires at least one argument"),
        ("ARG", "ARG requires at least one argument"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        ("SHELL []", "SHELL requires at least one argument"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("USER", "USER requires exactly one argument"),
        ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument"),
        ("MAINTAINER", "MAINTAINER requires exactly one argument"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a AS 1", "invalid name for build stage"),
        ("NOPE x", "unknown instruction: NOPE"),
        ("RUN --nope x", "unknown flag: --nope"),
        ("COPY --chown a b", "missing a value on flag: --chown"),
        ("COPY --link --link a b", "duplicate flag specified: --link"),
        ("RUN cat <<EOF", "unterminated heredoc"),
        ("SHELL sh", "SHELL requires the arguments to be in JSON form"),
        ("CMD [1]", "arrays must be comprised of strings only"),
        ("ENV A=1 B", 'can\'t find = in "B"'),
        ("ENV A", "ENV must have two arguments"),
        ("HEALTHCHECK CMD", "missing command after HEALTHCHECK CMD"),
    ],
)
def test_phrases_that_scripts_look_for(instruction: str, phrase: str) -> None:
    error = only_error(f"FROM a\n{instruction}\n")
    assert phrase in error.message
    assert error.caret is not None
    line, _, first, last = error.caret
    assert line == 2
    assert 1 <= first <= last <= len(instruction)


def test_a_command_before_any_stage_is_told_once() -> None:
    error = only_error("ARG a\nRUN x\nRUN y\n")
    assert "no build stage in current context" in error.message
    assert error.lines == ((2, 2),)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_a_file_with_no_instructions(text: str) -> None:
    assert only_error(text).message == "file with no instructions"


@pytest.mark.parametrize(
    ("instruction", "hint"),
    [
        ("RUNN x", "RUN"),
        ("COPY --form=x a b", "--from"),
        ("RUN --network=hots x", "host"),
        ("HEALTHCHECK CDM x", "CMD"),
        ("HEALTHCHECK nane", "NONE"),
    ],
)
def test_a_near_word_is_suggested(instruction: str, hint: str) -> None:
    assert only_error(f"FROM a\n{instruction}\n").hint == f"did you mean {hint}?"


def test_errors_of_several_instructions_are_reported_in_order_after_one_render() -> None:
    source = b"FROM a\nNOPE 1\nRUN ok\nCOPY x\nENV A=1 B\nCMD ok\n"
    errors = parse_all_errors(source)
    assert [error.lines[0][0] for error in errors] == [5, 2, 4]
    with pytest.raises(DockerfileError) as caught:
        parse(source)
    shown = caught.value.render()
    heads = [line.split(":")[1] for line in shown.splitlines() if line.startswith("Dockerfile:")]
    assert heads == ["2", "4", "5"]


def test_what_follows_a_wrong_from_is_not_blamed() -> None:
    assert only_error("FROM a b\nRUN x\nCOPY a b\n").lines == ((1, 1),)


def test_reading_ends_at_a_heredoc_without_end_and_keeps_what_was_found() -> None:
    errors = parse_all_errors(b"FROM a\nNOPE\nRUN <<EOF\nNOPE\n")
    assert [error.message.split()[0] for error in errors] == ["unterminated", "unknown"]


def test_a_file_of_another_language_gives_few_errors() -> None:
    assert len(parse_all_errors(b"FROM a\n" + b"def f():\n" * 1000)) == MAX_ERRORS
    assert len(parse_all_errors(b"FROM a\n" + b"CMD [1]\n" * 1000)) == MAX_ERRORS


def test_the_caret_takes_the_word_and_not_a_part_of_another() -> None:
    caret = only_error("FROM a\nENV BB=1 B\n").caret
    assert caret is not None
    assert (caret.start_column, caret.end_column) == (10, 10)


def test_the_caret_is_not_in_a_comment_between() -> None:
    caret = only_error("FROM a\nCOPY \\\n# --form\n  --form=x a b\n").caret
    assert caret is not None
    assert caret.start_line == 4


def test_errors_have_the_name_of_the_file_and_a_good_file_has_none() -> None:
    assert parse_all_errors(b"NOPE\n", filename="x.Dockerfile")[0].render().startswith("x.Dockerfile:1:1: ")
    assert parse_all_errors(b"FROM a\n") == []


def test_a_huge_file_is_refused_before_it_is_read() -> None:
    error = parse_all_errors(b"RUN x\n" * (MAX_SOURCE_SIZE // 6 + 1))[0]
    assert error.render() == f"Dockerfile:1: file has {MAX_SOURCE_SIZE // 6 * 6 + 6} bytes, expected at most 16777216"


def test_instructions_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grammar.source.MAX_INSTRUCTIONS", 3)
    assert parse_all_errors(b"FROM a\nRUN b\n\nRUN c\n") == []
    error = only_error("FROM a\nRUN b\n\nRUN c\n# d\nRUN d\n")
    assert error.message == "more than 3 instructions"
    assert error.lines == ((6, 6),)
