from __future__ import annotations

import pytest

from grammar.errors import DockerfileError
from grammar.position import Range
from grammar.stages import parse


def report(source: bytes) -> str:
    with pytest.raises(DockerfileError) as caught:
        parse(source, filename="Dockerfile")
    return caught.value.render()


def test_an_unknown_instruction_has_a_caret_and_a_suggestion() -> None:
    assert report(b"FROM a\n\tFORM b\n") == (
        "Dockerfile:2:2: unknown instruction: FORM\n 2 | \tFORM b\n   | \t^^^^\nhint: did you mean FROM?"
    )


def test_the_caret_finds_the_continued_line() -> None:
    assert report(b"FROM a\nCOPY \\\n  --form=b \\\n  c d\n") == (
        "Dockerfile:3:3: unknown flag: --form\n"
        " 2 | COPY \\\n 3 |   --form=b \\\n   |   ^^^^^^\n 4 |   c d\n"
        "hint: did you mean --from?"
    )


def test_the_true_line_is_shown_where_others_report_the_one_before() -> None:
    assert report(b"# escape=x\n").startswith("Dockerfile:1:1: escape token")


def test_a_long_range_is_cut_in_the_middle() -> None:
    error = DockerfileError("x", range=Range(1, 100))
    error.source = "\n".join(f"line {number}" for number in range(1, 101))
    assert error.render().splitlines()[1:] == [
        "   1 | line 1",
        "     | ^^^^^^",
        "   2 | line 2",
        "   3 | line 3",
        "   4 | line 4",
        "   5 | line 5",
        " ... |",
        " 100 | line 100",
    ]


def test_control_characters_do_not_reach_the_terminal() -> None:
    shown = report(b"FROM a\nNO\x1b[2J\xffPE x\n")
    assert "\x1b" not in shown
    assert "NO\\x1b[2J\\xffPE" in shown
    shown.encode()


def test_an_error_without_a_place_is_its_message() -> None:
    error = DockerfileError("word is wrong")
    assert str(error) == "word is wrong"
    assert error.lines == ()
    assert error.render() == "Dockerfile: word is wrong"
