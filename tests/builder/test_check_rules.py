"""Every rule on its own examples: the bad one gives just that finding, the good one none."""

from __future__ import annotations

from typing import Any

import pytest

from builder.check_run import ALL_RULES, AssumedImages, Report, Subject, check
from builder.options import BuildOptions
from builder.plan import ImageSourceOp
from builder.sources import BaseSource
from grammar.ignore import IgnoreMatcher, read_patterns
from grammar.platforms import Platform
from grammar.rules import Rule

HOST = Platform("linux", "amd64")


class World(AssumedImages):
    """Images as the examples need them: one is for another platform."""

    def __init__(self, **config: Any) -> None:
        super().__init__(())
        self.config = config

    def image(self, name: str, platform: Platform) -> BaseSource:
        own = Platform("linux", "arm64") if name == "example/arm64-only" else platform
        document = {"os": own.os, "architecture": own.architecture, "config": self.config}
        return BaseSource(ImageSourceOp(name, "sha256:0", "sha256:0", name), document, own, 1)


def report(text: str, *names: str, ignorefile: str = "", world: AssumedImages | None = None, **options: Any) -> Report:
    ignored = IgnoreMatcher(read_patterns(ignorefile.encode())) if ignorefile else None
    subject = Subject("Dockerfile", text.encode(), ignored)
    return check(subject, BuildOptions(**options), world or World(), host=HOST, rule_names=frozenset(names))


def found(text: str, *names: str, **more: Any) -> list[tuple[str, int]]:
    """Rules (or "error") with the lines they name."""
    entries = report(text, *names, **more).entries
    return [(entry.rule.name if entry.rule else "error", entry.range.start_line) for entry in entries]


@pytest.mark.parametrize("rule", ALL_RULES.values(), ids=lambda rule: rule.name)
def test_examples(rule: Rule) -> None:
    names = (rule.name,) if rule.optional or rule.experimental else ()
    bad = report(rule.bad, *names, ignorefile=rule.ignorefile)
    own = [entry for entry in bad.entries if entry.rule is rule]
    assert own
    if not rule.optional and not rule.experimental:
        assert {entry.rule for entry in bad.entries if entry.level != "error"} == {rule}
    assert own[0].level == rule.level
    good = report(rule.good, *names, ignorefile=rule.ignorefile)
    assert [entry for entry in good.entries if entry.rule is rule or entry.level == "error"] == []


def test_undefined_variables_of_every_kind_of_word() -> None:
    text = (
        "FROM alpine\nARG A=$B\nENV C=$D E=${F:-x}\nCOPY --chown=$G $H <<E /$I/\n$J\nE\n"
        "RUN --mount=type=cache,target=/m$K x\nRUN $L\nEXPOSE $M\nVOLUME $N/x\nUSER $A$C\n"
    )
    messages = [entry.message for entry in report(text).entries]
    assert [message.split("'")[1][1:] for message in messages] == [*"BDFGHIJKN"]


def test_what_the_base_sets_is_defined() -> None:
    text = "FROM alpine\nENV X=$FROM_BASE\n"
    assert found(text) == [("UndefinedVar", 2)]
    assert found(text, world=World(Env=["FROM_BASE=1"])) == []
    assert found("FROM alpine AS a\nARG V=1\nFROM a\nENV W=$V\n") == []


def test_a_near_name_is_suggested() -> None:
    (entry,) = report("FROM alpine\nARG VERSION\nENV A=1 LONGNAME=2\nRUN x\nENV B=$LONGNAM\n").entries
    assert entry.message == "Usage of undefined variable '$LONGNAM' (did you mean $LONGNAME?)"
    assert entry.caret[:4] == (5, 5, 8, 14)


def test_findings_before_an_error_are_kept() -> None:
    text = "FROM alpine as b\nENV A=$B\nUSER 'x\nMAINTAINER me\n"
    assert found(text) == [
        ("FromAsCasing", 1),
        ("UndefinedVar", 2),
        ("error", 3),
        ("MaintainerDeprecated", 4),
    ]


def test_errors_are_reported_together() -> None:
    assert found("FROM alpine\nNOPE\nENV x\nRUN --what x\n") == [("error", 2), ("error", 3), ("error", 4)]


def test_errors_in_stages_that_nobody_needs() -> None:
    text = "FROM alpine AS unused\nSTOPSIGNAL NOPE\nFROM alpine\nRUN x\n"
    assert found(text) == [("error", 2)]
    assert found(text.replace("FROM alpine\n", "FROM alpine AS last\n"), target="last") == []


def test_findings_are_errors_where_the_file_says_so() -> None:
    entries = report("# check=error=true\nFROM alpine as b\n").entries
    assert [(entry.level, entry.rule and entry.rule.name) for entry in entries] == [("error", "FromAsCasing")]
    assert not report("# check=error=true;skip=FromAsCasing\nFROM alpine as b\n").entries


def test_the_build_argument_replaces_the_directive() -> None:
    text = "# check=skip=all\nFROM alpine as b\n"
    assert found(text) == []
    assert found(text, build_args={"BUILDKIT_DOCKERFILE_CHECK": ""}) == [("FromAsCasing", 2)]
    assert found("# check=skip\nFROM alpine as b\n") == [("error", 1)]


def test_a_wrong_place_has_several_commands() -> None:
    text = "FROM alpine AS a\nCOPY --from=b /x /x\nFROM alpine AS b\nCOPY --from=a /x /x\n"
    (entry,) = report(text).entries
    assert entry.range[:2] == (2, 2)
    assert "circular" in entry.message


def test_triggers_are_checked_in_the_stage_that_runs_them() -> None:
    text = "FROM alpine AS b\nONBUILD CMD shell form\nFROM b\nRUN x\n"
    assert found(text) == [("JSONArgsRecommended", 3)]
    (entry,) = report("FROM alpine\nRUN x\n", world=World(OnBuild=["NOPE x"])).entries
    assert (entry.level, entry.range[0], entry.hint) == ("error", 1, "it is in the base's trigger: ONBUILD NOPE x")


@pytest.mark.parametrize(
    ("ignorefile", "sources", "wanted"),
    [
        ("*\n", ". / x /x dir/x", [".", "/", "x", "/x", "dir/x"]),
        ("**/*\n", "./ x", [".", "x"]),
        ("secret\n", ". / secret ./secret/ /secret dir/secret secret/x", ["secret", "secret", "secret/x"]),
        ("*\n!x\n", ". y", []),
        ("a*\n", "$V abc", ["abc"]),
    ],
)
def test_ignored_sources(ignorefile: str, sources: str, wanted: list[str]) -> None:
    text = f"FROM scratch\nARG V\nCOPY {sources} /to/\n"
    messages = [entry.message for entry in report(text, ignorefile=ignorefile).entries]
    assert [message.split('"')[1] for message in messages] == sorted(wanted)
