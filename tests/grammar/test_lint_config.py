"""Which rules are on: the options of `# check=`, comments above one instruction, and what a finding points at."""

from __future__ import annotations

import pytest

from grammar import rules, rules_hadolint
from grammar.errors import DockerfileError
from grammar.lint import LintConfig, Linter, edit_distance, file_config, parse_check, suggestion
from grammar.position import Range
from grammar.stages import parse

PLACE = Range(1, 1)


def names(text: str, config: LintConfig | None = None) -> list[str]:
    """The rules that the syntax of a Dockerfile breaks."""
    linter = Linter(config)
    parse(text.encode(), linter=linter)
    return [finding.rule.name for finding in linter.findings]


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("", LintConfig()),
        ("skip=A, B", LintConfig(skip=frozenset(("A", "B")))),
        ("skip=all;error=true", LintConfig(skip_all=True, error=True)),
        (" error = T ; experimental = all ", LintConfig(error=True, experimental_all=True)),
        ("skip=a;skip=b;error=0", LintConfig(skip=frozenset("b"))),
    ],
)
def test_check_options(text: str, config: LintConfig) -> None:
    assert parse_check(text) == config


@pytest.mark.parametrize(
    "text", ["skip", "Skip=all", "error=maybe", "skip=a;;error=true", "a;b=c", "error=1;skip=a;x=1;y=2"]
)
def test_bad_check_options(text: str) -> None:
    with pytest.raises(DockerfileError):
        parse_check(text)


def test_the_directive_ends_at_a_space_and_may_follow_an_interpreter() -> None:
    assert file_config(b"#!/x\n# check=skip=A B;error=true\nFROM a\n") == LintConfig(skip=frozenset("A"))
    assert file_config(b"FROM a\n# check=skip=A\n") == LintConfig()


def test_a_bad_directive_has_its_line() -> None:
    with pytest.raises(DockerfileError) as caught:
        file_config(b"# syntax=x\n# check=skip\nFROM a\n")
    assert caught.value.lines == ((2, 2),)


def test_a_comment_counts_for_its_instruction_only() -> None:
    text = "# check=skip=FromAsCasing\n#\nFROM a as b\n\n# text\n# check=skip=FromAsCasing\nFROM a as c\nFROM a as d\n"
    assert names(text) == ["FromAsCasing", "FromAsCasing"]


def test_an_unreadable_comment_says_nothing() -> None:
    assert names("FROM a\n# check=nonsense\n# check=skip=all\nMAINTAINER me\n") == ["MaintainerDeprecated"]


def test_experimental_and_optional_rules_must_be_asked_for() -> None:
    text = "# other\nFROM a AS b\n"
    assert names(text) == []
    assert names(text, parse_check("skip=all;experimental=all")) == ["InvalidDefinitionDescription"]
    assert names(text, LintConfig(enabled=frozenset(["InvalidDefinitionDescription"]))) == [
        "InvalidDefinitionDescription"
    ]
    assert not LintConfig().has(rules_hadolint.DL3006)
    assert LintConfig(enabled=frozenset(["DL3006"])).has(rules_hadolint.DL3006)
    assert not LintConfig(enabled=frozenset(["DL3006"]), skip=frozenset(["DL3006"])).has(rules_hadolint.DL3006)


def test_hadolint_comments_skip_rules() -> None:
    linter = Linter(LintConfig(enabled=frozenset(["DL3006", "DL3007"])))
    linter.for_comments(["hadolint ignore=DL3006, DL3007"]).report(rules_hadolint.DL3006, PLACE, "x")
    assert linter.findings == []


def test_findings_stop_at_an_error() -> None:
    linter = Linter()
    with pytest.raises(DockerfileError):
        parse(b"FROM a as b\nMAINTAINER\nNOPE\nFROM c as d\n", linter=linter)
    assert [finding.rule.name for finding in linter.findings] == ["FromAsCasing", "MaintainerDeprecated"]
    linter = Linter()
    with pytest.raises(DockerfileError):
        parse(b"FROM a as b\nENV x\n", linter=linter)
    assert linter.findings == []


def test_violated_rules_only_where_findings_are_errors() -> None:
    for error, wanted in ((True, ["FromAsCasing", "MaintainerDeprecated"]), (False, [])):
        linter = Linter(LintConfig(error=error))
        for rule in (rules.MAINTAINER_DEPRECATED, rules.FROM_AS_CASING, rules.FROM_AS_CASING):
            linter.report(rule, PLACE, "as", "FROM")
        assert linter.violated_rules == wanted


def test_the_caret_is_under_the_text_in_question() -> None:
    linter = Linter()
    source = "FROM alpine AS Build\n"
    parse(source.encode(), linter=linter)
    assert linter.findings[0].caret(source) == Range(1, 1, 16, 20)


@pytest.mark.parametrize(
    ("word", "options", "wanted"),
    [
        ("BAS", ["OTHER", "BASE", "BA"], "BASE"),
        ("BASE", ["BASF", "BASE"], None),
        ("abcdef", ["uvwxyz", "abcxyz"], None),
        ("", ["ab", "abc"], "ab"),
        ("ab", ["ba"], "ba"),
    ],
)
def test_suggestions(word: str, options: list[str], wanted: str | None) -> None:
    assert suggestion(word, options) == wanted


def test_edit_distance_stops_at_its_limit() -> None:
    assert edit_distance("kitten", "sitting", 9) == 3
    assert edit_distance("kitten", "sitting", 3) == 3
    assert edit_distance("a" * 50, "b" * 50, 3) == 3
