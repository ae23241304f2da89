"""Flags of an instruction: `--name`, `--name=value`; which an instruction has, and what their values may be.

The grammar finds where flags are; this module gives them meaning. RUN's --mount has its own language in mount_flag.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

from grammar.characters import quoted, shortened, to_lower
from grammar.errors import DockerfileError, nearest


class FlagKind(Enum):
    """What a flag takes."""

    BOOLEAN = "boolean"
    TEXT = "text"
    TEXTS = "texts"
    """May be repeated."""


class FlagValues:
    """The flags given to one instruction; a flag that was not given has its neutral value."""

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = {}

    def add(self, name: str, value: str) -> None:
        self._values.setdefault(name, []).append(value)

    def has(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, default: str = "") -> str:
        return self._values[name][0] if name in self._values else default

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(self._values.get(name, ()))

    def is_true(self, name: str) -> bool:
        return self.text(name) == "true"

    def boolean(self, name: str) -> bool | None:
        """None if the flag was not given."""
        return self.is_true(name) if self.has(name) else None


def parse_flags(flags: Iterable[str], known: Mapping[str, FlagKind]) -> FlagValues:
    """The values of `flags`. Raises DockerfileError for a flag that is unknown, repeated, or lacks its value."""
    values = FlagValues()
    for flag in flags:
        if flag == "--":
            break
        if not flag.startswith("--"):
            raise DockerfileError(f"flag {quoted(flag)} does not start with --")
        name, has_value, value = flag[2:].partition("=")
        kind = known.get(name)
        if kind is None:
            raise _unknown(name, known)
        if values.has(name) and kind is not FlagKind.TEXTS:
            raise DockerfileError(f"duplicate flag specified: --{name}", subject=flag)
        values.add(name, _checked(name, kind, value if has_value else None))
    return values


def _checked(name: str, kind: FlagKind, value: str | None) -> str:
    """`value` in canonical form; None stands for a flag without `=`."""
    if value is None and kind is FlagKind.BOOLEAN:
        return "true"
    if value is None or (kind is FlagKind.BOOLEAN and not value):
        raise DockerfileError(f"missing a value on flag: --{name}", subject=f"--{name}")
    if kind is FlagKind.BOOLEAN:
        value = to_lower(value)
        if value not in ("true", "false"):
            raise DockerfileError(f"flag --{name} is {quoted(value)}, expected true or false", subject=f"--{name}")
    return value


def _unknown(name: str, known: Mapping[str, FlagKind]) -> DockerfileError:
    near = nearest(name, list(known))
    hint = f"did you mean --{near}?" if near else None
    if hint is None and known:
        hint = "this instruction has " + ", ".join(f"--{known_name}" for known_name in sorted(known))
    return DockerfileError(f"unknown flag: --{shortened(name)}", hint=hint, subject=f"--{name}")


def unquote_flag(text: str, escape: str) -> str:
    """`text` without its quotes and escape tokens; both kinds of quotes let the escape token work."""
    if not ('"' in text or "'" in text or escape in text):
        return str(text)
    result: list[str] = []
    quote = ""
    chars = iter(text)
    for char in chars:
        if quote and char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        else:
            result.append(next(chars, "") if char == escape else char)
    return "".join(result)
