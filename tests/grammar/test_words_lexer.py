from __future__ import annotations

import pytest

from grammar.errors import DockerfileError
from grammar.words import Lexer

ENV = {"V": "foo.bar.baz", "E": "", "P": "/usr/lib/x.so", "SP": "a  b", "D": "$V", "NL": "a\nb", "RX": "a.b[c]$"}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("$V/x", "foo.bar.baz/x"),
        ("${V}x", "foo.bar.bazx"),
        ("$Vx", ""),
        ("'$V'\"$E\"", "$V"),
        ('"a\\"b\\c"', 'a"b\\c'),
        ("\\$V \\'", "$V '"),
        ("$D", "$V"),
        ("$", "$"),
        ("$$x $12ab", "x ab"),
        ("${U:-d}${E:-d}${E-d}${U-d}", "ddd"),
        ("${V:+y}${E:+y}${E+y}${U+y}", "yy"),
        ("${V:?no}${E?no}", "foo.bar.baz"),
        ("${U:-${E:-${V}}}", "foo.bar.baz"),
        ("${U:-}}", "}"),
        ("${V#*.}", "bar.baz"),
        ("${V##*.}", "baz"),
        ("${V%.*}", "foo.bar"),
        ("${V%%.*}", "foo"),
        ("${V/o/0}", "f0o.bar.baz"),
        ("${V//o/0}", "f00.bar.baz"),
        ("${V//?a?/X}", "foo.X.X"),
        ("${P//\\//:}", ":usr:lib:x.so"),
        ("${RX/[c]/-}", "a.b-$"),
        ("${V//o/$1}", "f.bar.baz"),
        ("${V//ba/[\\$0]}", "foo.[\\ba]r.[\\ba]z"),
        ("${NL#*b}", "a\nb"),
        ("${V///-}", "-f-o-o-.-b-a-r-.-b-a-z-"),
        ("\ufeffa\udcff", "a\ufffd"),
    ],
)
def test_words_expand(word: str, expected: str) -> None:
    assert Lexer().process_word(word, ENV) == expected


@pytest.mark.parametrize(
    "word",
    [
        "'a",
        '"a',
        "${",
        "${V",
        "${V:-a",
        "${}",
        "${:-a}",
        "${{V}}",
        "${V:=a}",
        "${V:1:2}",
        "${#V}x}",
        "${V^^}",
        "${V:#a}",
        "${V/a}",
        "${V//a}",
        "${V#\\a}",
        "${U?}",
        "${U:?gone}",
        "${E:?}",
        '${U:-"}',
    ],
)
def test_words_that_are_refused(word: str) -> None:
    with pytest.raises(DockerfileError):
        Lexer().process_word(word, ENV)


def test_the_message_of_a_required_variable_is_the_users() -> None:
    with pytest.raises(DockerfileError, match=r"U: set U to \$V"):
        Lexer().process_word("${U:?set U to \\$V}", ENV)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("x $E y", ["x", "y"]),
        ("$SP '$SP' \"$SP\"", ["a", "b", "$SP", "a  b"]),
        ("'' \"\" a''", ["a"]),
        ("a\u00a0b\\ c", ["a", "b c"]),
        ("x${V:+y z}w", ["y", "zw"]),
        ("<< a", ["<< a"]),
    ],
)
def test_words_split_after_expansion(word: str, expected: list[str]) -> None:
    assert Lexer().process_words(word, ENV) == expected


def test_switches_keep_what_they_say() -> None:
    assert Lexer(raw_quotes=True).process_word("'a' \"$V\"", ENV) == "'a' \"foo.bar.baz\""
    assert Lexer(raw_escapes=True).process_word("\\a", ENV) == "\\a"
    assert Lexer(skip_process_quotes=True).process_word("'$V", ENV) == "'foo.bar.baz"
    assert Lexer(skip_unset_env=True).process_word("$U ${U:-a} ${V}", ENV) == "$U ${U:-a} foo.bar.baz"
    assert Lexer("`").process_word("`$V \\", ENV) == "$V \\"


def test_matches_tell_which_names_were_looked_up() -> None:
    found = Lexer().process_word_with_matches("$V ${U:-$W} '$X'", ENV)
    assert (found.result, found.matched, found.unmatched) == ("foo.bar.baz  $X", {"V"}, {"U", "W"})


def test_nesting_has_no_limit() -> None:
    depth = 20000
    assert Lexer().process_word("${a:-" * depth + "x" + "}" * depth, {}) == "x"
    with pytest.raises(DockerfileError, match="matching }"):
        Lexer().process_word("${a:-" * depth, {})


@pytest.mark.parametrize("form", ["${V#%s}", "${V##%s}", "${V%%%s}", "${V//%s/x}"])
def test_many_stars_do_not_take_exponential_time(form: str) -> None:
    value = "a" * 2000
    assert Lexer().process_word(form % ("*a" * 30 + "b"), {"V": value}) == value
