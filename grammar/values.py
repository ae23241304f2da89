"""Small values inside flags: durations, sizes, chmod modes, numbers and booleans, as Go's libraries read them.

It knows no flag: the caller says which one was wrong.
"""

from __future__ import annotations

import re

from grammar.characters import quoted, to_lower
from grammar.errors import DockerfileError

INT64_MIN = -(1 << 63)
_INT64_LIMIT = 1 << 63

_NS_PER_UNIT = {
    "ns": 1,
    "us": 1000,
    "\u00b5s": 1000,
    "\u03bcs": 1000,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


def parse_duration(text: str) -> int:
    """Nanoseconds of a duration such as `1h30m` or `1.5s`; only 0 needs no unit. Raises DockerfileError."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    if digits == "0":
        return 0
    parts = list(re.finditer(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)", digits, re.DOTALL))[:-1]
    if not parts:
        raise DockerfileError(f"duration {quoted(text)} is not valid, expected for example 30s or 1m30s")
    total = sum(_nanoseconds(part, text) for part in parts)
    total = -total if text[0] == "-" else total
    if not INT64_MIN <= total < _INT64_LIMIT:
        raise DockerfileError(f"duration {quoted(text)} is too long")
    return total


def _nanoseconds(part: re.Match[str], text: str) -> int:
    whole, fraction, unit = part.groups()
    if not whole and not fraction:
        raise DockerfileError(f"duration {quoted(text)} is not valid, expected a number before {quoted(unit)}")
    if not unit:
        raise DockerfileError(f"duration {quoted(text)} has no unit", hint=f"did you mean {text}s?")
    if unit not in _NS_PER_UNIT:
        raise DockerfileError(
            f"duration {quoted(text)} has an unknown unit {quoted(unit)}, expected ns, us, ms, s, m or h"
        )
    significant = whole.lstrip("0")
    if len(significant) > 19 or int(significant or 0) * _NS_PER_UNIT[unit] > _INT64_LIMIT:
        raise DockerfileError(f"duration {quoted(text)} is too long")
    return int(significant or 0) * _NS_PER_UNIT[unit] + _fraction(fraction or "", _NS_PER_UNIT[unit])


def _fraction(digits: str, unit_ns: int) -> int:
    """Nanoseconds of a decimal fraction; digits that no longer fit an int64 are dropped."""
    numerator, scale = 0, 1.0
    for digit in digits:
        larger = numerator * 10 + int(digit)
        if numerator > (_INT64_LIMIT - 1) // 10 or larger > _INT64_LIMIT:
            break
        numerator, scale = larger, scale * 10
    return int(numerator * (unit_ns / scale))


def parse_size(text: str, *, kilo: int = 1024) -> int:
    """Bytes of a size such as `64m` or `1.5GiB`; `kilo` is 1024 or 1000 whatever the suffix. A size over int64 gives
    its lowest value. Raises DockerfileError."""
    end = max((text.rfind(char) for char in "0123456789. "), default=-1)
    if end < 0:
        raise DockerfileError(f"size {quoted(text)} is not valid, expected a number")
    number, suffix = text[: end if text[end] == " " else end + 1], text[end + 1 :]
    size = _parse_float(number)
    if size is None or size < 0:
        raise DockerfileError(f"size {quoted(text)} is not valid, expected a number")
    size *= _multiplier(suffix, text, kilo)
    return int(size) if size < float(_INT64_LIMIT) else INT64_MIN


def _multiplier(suffix: str, text: str, kilo: int) -> int:
    lower = to_lower(suffix)
    if lower in ("", "b"):
        return 1
    power = "kmgtp".find(lower[0]) + 1
    if len(suffix.encode("utf-8", "surrogateescape")) > 3 or not power or lower[1:] not in ("", "b", "ib"):
        raise DockerfileError(f"size {quoted(text)} has an unknown suffix {quoted(suffix)}, expected k, m, g, t or p")
    return int(kilo**power)


_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_HEX_FLOAT = re.compile(r"[+-]?0[xX][0-9a-fA-F]*\.?[0-9a-fA-F]*[pP][+-]?[0-9]+")


def _parse_float(text: str) -> float | None:
    try:
        if _FLOAT.fullmatch(text):
            value = float(text)
        elif _HEX_FLOAT.fullmatch(text):
            value = float.fromhex(text)
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return None if value in (float("inf"), float("-inf")) else value


_SYMBOLIC_CLAUSE = r"[augo]*+(?:[-+=][rstwXxugo]*+)++"
_SYMBOLIC_MODE = re.compile(f"{_SYMBOLIC_CLAUSE}(?:,{_SYMBOLIC_CLAUSE})*+")


def parse_chmod(text: str) -> int | str:
    """The mode bits of an octal `text` up to 07777, or `text` itself if it is symbolic, as in chmod(1).
    Raises DockerfileError."""
    mode = parse_uint(text, base=8)
    if mode is not None and mode <= 0o7777:
        return mode
    if mode is None and _SYMBOLIC_MODE.fullmatch(text):
        return text
    raise DockerfileError(
        f"chmod mode {quoted(text)} is invalid, expected an octal number up to 07777 or changes such as u=rwX,go=rX"
    )


def parse_uint(text: str, *, base: int = 10) -> int | None:
    """The number in `text`, digits of `base` only, if it fits 32 bits; else None."""
    digits = "0123456789"[:base]
    if not text or text.strip(digits):
        return None
    significant = text.lstrip("0") or "0"
    if len(significant) > 32:
        return None
    value = int(significant, base)
    return value if value < 1 << 32 else None


def parse_bool(text: str) -> bool | None:
    """True or false in one of Go's spellings, else None."""
    if text in _TRUE:
        return True
    return False if text in _FALSE else None
