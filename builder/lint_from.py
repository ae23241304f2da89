"""Rules about FROM that need the values of the ARGs before it, or the image that it names.

Source: BuildKit's validations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from builder import gofmt
from grammar import rules
from grammar.errors import DockerfileError
from grammar.lint import Linter, suggestion
from grammar.nodes import Stage
from grammar.platforms import Platform, normalize, parse_platform
from grammar.position import Range
from grammar.reference import parse_reference
from grammar.words import Lexer, WordMatches

_TARGET = "TARGETPLATFORM"


def check_undeclared(unset: Iterable[str], declared: Sequence[str], place: Range, linter: Linter) -> None:
    """ARGs in FROM that are not declared before it."""
    for name in sorted(set(unset).difference(declared)):
        linter.report(rules.UNDEFINED_ARG_IN_FROM, place, name, near=suggestion(name, declared))


def check_platform(
    stage: Stage, found: WordMatches, arguments: Mapping[str, str], host: Platform, linter: Linter
) -> None:
    """A --platform that says what is the default anyway, or the same for every build."""
    if found.matched == {_TARGET} and not found.unmatched and found.result == arguments.get(_TARGET):
        linter.report(rules.REDUNDANT_TARGET_PLATFORM, stage.range, stage.platform)
    if found.matched or found.unmatched:
        return
    try:
        platform = parse_platform(found.result, host)
    except DockerfileError:
        return
    if platform.os not in stage.name and platform.architecture not in stage.name:
        linter.report(
            rules.FROM_PLATFORM_FLAG_CONST_DISALLOWED, stage.range, gofmt.quote(found.result), subject=stage.platform
        )


def check_defaults(stages: Sequence[Stage], lexer: Lexer, defaults: Mapping[str, str], linter: Linter) -> None:
    """Base names that are none when every ARG has its default."""
    for stage in stages:
        try:
            name = lexer.process_word(stage.base, defaults)
        except DockerfileError:
            return
        try:
            parse_reference(name)
        except DockerfileError:
            linter.report(rules.INVALID_DEFAULT_ARG_IN_FROM, stage.range, stage.base)


def check_image_platform(
    name: str, wanted: Platform, document: Mapping[str, object], place: Range, linter: Linter
) -> None:
    """An image that is for another system or architecture than the stage."""
    system, architecture, variant = (str(document.get(key) or "") for key in ("os", "architecture", "variant"))
    own = Platform(system, architecture, variant)
    if (own.os, own.architecture) != (wanted.os, wanted.architecture):
        shown = [gofmt.quote(str(normalize(platform))) for platform in (own, wanted)]
        linter.report(rules.INVALID_BASE_IMAGE_PLATFORM, place, name, *shown)
