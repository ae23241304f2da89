"""The page of rules, made from the rules: `python -m grammar.rules_page > RULES.md`."""

from __future__ import annotations

import sys

from grammar import rules, rules_hadolint
from grammar.rules import Rule

_HEAD = """\
# Rules

What `pybuild check` and every build remark on. This page is made from the rules themselves:
`python -m grammar.rules_page > RULES.md`.

A Dockerfile turns rules off, and findings into errors, with a comment at its top, and for one instruction with the same
comment above it:

    # check=skip=JSONArgsRecommended,StageNameCasing;error=true
    # check=skip=all;experimental=InvalidDefinitionDescription

`# hadolint ignore=DL3006` above an instruction leaves out that rule there. `pybuild check --rules all` turns on every
rule, `--rules NAME,…` some that are off; `--fix` rewrites what the marked ones (🔧) find.
"""

_HADOLINT_HEAD = """\
## Rules of hadolint

Off unless `--rules` asks for them. The names are hadolint's. Only the rules that need no shell parser are here.
"""


def page() -> str:
    """The whole page as Markdown."""
    parts = [_HEAD, _index(rules.RULES)]
    parts += [_section(rule) for rule in rules.RULES]
    parts += [_HADOLINT_HEAD, _index(rules_hadolint.RULES)]
    parts += [_section(rule) for rule in rules_hadolint.RULES]
    parts.append(_missing())
    return "\n".join(parts)


def _index(listed: tuple[Rule, ...]) -> str:
    rows = [f"| [{rule.name}](#{rule.name.lower()}) | {_marks(rule)} | {rule.description} |" for rule in listed]
    return "\n".join(["| rule | | |", "|---|---|---|", *rows, ""])


def _marks(rule: Rule) -> str:
    marks = ["🔧"] if rule.is_fixable else []
    marks += ["experimental"] if rule.experimental else []
    marks += [rule.level] if rule.level != "warning" else []
    return " ".join(marks)


def _section(rule: Rule) -> str:
    parts = [f"### {rule.name}\n", f"{rule.description}.\n" if rule.description[-1] != "." else rule.description + "\n"]
    if rule.ignorefile:
        parts.append(f"With this `.dockerignore`:\n\n{_block(rule.ignorefile)}")
    parts.append(f"Bad:\n\n{_block(rule.bad, 'dockerfile')}")
    parts.append(f"Good:\n\n{_block(rule.good, 'dockerfile')}")
    return "\n".join(parts)


def _block(text: str, language: str = "") -> str:
    return f"```{language}\n{text}```\n"


def _missing() -> str:
    """hadolint's rules that are not here, grouped by the reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in sorted(rules_hadolint.NOT_IMPLEMENTED.items()):
        reasons.setdefault(reason, []).append(name)
    rows = [f"| {', '.join(names)} | {reason} |" for reason, names in reasons.items()]
    return "\n".join(["### Not here\n", "| rules of hadolint | why not |", "|---|---|", *rows, ""])


if __name__ == "__main__":
    sys.stdout.write(page())
