from __future__ import annotations

import time

import pytest

from grammar.errors import DockerfileError
from grammar.ignore import IgnoreMatcher, read_patterns
from grammar.ignore_regex import compile_go, go_expression


@pytest.mark.parametrize(
    ("source", "patterns"),
    [
        (b"\xef\xbb\xbfa\r\n\n  b \n#c\n #d", ["a", "b", "#d"]),
        (b"/a/b/../c/\n! /x/\n!\n/\n", ["a/c", "!x", "!", "/"]),
        (b"a//b/./c\n..//x\n/../y", ["a/b/c", "../x", "y"]),
    ],
)
def test_patterns_are_cleaned(source: bytes, patterns: list[str]) -> None:
    assert read_patterns(source) == patterns


def test_a_line_over_the_limit_is_an_error() -> None:
    with pytest.raises(DockerfileError) as caught:
        read_patterns(b"a\n" + b"b" * 65536)
    assert caught.value.lines == ((2, 2),)


@pytest.mark.parametrize(
    ("pattern", "ignored", "kept"),
    [
        ("a", ["a", "a/b/c"], ["b/a", "ab"]),
        ("*", ["a", "a/b", ".x"], []),
        ("*.md", ["x.md", "x.md/y"], ["d/x.md"]),
        ("**/*.md", ["x.md", "d/x.md", "d/e/x.md"], ["md"]),
        ("**/x", ["x", "a/x", "a/b/x/c"], ["ax"]),
        ("**x", ["x", "ax", "a/x", "a/bx"], ["xa"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "ab"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["a", "ab"]),
        ("a?c", ["abc"], ["ac", "a/c"]),
        ("[a-c]x", ["ax", "cx"], ["dx", "[a-c]x"]),
        ("[^a]x", ["bx"], ["ax"]),
        ("[!a]x", ["!x", "ax"], ["bx"]),
        ("{a,b}", ["{a,b}"], ["a"]),
        ("a.b+(c)|$", ["a.b+(c)|$"], ["axb"]),
        ("\\*", ["*"], ["a", "\\*"]),
        ("a*.[ch]", ["a.c", "ab.h"], ["a.o"]),
        ("..", [], ["a", "x/a"]),
        (".", [], ["a"]),
    ],
)
def test_one_pattern(pattern: str, ignored: list[str], kept: list[str]) -> None:
    matcher = IgnoreMatcher([pattern])
    assert [path for path in ignored if not matcher.ignores(path)] == []
    assert [path for path in kept if matcher.ignores(path)] == []


@pytest.mark.parametrize("pattern", ["[", "[a", "[]a]", "[a-]", "[-a]", "a\\", "!", "!/", "[^]"])
def test_malformed_patterns_are_refused_at_once(pattern: str) -> None:
    with pytest.raises(DockerfileError):
        IgnoreMatcher([pattern])


def test_a_range_in_the_wrong_order_is_refused_when_it_is_asked() -> None:
    matcher = IgnoreMatcher(["[z-a]"])
    with pytest.raises(DockerfileError):
        matcher.ignores("x")


def test_the_last_pattern_that_matches_wins() -> None:
    matcher = IgnoreMatcher(["*", "!src", "src/*.o", "!src/keep.o"])
    assert [path for path in ("a", "src", "src/a.c", "src/a.o", "src/keep.o") if not matcher.ignores(path)] == [
        "src",
        "src/a.c",
        "src/keep.o",
    ]


def test_a_walk_gives_the_same_answers_with_the_state_of_the_directory() -> None:
    matcher = IgnoreMatcher(["**/build", "!build/out/keep", "*.o"])
    _, build = matcher.match("build", None)
    out_ignored, out = matcher.match("build/out", build)
    assert out_ignored
    assert [matcher.match(path, out)[0] for path in ("build/out/keep", "build/out/drop")] == [False, True]


def test_an_ignored_directory_is_entered_only_for_exceptions_below_it() -> None:
    plain = IgnoreMatcher(["a", "b", "!a/x/*"])
    assert plain.may_have_exceptions_below("a")
    assert plain.may_have_exceptions_below("a/x")
    assert not plain.may_have_exceptions_below("b")
    assert not IgnoreMatcher(["a"]).may_have_exceptions_below("a")
    assert IgnoreMatcher(["a", "!**/keep"]).may_have_exceptions_below("b")


@pytest.mark.parametrize("pattern", ["*a*b*c*d", "**/a/**/b/*c/**", "a*?[bc]*d**/*e", "**a**b**"])
def test_the_linear_engine_agrees_with_the_other(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expression = go_expression(pattern)
    paths = ["", "abcd", "a/b/c", "xaybzcwd", "a/x/b/c/y", "a/b/xc/d", "abbde", "a.b.d/x/y/ze", "x/a/b/cc/", "aab/b"]
    quick = [compile_go(expression)(path) for path in paths]
    monkeypatch.setattr("grammar.ignore_regex.MAX_TRIES", -1)
    assert [compile_go(expression)(path) for path in paths] == quick


def test_hostile_patterns_do_not_hang() -> None:
    matcher = IgnoreMatcher(["*a" * 30 + "b", "**/a" * 30 + "/b"])
    assert not matcher.match("a" * 1000, None)[0]
    assert not matcher.match("a/" * 500 + "a", None)[0]


@pytest.mark.parametrize(
    ("pattern", "ignored", "kept"),
    [
        ("a|b*", ["a", "ax", "xb", "b"], ["c", "xa"]),
        ("*.c|x|?y", [".c.d", "axb", "by"], ["a", "ya"]),
        ("ab*|", ["c"], []),
        (r"a\|*", ["a|", "a|b"], ["a", "b"]),
        ("a{2}?", ["aab"], ["a{2}b", "ab"]),
        ("?{2,}", ["ab", "abcd"], ["a"]),
        ("*a{0,2}b", ["b", "aab", "xab"], ["ba"]),
        ("?{02}", ["a{02}"], ["ab"]),
        ("{a,b}*", ["{a,b}c"], ["a", "b"]),
        ("{0,1}?b", ["ab", "xxab"], ["b", "abc"]),
        ("{1}?b", ["ab"], ["xxab"]),
        ("x*\\", ["x$", "xa$b"], ["x\\", "x"]),
    ],
)
def test_what_moby_leaves_to_its_regular_expressions(pattern: str, ignored: list[str], kept: list[str]) -> None:
    matcher = IgnoreMatcher([pattern])
    assert [path for path in (*ignored, *kept) if matcher.ignores(path)] == ignored


@pytest.mark.parametrize("pattern", ["*{2}", "?{2}{2}", "?{3,1}", "?{1001}", "a*|{2}", "**/{2}?", "?{1000}" * 20])
def test_counts_that_are_refused_when_a_path_is_asked(pattern: str) -> None:
    matcher = IgnoreMatcher([pattern])
    with pytest.raises(DockerfileError):
        matcher.ignores("a")


def test_what_is_wrong_behind_a_part_that_does_not_fit_is_not_seen_at_once() -> None:
    for pattern in ("b*[", "..*[", "[^.]*["):
        with pytest.raises(DockerfileError):
            IgnoreMatcher([pattern]).ignores("b")
        assert IgnoreMatcher([pattern]).patterns
    for pattern in ("[", "b[", ".*[", "?*[", r"\.*[", "[+-/]*[", "[^a]*["):
        with pytest.raises(DockerfileError, match="not well formed"):
            IgnoreMatcher([pattern])


def test_counts_cost_no_more_than_their_states() -> None:
    started = time.process_time()
    assert not IgnoreMatcher(["?{0,1000}" * 16 + "b"]).ignores("a" * 250)
    assert time.process_time() - started < 5
