"""File modes as `--chmod` writes them: octal digits, or symbolic clauses in BSD's dialect of chmod(1).

The dialect is the one of the Dockerfile frontend: clauses without a class act on all of them whatever the umask, `s`
and `t` need no class, several operators may follow one class, and `u`, `g`, `o` after an operator copy bits.
"""

from __future__ import annotations

from collections.abc import Callable

from builder.errors import BuildError

_CLASSES = {"u": 0o4700, "g": 0o2070, "o": 0o0007, "a": 0o6777}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111}
_EXECUTE = 0o111
_SHIFTS = {"u": 6, "g": 3, "o": 0}

Change = Callable[[int, bool], int]
"""From a mode and whether it is a directory's to the new mode."""


def octal_mode(text: str) -> int | None:
    """The mode that octal digits stand for, None if `text` is symbolic or empty."""
    if not text or text[0] not in "0123456789":
        return None
    mode = int(text, 8) if not text.strip("01234567") else -1
    if not 0 <= mode <= 0o7777:
        raise BuildError(
            f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777",
            hint="write a mode as 755 or as u=rwX,go=rX",
        )
    return mode


def mode_change(text: str) -> Change:
    """The function that `--chmod=text` applies to every copied file's and directory's mode."""
    fixed = octal_mode(text)
    if fixed is not None:
        return lambda _mode, _is_dir: fixed
    if not text:
        return lambda mode, _is_dir: mode
    steps = [step for clause in text.split(",") for step in _clause(clause, text)]

    def change(mode: int, is_dir: bool) -> int:
        may_execute = is_dir or bool(mode & _EXECUTE)
        for who, operator, letters in steps:
            mode = _apply(mode, who, operator, _wanted(mode, letters, may_execute or operator == "-"))
        return mode

    return change


def _clause(clause: str, text: str) -> list[tuple[int, str, str]]:
    """The steps (class bits, operator, letters) of one clause such as `ug+r-w`."""
    rest = clause.lstrip("ugoa")
    classes = clause[: len(clause) - len(rest)]
    who = 0
    for letter in classes:
        who |= _CLASSES[letter]
    if not rest:
        raise _invalid(text)
    steps = []
    while rest:
        operator, rest = rest[0], rest[1:]
        end = next((i for i, char in enumerate(rest) if char in "+-="), len(rest))
        letters, rest = rest[:end], rest[end:]
        if operator not in "+-=" or letters.strip("rwxXstugo"):
            raise _invalid(text)
        if letters in _SHIFTS:
            steps.append(((who or 0o777) & 0o777, operator, letters))
        elif who == _CLASSES["o"]:
            steps.append((who, operator, letters.replace("s", "").replace("t", "")))
        else:
            steps.append((who | (0o1000 if "t" in letters else 0), operator, letters))
    return steps


def _invalid(text: str) -> BuildError:
    return BuildError(
        f'invalid chmod parameter: "{text}": expected octal digits or clauses like u=rwX',
        hint="write a mode as 755 or as u=rwX,go=rX",
    )


def _wanted(mode: int, letters: str, may_execute: bool) -> int:
    """The bits that the letters name, in all classes."""
    bits = 0
    for letter in letters:
        if letter in _BITS:
            bits |= _BITS[letter]
        elif letter in _SHIFTS:
            bits |= ((mode >> _SHIFTS[letter]) & 7) * 0o111
        elif letter == "X":
            bits |= _EXECUTE if may_execute else 0
        else:
            bits |= 0o6000 if letter == "s" else 0o1000
    return bits


def _apply(mode: int, who: int, operator: str, bits: int) -> int:
    bits &= who or 0o7777
    if operator == "-":
        return mode & ~bits
    return bits | (mode if operator == "+" else mode & ~(who or 0o6777))
