"""Values printed the way Go's fmt package prints them, as image history and error texts of the field show them.

Source: Go's fmt (`%q`, `%v`, `%+v`) and time.Duration.String.
"""

from __future__ import annotations

from collections.abc import Iterable

_SHORT = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}


def quote(text: str) -> str:
    """A double-quoted Go string (strconv.Quote); a lone surrogate is the byte that it stands for, as `\\x..`."""
    out = ['"']
    for char in text:
        code = ord(char)
        if code in _SHORT:
            out.append(_SHORT[code])
        elif char.isprintable():
            out.append(char)
        elif 0xDC80 <= code <= 0xDCFF:
            out.append(f"\\x{code - 0xDC00:02x}")
        elif code < 0x20 or code == 0x7F:
            out.append(f"\\x{code:02x}")
        else:
            out.append(f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}")
    out.append('"')
    return "".join(out)


def quoted_list(words: Iterable[str]) -> str:
    """`["a" "b"]`: a string slice under `%q`."""
    return "[" + " ".join(quote(word) for word in words) + "]"


def plain_list(words: Iterable[str]) -> str:
    """`[a b]`: a string slice under `%v`."""
    return "[" + " ".join(words) + "]"


def duration(nanoseconds: int) -> str:
    """A time.Duration as its String method shows it: `0s`, `1.5ms`, `1h0m5s`."""
    if nanoseconds == 0:
        return "0s"
    sign = "-" if nanoseconds < 0 else ""
    rest = abs(nanoseconds)
    for unit, size in (("ns", 1_000), ("µs", 1_000_000), ("ms", 1_000_000_000)):
        if rest < size:
            return f"{sign}{_decimal(rest, size // 1000)}{unit}"
    minutes, within = divmod(rest, 60_000_000_000)
    seconds = _decimal(within, 1_000_000_000) + "s"
    if not minutes:
        return sign + seconds
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours}h{minutes}m{seconds}" if hours else f"{sign}{minutes}m{seconds}"


def _decimal(value: int, unit: int) -> str:
    whole, part = divmod(value, unit)
    if not part:
        return str(whole)
    return f"{whole}.{part:0{len(str(unit)) - 1}d}".rstrip("0")
