"""The linter: which rules are on, and what was found. Checks are made elsewhere and come here to report.

`# check=` at the top of a file, or the build argument in its place, decides for the whole file; the same comment above
one instruction decides for that instruction. Source: Dockerfile reference, `check`; BuildKit's linter.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from typing import NamedTuple

from grammar.characters import quoted, trim
from grammar.directives import DirectiveReader, find_directive
from grammar.errors import DockerfileError
from grammar.position import Range
from grammar.rules import Rule
from grammar.values import parse_bool

_SUGGESTION_DISTANCE = 3
"""A name is suggested only if it is nearer than this."""
_MOST_OPTIONS = 1000
"""Among more names none is suggested: every undefined variable would be compared with all of them."""
_HADOLINT = "hadolint ignore="


class Finding(NamedTuple):
    """What a rule has to say about some lines."""

    rule: Rule
    message: str
    range: Range
    subject: str = ""
    """The user's text that it is about, where there is one."""

    def caret(self, source: str) -> Range:
        """Where exactly that is, in the text of the file."""
        place = DockerfileError("", range=self.range, subject=self.subject).located(self.range, source=source)
        return place.caret or self.range

    @property
    def key(self) -> tuple[int, str, str]:
        """The order to show findings in."""
        return self.range.start_line, self.rule.name, self.message


class LintConfig(NamedTuple):
    """Which rules are on. `skip` and `experimental` are the words of `# check=`; `enabled` names optional rules."""

    skip_all: bool = False
    skip: frozenset[str] = frozenset()
    experimental_all: bool = False
    experimental: frozenset[str] = frozenset()
    error: bool = False
    """A finding fails the build."""
    enabled: frozenset[str] = frozenset()

    def has(self, rule: Rule) -> bool:
        """Whether `rule` is on."""
        if rule.experimental:
            return self.experimental_all or rule.name in self.experimental | self.enabled
        if rule.optional and rule.name not in self.enabled:
            return False
        return not self.skip_all and rule.name not in self.skip

    def merged(self, other: LintConfig) -> LintConfig:
        """With what `other` skips and turns on besides; whether findings are errors stays."""
        return self._replace(
            skip_all=self.skip_all or other.skip_all,
            skip=self.skip | other.skip,
            experimental_all=self.experimental_all or other.experimental_all,
            experimental=self.experimental | other.experimental,
        )


def parse_check(text: str) -> LintConfig:
    """The configuration in `skip=A,B;error=true;experimental=C`. Raises DockerfileError for an option that is none."""
    config = LintConfig()
    for part in trim(text).split(";", 2) if trim(text) else ():
        name, equals, value = part.partition("=")
        name, value = trim(name) if equals else part, trim(value)
        names = frozenset(trim(word) for word in value.split(","))
        if equals and name == "skip":
            config = config._replace(skip_all=True) if value == "all" else config._replace(skip=names)
        elif equals and name == "experimental":
            every = value == "all"
            config = config._replace(experimental_all=True) if every else config._replace(experimental=names)
        elif equals and name == "error" and (error := parse_bool(value)) is not None:
            config = config._replace(error=error)
        else:
            raise DockerfileError(
                f"failed to parse check options: invalid check option {quoted(name)}",
                hint="for example # check=skip=JSONArgsRecommended;error=true",
                subject=part,
            )
    return config


def file_config(source: bytes) -> LintConfig:
    """The configuration of a file's own `# check=` directive. Raises DockerfileError."""
    directive = find_directive(source, "check")
    if directive is None:
        return LintConfig()
    try:
        return parse_check(directive.value.partition(" ")[0])
    except DockerfileError as error:
        raise error.located(Range(directive.line, directive.line), source=_text(source)) from None


def _text(source: bytes) -> str:
    return source.decode("utf-8", "surrogateescape")


class Linter:
    """Collects the findings of the rules that are on. Linters of single instructions share one collection."""

    def __init__(self, config: LintConfig | None = None, findings: list[Finding] | None = None) -> None:
        self.config = config or LintConfig()
        self.findings: list[Finding] = [] if findings is None else findings

    def report(self, rule: Rule, place: Range, *values: str, near: str | None = None, subject: str = "") -> None:
        """Note a finding, if the rule is on; `near` is what the user may have meant, `subject` the text in question if
        it is not the first of the values."""
        if not self.config.has(rule):
            return
        message = rule.message.format(*values) + (f" (did you mean {near}?)" if near else "")
        subject = subject or "".join(values[:1])
        self.findings.append(Finding(rule, message, Range(place.start_line, place.end_line), subject))

    def for_comments(self, comments: Sequence[str]) -> Linter:
        """The linter for an instruction with these comments above it; a `check=` that cannot be read says nothing."""
        config = self.config
        for comment in comments:
            if comment.startswith(_HADOLINT):
                ignored = comment[len(_HADOLINT) :].split(",")
                config = config._replace(skip=config.skip | {trim(name) for name in ignored})
        for comment in comments:
            directive = DirectiveReader("").take(comment)
            if directive is None or directive.name != "check":
                continue
            with contextlib.suppress(DockerfileError):
                config = config.merged(parse_check(directive.value.partition(" ")[0]))
            break
        return self if config is self.config else Linter(config, self.findings)

    @property
    def violated_rules(self) -> list[str]:
        """The names of the rules with findings, sorted, if findings are errors; else none."""
        return sorted({finding.rule.name for finding in self.findings}) if self.config.error else []


def suggestion(word: str, options: Collection[str]) -> str | None:
    """The first of the options that are nearest to `word` by edit distance; None if none is near or one is equal."""
    best, distance = None, _SUGGESTION_DISTANCE
    for option in options if len(options) <= _MOST_OPTIONS else ():
        if option == word:
            return None
        found = edit_distance(word, option, distance)
        if found < distance:
            best, distance = option, found
    return best


def edit_distance(left: str, right: str, limit: int) -> int:
    """Insertions, deletions and substitutions that make `left` into `right`; `limit` if they are not fewer."""
    if abs(len(left) - len(right)) >= limit:
        return limit
    row = list(range(len(right) + 1))
    for index, char in enumerate(left, start=1):
        diagonal, row[0] = row[0], index
        for column, other in enumerate(right, start=1):
            step = min(row[column] + 1, row[column - 1] + 1, diagonal + (char != other))
            diagonal, row[column] = row[column], step
        if min(row) >= limit:
            return limit
    return min(row[-1], limit)
