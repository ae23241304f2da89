"""Sparse members of a tar: where their bytes belong, and the whole file read with zeros in between.

GNU tar writes them in four ways: type `S` with a map in the header and blocks after it, and PAX records with the map in
records (0.0, 0.1) or in front of the data (1.0); see "Sparse Formats" in its manual. Knows nothing of other members.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Protocol

from cache.errors import LayerError

PREFIX = "GNU.sparse."
_BLOCK = 512
_ENTRY = 24
_MAX_DIGITS = 19
_MAX_ENTRIES = 1 << 20

Part = tuple[int, int]
"""Offset and length of bytes that are there."""


class Body(Protocol):
    """The bytes of a member as they lie in the archive."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the end."""

    def skip(self) -> None:
        """Read to the next header."""


class SparseContent:
    """The whole file: `size` bytes of which only `parts` are in `body`. Reads as `Content` does."""

    def __init__(self, body: Body, parts: Sequence[Part], size: int) -> None:
        _check(parts, size)
        self._body = body
        self._parts = list(reversed([*parts, (size, 0)]))
        self._position = 0

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the end of the file."""
        wanted = self._parts[0][0] - self._position if size < 0 else size
        while self._parts:
            offset, length = self._parts[-1]
            if self._position < offset:
                return self._advance(bytes(min(wanted, offset - self._position)))
            left = offset + length - self._position
            if left:
                chunk = self._body.read(min(wanted, left))
                if not chunk:
                    raise LayerError("tar stream is broken: a sparse member has fewer bytes than its map")
                return self._advance(chunk)
            self._parts.pop()
        return b""

    def _advance(self, chunk: bytes) -> bytes:
        self._position += len(chunk)
        return chunk

    def skip(self) -> None:
        """Read to the next header."""
        self._body.skip()


def _check(parts: Sequence[Part], size: int) -> None:
    ends = [(0, 0), *parts, (size, 0)]
    if any(before[0] + before[1] > after[0] for before, after in pairwise(ends)):
        raise LayerError("tar stream is broken: a sparse member's map is out of order")


def old_parts(header: bytes, read_block: Callable[[], bytes], number: Callable[[bytes, int, int], int]) -> list[Part]:
    """The map of a member of type `S`: four entries in the header, then blocks of 21 as long as there are more."""
    parts = _entries(header, 386, 4, number)
    more = header[482]
    while more:
        block = read_block()
        parts += _entries(block, 0, 21, number)
        more = block[504]
        if len(parts) > _MAX_ENTRIES:
            raise _broken()
    return parts


def _entries(block: bytes, start: int, count: int, number: Callable[[bytes, int, int], int]) -> list[Part]:
    found = []
    for at in range(start, start + count * _ENTRY, _ENTRY):
        if not block[at]:
            break
        found.append((number(block, at, at + 12), number(block, at + 12, at + 24)))
    return found


def pax_parts(records: Mapping[str, bytes], body: Body) -> list[Part]:
    """The map that PAX records give; in format 1.0 it is read from the front of `body`."""
    if records.get(PREFIX + "major") == b"1":
        return _leading_map(body)
    numbers = [_decimal(text) for text in records.get(PREFIX + "map", b"").split(b",") if text]
    return _paired(numbers)


def _leading_map(body: Body) -> list[Part]:
    """Lines of decimals, the first says how many entries follow, up to the next block."""
    lines: list[bytes] = []
    rest = b""
    wanted = 1
    while len(lines) < wanted:
        block = body.read(_BLOCK)
        if len(block) < _BLOCK:
            raise _broken()
        *whole, rest = (rest + block).split(b"\n")
        lines += whole
        if len(rest) > 2 * _BLOCK:
            raise _broken()
        if lines:
            wanted = 1 + 2 * _decimal(lines[0])
            if wanted > 2 * _MAX_ENTRIES:
                raise _broken()
    return _paired([_decimal(line) for line in lines[1:wanted]])


def _paired(numbers: Sequence[int]) -> list[Part]:
    if len(numbers) % 2:
        raise _broken()
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > _MAX_DIGITS:
        raise _broken()
    return int(text)


def _broken() -> LayerError:
    return LayerError("tar stream is broken: a sparse member has a malformed map")
