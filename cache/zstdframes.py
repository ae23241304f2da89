"""Whether a zstd stream is whole, which its decoder does not tell: it takes the end of its input for the end.

Follows the frames' headers and skips what is in them (RFC 8878, section 3). Decodes nothing; what is no frame is the
decoder's to refuse.
"""

from __future__ import annotations

from cache.blobs import Readable
from cache.errors import LayerError

_FRAME = 0xFD2FB528
_SKIPPABLE = 0x184D2A50
_MAGIC, _SKIP_SIZE, _DESCRIPTOR, _BLOCK, _UNKNOWN = range(5)
_LENGTHS = {_MAGIC: 4, _SKIP_SIZE: 4, _DESCRIPTOR: 1, _BLOCK: 3}
_RLE = 1


class WholeFrames:
    """A stream of zstd frames that ends in a LayerError when it ends within one."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._state = _MAGIC
        self._head = bytearray()
        self._skip = 0
        self._has_checksum = False

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the end."""
        chunk = self._stream.read(size)
        if chunk:
            self._follow(chunk)
        elif self._state != _UNKNOWN and (self._state != _MAGIC or self._head or self._skip):
            raise LayerError("zstd stream ends too early")
        return chunk

    def _follow(self, chunk: bytes) -> None:
        at = 0
        while at < len(chunk) and self._state != _UNKNOWN:
            if self._skip:
                skipped = min(self._skip, len(chunk) - at)
                self._skip -= skipped
                at += skipped
                continue
            wanted = _LENGTHS[self._state] - len(self._head)
            self._head += chunk[at : at + wanted]
            at += wanted
            if len(self._head) == _LENGTHS[self._state]:
                self._step(int.from_bytes(self._head, "little"))
                self._head.clear()

    def _step(self, value: int) -> None:
        """Take a header in: what comes next, and how many bytes before that."""
        if self._state == _MAGIC:
            skippable = _SKIP_SIZE if value & ~0xF == _SKIPPABLE else _UNKNOWN
            self._state = _DESCRIPTOR if value == _FRAME else skippable
        elif self._state == _SKIP_SIZE:
            self._skip, self._state = value, _MAGIC
        elif self._state == _DESCRIPTOR:
            is_single = value >> 5 & 1
            self._has_checksum = bool(value >> 2 & 1)
            self._skip = (1 - is_single) + (0, 1, 2, 4)[value & 3] + (is_single, 2, 4, 8)[value >> 6]
            self._state = _BLOCK
        else:
            is_last, kind, size = value & 1, value >> 1 & 3, value >> 3
            self._skip = 1 if kind == _RLE else size
            if is_last:
                self._skip += 4 if self._has_checksum else 0
                self._state = _MAGIC
