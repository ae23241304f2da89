from __future__ import annotations

import pytest

from grammar.directives import detect_syntax, read_directives
from grammar.errors import DockerfileError
from grammar.parser import parse_ast
from grammar.source import LineReader


def lines(source: bytes) -> list[tuple[str, int, int]]:
    return [(line.text, line.start_line, line.end_line) for line in LineReader(source).logical_lines()]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b"FROM a\nRUN b\n", [("FROM a", 1, 1), ("RUN b", 2, 2)]),
        (b"\xef\xbb\xbfFROM a", [("FROM a", 1, 1)]),
        (b"RUN a \\\n  b", [("RUN a   b", 1, 2)]),
        (b"RUN a \\ \t\n# c \\\n\nb\nUSER x", [("RUN a b", 1, 4), ("USER x", 5, 5)]),
        (b"RUN a \\\\\nUSER b", [("RUN a \\\\", 1, 1), ("USER b", 2, 2)]),
        (b"RUN a \\", [("RUN a ", 1, 1)]),
        (b"RU\\\nN x\r\n", [("RUN x", 1, 2)]),
        (b"  RUN a\rb\x0b\r\n", [("RUN a\rb\x0b", 1, 1)]),
        (b"# escape=`\nRUN a `\nb \\\n", [("RUN a b \\", 2, 3)]),
    ],
)
def test_physical_lines_join_to_logical_ones(source: bytes, expected: list[tuple[str, int, int]]) -> None:
    assert lines(source) == expected


def test_a_blank_line_ends_the_directives_for_good() -> None:
    reader = LineReader(b"\n# escape=`\nRUN a `\nUSER b")
    assert [line.text for line in reader.logical_lines()] == ["RUN a `", "USER b"]
    assert reader.escape == "\\"


def test_comments_since_the_last_empty_one_belong_to_the_instruction() -> None:
    reader = LineReader(b"# a\n#\n# b\n\n  # c\nFROM x\nRUN y")
    assert [line.comments for line in reader.logical_lines()] == [("b", "# c"), ()]


@pytest.mark.parametrize(
    ("source", "reported", "true_line"),
    [
        (b"# escape=x\nFROM a", 0, 1),
        (b"# syntax=a\n# SYNTAX=b\nFROM a", 1, 2),
        (b"FROM a\nRUN " + b"x" * 65532 + b"\n", 1, 2),
        (b"", 0, 0),
        (b"# only\n# comments\n", 2, 2),
    ],
)
def test_lines_of_errors_are_the_known_ones_and_the_true_ones(source: bytes, reported: int, true_line: int) -> None:
    with pytest.raises(DockerfileError) as caught:
        lines(source)
    assert caught.value.lines == ((reported, reported),)
    assert caught.value.range is not None
    assert caught.value.range.start_line == true_line


def test_the_longest_line_is_65535_bytes() -> None:
    assert len(lines(b"RUN " + b"x" * 65531)) == 1
    with pytest.raises(DockerfileError):
        lines(b"FROM a\nRUN " + "é".encode() * 32766)


def test_syntax_is_found_where_the_line_reader_sees_no_directive() -> None:
    assert read_directives(b"  # syntax=a/b\n") == ((), None)
    assert detect_syntax(b"// syntax=a/b c\n") == ("a/b", "a/b c", 1)
    assert detect_syntax(b"#!/usr/bin/env x\n# syntax=a\n") == ("a", "a", 2)
    assert detect_syntax(b'{"syntax": "a"}') == ("a", "a", 0)
    assert detect_syntax(b"FROM a\n# syntax=a\n") is None


def test_heredoc_bodies_are_raw_and_follow_in_order() -> None:
    ast = parse_ast(b"RUN cat <<A 3<<-'B'\n$x \\\n# y\nA\n\tz\r\n\tB\nUSER u")
    first, second = ast.nodes[0].heredocs
    assert (first.name, first.content, first.expand, first.chomp, first.fd) == ("A", "$x \\\n# y\n", True, False, 0)
    assert (second.name, second.content, second.expand, second.chomp, second.fd) == ("B", "\tz\r\n", False, True, 3)
    assert ast.nodes[0].range[:2] == (1, 6)
    assert ast.nodes[1].keyword == "USER"


@pytest.mark.parametrize("line", [b"ENV a=<<X", b'RUN ["<<X"]', b"RUN it's <<X", b"RUN a<<X", b"RUN <<<X"])
def test_what_only_looks_like_a_heredoc_takes_no_lines(line: bytes) -> None:
    ast = parse_ast(line + b"\nUSER y\n")
    assert [node.keyword for node in ast.nodes] == [line.split()[0].decode(), "USER"]


def test_a_heredoc_without_end_names_all_its_lines() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse_ast(b"FROM a\nRUN <<E\nx\n")
    assert caught.value.lines == ((2, 3),)
