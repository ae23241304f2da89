"""Checking a Dockerfile without building it: every error and every finding, each with its place.

Images that the store does not have are taken to exist, with an empty config: a check needs no network and no store.
"""

from __future__ import annotations

from collections.abc import Iterable

from builder.errors import BuildError
from builder.findings import make_linter
from builder.lower import lower_for_findings
from builder.options import BuildOptions
from builder.plan import GitSourceOp, HttpSourceOp, ImageSourceOp
from builder.scope import Checks
from builder.sources import BaseSource, SourceResolver
from cache.errors import CacheError
from cache.namedtuple import NamedTuple
from grammar import lint_hadolint, rules, rules_hadolint
from grammar.errors import DockerfileError
from grammar.ignore import IgnoreMatcher
from grammar.lint import Finding, Linter
from grammar.platforms import Platform
from grammar.position import Range
from grammar.rules import Rule
from grammar.stages import parse

ALL_RULES = {rule.name: rule for rule in (*rules.RULES, *rules_hadolint.RULES)}
_NOWHERE = Range(0, 0)
_ASSUMED_DIGEST = "sha256:" + "0" * 64


class Entry(NamedTuple):
    """One thing to say: a finding of a rule, or an error (then `rule` is None)."""

    level: str
    """`error`, `warning` or `note`."""
    rule: Rule | None
    message: str
    range: Range
    """The lines, from 1; 0 if it is about no line."""
    caret: Range
    hint: str = ""


class Report(NamedTuple):
    """What a check came to."""

    filename: str
    source: bytes
    entries: tuple[Entry, ...]
    findings: tuple[Finding, ...]
    """The findings among the entries, as the linter made them."""

    @property
    def has_errors(self) -> bool:
        return any(entry.level == "error" for entry in self.entries)


class AssumedImages:
    """A SourceResolver in which every image exists; `known` is asked first, if there is one."""

    def __init__(self, directories: Iterable[str], known: SourceResolver | None = None) -> None:
        self._directories = set(directories)
        self._known = known

    def named_context(self, name: str, platform: Platform) -> BaseSource | None:
        """See SourceResolver. Without a store, a context that is an image is as good as unknown."""
        if self._known is None:
            return _assumed(name, platform) if name in self._directories else None
        try:
            return self._known.named_context(name, platform)
        except (BuildError, CacheError):
            return _assumed(name, platform)

    def image(self, name: str, platform: Platform) -> BaseSource:
        """See SourceResolver. Never fails."""
        if self._known is not None:
            try:
                return self._known.image(name, platform)
            except (BuildError, CacheError):
                pass
        return _assumed(name, platform)

    def context_time(self, name: str) -> int | None:
        """See SourceResolver. Nothing is fetched."""
        return None

    def source_time(self, op: GitSourceOp | HttpSourceOp) -> int | None:
        """See SourceResolver. Nothing is fetched."""
        return None


def _assumed(name: str, platform: Platform) -> BaseSource:
    document = {"os": platform.os, "architecture": platform.architecture, "variant": platform.variant, "config": {}}
    return BaseSource(ImageSourceOp(name, _ASSUMED_DIGEST, _ASSUMED_DIGEST, name), document, platform, 1)


class Subject(NamedTuple):
    """The Dockerfile to check, and what its context leaves out."""

    filename: str
    source: bytes
    ignored: IgnoreMatcher | None = None


def check(
    subject: Subject,
    options: BuildOptions,
    resolver: SourceResolver,
    *,
    host: Platform,
    rule_names: frozenset[str] = frozenset(),
) -> Report:
    """All that is wrong with a Dockerfile, in the order of its lines; it is read on after errors where that can be.

    `rule_names` turns on rules that are off otherwise. Nothing that the Dockerfile says is raised.
    """
    linter, errors = Linter(), []
    try:
        linter = make_linter(subject.source, options)
    except DockerfileError as error:
        errors = _from_dockerfile(error, subject)
    level = "error" if linter.config.error else ""
    linter.config = linter.config._replace(error=False, enabled=rule_names)
    errors = errors or _evaluate(subject, options, resolver, host=host, linter=linter)
    findings = tuple(dict.fromkeys(sorted(linter.findings, key=lambda found: found.key)))
    entries = [*_from_findings(findings, subject, level), *errors]
    entries.sort(key=lambda entry: entry.range)
    return Report(subject.filename, subject.source, tuple(entries), findings)


def _evaluate(
    subject: Subject, options: BuildOptions, resolver: SourceResolver, *, host: Platform, linter: Linter
) -> list[Entry]:
    """The errors; findings go to the linter."""
    errors: list[BuildError | DockerfileError] = []
    try:
        dockerfile = parse(subject.source, filename=subject.filename, linter=linter)
        lint_hadolint.check_dockerfile(dockerfile, linter)
        lower_for_findings(dockerfile, options, resolver, host=host, checks=Checks(linter, subject.ignored, errors))
    except (DockerfileError, BuildError) as error:
        errors.append(error)
    return [entry for error in errors for entry in _from_error(error, subject)]


def _from_error(error: BuildError | DockerfileError, subject: Subject) -> list[Entry]:
    return _from_dockerfile(error, subject) if isinstance(error, DockerfileError) else [_from_build(error, subject)]


def _from_findings(findings: Iterable[Finding], subject: Subject, level: str) -> list[Entry]:
    """Findings with the level of their rule, or all with this one."""
    text = subject.source.decode("utf-8", "surrogateescape")
    return [
        Entry(level or found.rule.level, found.rule, found.message, found.range, found.caret(text))
        for found in findings
    ]


def _from_dockerfile(error: DockerfileError, subject: Subject) -> list[Entry]:
    """An error of the grammar, and those that came with it."""
    entries = []
    for each in (error, *error.others):
        each.located(_NOWHERE, source=subject.source.decode("utf-8", "surrogateescape"))
        place = each.range or _NOWHERE
        entries.append(Entry("error", None, each.message, place, each.caret or place, each.hint or ""))
    return entries


def _from_build(error: BuildError, subject: Subject) -> Entry:
    location = error.location
    place = Range(location.start_line, location.end_line) if location is not None else _NOWHERE
    located = DockerfileError(str(error), range=place, subject=getattr(error.__cause__, "subject", ""))
    if location is not None:
        located.located(place, source=subject.source.decode("utf-8", "surrogateescape"))
    return Entry("error", None, str(error), place, located.caret or place, error.hint or "")
