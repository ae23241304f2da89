"""Comparisons of a system call's arguments as BPF: 64 bits by their halves, as a filter only loads 32 (seccomp(2)).

Knows no profile and no number of a call.
"""

from __future__ import annotations

from typing import TypeAlias

from builder.sandbox.seccomp import IF_EQUAL, LOAD, RETURN, Code
from cache.namedtuple import NamedTuple

_ARGUMENTS = 16
_AND, _IF_ABOVE, _IF_AT_LEAST = 0x54, 0x25, 0x35
_HALF = 0xFFFFFFFF

_NEXT, _PASS, _FAIL = "next", "pass", "fail"
Step: TypeAlias = tuple[int, int, str, str]
"""Code, constant, and where to go if the test holds and if not; a load or a mask goes on."""


class Condition(NamedTuple):
    """A comparison of one argument; for MASKED_EQ `value` is the mask and `other` what must be left."""

    argument: int
    operator: str
    value: int
    other: int = 0


def when(conditions: tuple[Condition, ...], returned: int) -> Code:
    """Return a value if all conditions hold, else go on after this code."""
    parts = [_steps(condition) for condition in conditions]
    size = sum(map(len, parts)) + 1
    code: Code = []
    for steps in parts:
        end = len(code) + len(steps)
        for instruction, constant, yes, no in steps:
            here = len(code) + 1
            ends = {_NEXT: 0, _PASS: end - here, _FAIL: size - here}
            code.append((instruction, ends[yes], ends[no], constant))
    return [*code, (RETURN, 0, 0, returned)]


def _steps(condition: Condition) -> list[Step]:
    high, low = condition.value >> 32, condition.value & _HALF
    load_low = _ARGUMENTS + 8 * condition.argument
    first, second = (LOAD, load_low + 4, _NEXT, _NEXT), (LOAD, load_low, _NEXT, _NEXT)
    if condition.operator == "MASKED_EQ":
        return [
            first,
            (_AND, high, _NEXT, _NEXT),
            (IF_EQUAL, condition.other >> 32, _NEXT, _FAIL),
            second,
            (_AND, low, _NEXT, _NEXT),
            (IF_EQUAL, condition.other & _HALF, _PASS, _FAIL),
        ]
    above, below, equal_high, test, holds = _ORDERS[condition.operator]
    on_low = (test, low, _PASS, _FAIL) if holds else (test, low, _FAIL, _PASS)
    return [first, (_IF_ABOVE, high, above, _NEXT), (IF_EQUAL, high, equal_high, below), second, on_low]


_ORDERS = {
    "EQ": (_FAIL, _FAIL, _NEXT, IF_EQUAL, True),
    "NE": (_PASS, _PASS, _NEXT, IF_EQUAL, False),
    "GT": (_PASS, _FAIL, _NEXT, _IF_ABOVE, True),
    "GE": (_PASS, _FAIL, _NEXT, _IF_AT_LEAST, True),
    "LT": (_FAIL, _PASS, _NEXT, _IF_AT_LEAST, False),
    "LE": (_FAIL, _PASS, _NEXT, _IF_ABOVE, False),
}
"""Where a higher half that is greater, less, or equal leads; the test of the lower half, and whether it has to hold."""

OPERATORS = (*_ORDERS, "MASKED_EQ")
