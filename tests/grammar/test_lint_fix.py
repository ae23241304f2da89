"""What --fix rewrites: the text, never the meaning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grammar import rules
from grammar.errors import DockerfileError
from grammar.lint import Finding
from grammar.lint_fix import AUTHORS, fix
from grammar.nodes import EnvInstruction, LabelInstruction, MaintainerInstruction
from grammar.position import Range
from grammar.rules import RULES, Rule
from grammar.stages import parse
from grammar.words import Lexer

FIXABLE = [rule for rule in RULES if rule.is_fixable]


def fixed(text: str, *wanted: Rule) -> str:
    """The text with every line taken for a finding of the rules (all of them if none is named)."""
    findings = [
        Finding(rule, "", Range(line, line)) for rule in wanted or FIXABLE for line in range(1, text.count("\n") + 2)
    ]
    source, _ = fix(text.encode("utf-8", "surrogateescape"), findings)
    again, more = fix(source, findings)
    assert again == source, more
    return source.decode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from a\nRUN x\nRUN y\n", "FROM a\nRUN x\nRUN y\n"),
        ("from a\nrun x\nRUN y\n", "from a\nrun x\nrun y\n"),
        ("arg a\nFROM a\nRuN x \\\n  y\n", "ARG a\nFROM a\nRUN x \\\n  y\n"),
        ("FROM a as Bin\n", "FROM a AS bin\n"),
        ("From a as b\n", "FROM a AS b\n"),
        ("from a AS b\nrun x\n", "from a as b\nrun x\n"),
        ("FROM --platform=as as as as \t\n", "FROM --platform=as as AS as \t\n"),
        ("FROM a\nENV A b\n", "FROM a\nENV A=b\n"),
        ("FROM a\nENV A b c\n", 'FROM a\nENV A="b c"\n'),
        ("FROM a\nENV A = b\n", 'FROM a\nENV A="= b"\n'),
        ("FROM a\nENV A 'b c'\n", "FROM a\nENV A='b c'\n"),
        ("FROM a\nENV A b 'c d'  e\n", "FROM a\nENV A=b\\ 'c d'\\ \\ e\n"),
        ("FROM a\nLABEL A $b ${c:-d}\r\n", 'FROM a\nLABEL A="$b ${c:-d}"\r\n'),
        ("FROM a\nENV A b \\\n# c\n  d\n", 'FROM a\nENV A="b \\\n# c\n  d"\n'),
        ("FROM a\nENV A \\\n\tb \\\n\tc\n", 'FROM a\nENV A="b \\\n\tc"\n'),
        ("FROM a\nMAINTAINER me <me@x.y>\n", f'FROM a\nLABEL {AUTHORS}="me <me@x.y>"\n'),
        ('FROM a\nMAINTAINER "me" $x \\n\n', f'FROM a\nLABEL {AUTHORS}="\\"me\\" \\$x \\\\n"\n'),
        ("# escape=`\nFROM a\nMAINTAINER C:\\me `x\n", f'# escape=`\nFROM a\nLABEL {AUTHORS}="C:\\me ``x"\n'),
        ("FROM a\nEXPOSE 80/TCP 81/Udp \\\n '82/tCp' $TCP\n", "FROM a\nEXPOSE 80/tcp 81/udp \\\n '82/tcp' $TCP\n"),
        ("\ufeffFROM a as b\n", "\ufeffFROM a AS b\n"),
        ("FROM a\nRUN b \\\n\n# c\n \t\r\n  d\n\nRUN e\n", "FROM a\nRUN b \\\n# c\n  d\n\nRUN e\n"),
        ("FROM a\nRUN b \\\n\n <<E\n\nx\n\nE\n", "FROM a\nRUN b \\\n <<E\n\nx\n\nE\n"),
        ("FROM a\nRUN b \\\n\n\n", "FROM a\nRUN b \\\n"),
    ],
)
def test_rewritten(before: str, after: str) -> None:
    assert fixed(before) == after


@pytest.mark.parametrize(
    "text",
    [
        "FROM a\nENV A b\\ c d\n",
        "FROM a\nENV A \"b c' d\n",
        "FROM a\nMAINTAINER me \\\n  you\n",
        "FROM a AS ${B}\n",
        "FR\\\nom a as b\n",
        "FROM a\nRUN x <<E\nfrom a as B\nENV A b\nE\n",
        "FROM a\n# ENV A b\n",
        "FROM a\nENV x\n",
        "FROM a\nEXPOSE 80/T\\\nCP\n",
    ],
)
def test_left_alone(text: str) -> None:
    assert fixed(text) == text


def test_only_what_was_found_is_fixed() -> None:
    text = "FROM a as B\nENV A b\n"
    assert fixed(text, rules.FROM_AS_CASING) == "FROM a AS B\nENV A b\n"
    source, done = fix(text.encode(), [Finding(rules.LEGACY_KEY_VALUE_FORMAT, "", Range(2, 2))])
    assert source == b"FROM a as B\nENV A=b\n"
    assert [finding.rule for finding in done] == [rules.LEGACY_KEY_VALUE_FORMAT]


VALUES = st.text(st.sampled_from("ab $'\"\\`=#{}<:-é\t"), min_size=1, max_size=12)


@given(st.sampled_from(["ENV", "LABEL"]), VALUES)
def test_a_value_expands_to_the_same(keyword: str, value: str) -> None:
    text = f"FROM a\n{keyword} KEY {value}\n"
    try:
        before = parse(text.encode()).stages[0].commands[0]
    except DockerfileError:
        return
    after = parse(fixed(text, rules.LEGACY_KEY_VALUE_FORMAT).encode()).stages[0].commands[0]
    assert isinstance(before, EnvInstruction | LabelInstruction)
    assert isinstance(after, EnvInstruction | LabelInstruction)
    for env in ({}, {"a": "x 'y'", "ab": '"', "b": ""}):
        assert expanded(after, env) == expanded(before, env)


def expanded(instruction: EnvInstruction | LabelInstruction, env: dict[str, str]) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    for pair in instruction.pairs:
        try:
            found.append((pair.key, Lexer().process_word(pair.value, env)))
        except DockerfileError:
            found.append((pair.key, None))
    return found


@given(VALUES.filter(str.strip))
def test_a_maintainer_is_the_author(name: str) -> None:
    text = f"FROM a\nMAINTAINER {name}\n"
    try:
        (before,) = parse(text.encode()).stages[0].commands
    except (DockerfileError, ValueError):
        return
    assert isinstance(before, MaintainerInstruction)
    (after,) = parse(fixed(text, rules.MAINTAINER_DEPRECATED).encode()).stages[0].commands
    if isinstance(after, LabelInstruction):
        assert expanded(after, {"a": "x"}) == [(AUTHORS, before.maintainer)]
    else:
        assert after == before
