"""What Go, and so every Dockerfile so far, takes for white space, letter case and broken text.

Text is `str` with surrogateescape: a byte that is not UTF-8 is one lone surrogate. It knows no Dockerfile syntax.
"""

from __future__ import annotations

import re

WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006"
    "\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
"""Unicode's White_Space property. `str.strip` without an argument also takes U+001C to U+001F, which are not in it."""

MESSAGE_WIDTH = 120

REPLACEMENT = "\ufffd"
_SURROGATE = "[\ud800-\udfff]"
_SPACES = f"[{WHITE_SPACE}]+"


def trim(text: str) -> str:
    """`text` without white space at its ends."""
    return text.strip(WHITE_SPACE)


def split_spaces(text: str) -> list[str]:
    """The pieces between runs of white space; the first and the last may be empty."""
    return re.split(_SPACES, text)


def replace_undecodable(text: str) -> str:
    """`text` with U+FFFD for every byte that was not UTF-8 and every lone surrogate."""
    return text if text.isascii() else re.sub(_SURROGATE, REPLACEMENT, text)


def to_lower(text: str) -> str:
    """Lower case one character at a time: the Kelvin sign is k, a dotted capital I is i, sigma has one form."""
    if text.isascii():
        return text.lower()
    return "".join("i" if char == "\u0130" else char.lower() for char in text)


def to_upper(text: str) -> str:
    """Upper case one character at a time; a letter that would need two stays."""
    if text.isascii():
        return text.upper()
    return "".join(upper if len(upper := char.upper()) == 1 else char for char in text)


def shortened(text: str) -> str:
    """User's text for a message, cut if very long."""
    return text if len(text) <= MESSAGE_WIDTH else text[: MESSAGE_WIDTH - 3] + "..."


def quoted(text: str) -> str:
    """User's text in double quotes for a message, cut if very long."""
    return '"' + shortened(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
