"""The rules as values, and the page that is made from them."""

from __future__ import annotations

from pathlib import Path

from grammar import rules, rules_hadolint
from grammar.rules_page import page

RULES_PAGE = Path(__file__).resolve().parents[2] / "RULES.md"


def test_the_page_is_up_to_date() -> None:
    assert RULES_PAGE.read_text(encoding="utf-8") == page()


def test_rules_are_whole() -> None:
    every = (*rules.RULES, *rules_hadolint.RULES)
    assert len({rule.name for rule in every}) == len(every)
    for rule in every:
        assert rule.description, rule.name
        assert rule.message, rule.name
        assert rule.bad != rule.good, rule.name
        assert rule.level in ("error", "warning", "note")
    listed = {value for value in vars(rules).values() if isinstance(value, rules.Rule)}
    assert listed == set(rules.RULES)
    listed = {value for value in vars(rules_hadolint).values() if isinstance(value, rules.Rule)}
    assert listed == set(rules_hadolint.RULES)


def test_every_rule_of_hadolint_is_here_or_says_why_not() -> None:
    here = {rule.name for rule in rules_hadolint.RULES}
    assert not here & set(rules_hadolint.NOT_IMPLEMENTED)
    unused = {"DL3005", "DL3017", "DL3031", "DL3039"}
    numbered = {f"DL30{number:02}" for number in range(68)}
    assert numbered - unused == here | set(rules_hadolint.NOT_IMPLEMENTED)
