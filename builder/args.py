"""The values that FROM sees, and that an ARG without a default takes: the platform's, and ARGs before the first FROM.

Source: Dockerfile reference, ARG (scope; automatic platform ARGs); BuildKit's behaviour.
"""

from __future__ import annotations

from collections.abc import Mapping

from builder.errors import BuildError, Location
from builder.options import BuildOptions
from builder.stage import at
from cache.namedtuple import NamedTuple
from grammar.nodes import Dockerfile
from grammar.platforms import Platform
from grammar.words import Lexer

_PLATFORM_ARGS = ("PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT")


class GlobalArgs(NamedTuple):
    """Values by name, and every name that has been declared, with a value or without."""

    values: dict[str, str]
    declared: tuple[str, ...]
    defaults: dict[str, str] | None
    """The values without --build-arg; None if they cannot be told."""


def global_args(
    dockerfile: Dockerfile, options: BuildOptions, *, host: Platform, target: Platform, filename: str
) -> GlobalArgs:
    """The values of one build. Raises BuildError with the line of an ARG that cannot be expanded."""
    lexer = Lexer(dockerfile.escape)
    builtin = _builtin_args(host, target, options.target or dockerfile.stages[-1].name, options.build_args)
    try:
        defaults = _with_declared(dockerfile, lexer, builtin, {}, filename)
    except BuildError:
        defaults = None
    values = _with_declared(dockerfile, lexer, builtin, options.build_args, filename)
    declared = [pair.key for instruction in dockerfile.meta_args for pair in instruction.args]
    return GlobalArgs(values, tuple(dict.fromkeys([*values, *declared])), defaults)


def _builtin_args(host: Platform, target: Platform, stage: str, given: Mapping[str, str]) -> dict[str, str]:
    arguments: dict[str, str] = {}
    for prefix, platform in (("BUILD", host), ("TARGET", target)):
        shown = platform.short if prefix == "BUILD" else str(platform)
        values = (shown, platform.os, platform.os_version, platform.architecture, platform.variant)
        arguments.update({prefix + name: value for name, value in zip(_PLATFORM_ARGS, values, strict=True)})
    arguments["TARGETSTAGE"] = stage or "default"
    return {name: given.get(name, value) for name, value in arguments.items()}


def _with_declared(
    dockerfile: Dockerfile, lexer: Lexer, builtin: Mapping[str, str], given: Mapping[str, str], filename: str
) -> dict[str, str]:
    """ARGs before the first FROM, each seeing those before it."""
    values = dict(builtin)
    for instruction in dockerfile.meta_args:
        rows = instruction.range
        for pair in instruction.args:
            value = given.get(pair.key)
            if value is None and pair.value is not None:
                with at(Location(filename, rows.start_line, rows.end_line)):
                    value = lexer.process_word(pair.value, values)
            if value is not None:
                values.pop(pair.key, None)
                values[pair.key] = value
    return values
