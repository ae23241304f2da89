"""Compressed streams: found by their magic bytes, read with bounded memory, written deterministically.

gzip goes through isal, zstd through zstandard; each is imported when its first stream is opened. A decoder's own
exceptions do not leave: a broken stream is a LayerError.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Protocol

from cache.blobs import Readable
from cache.errors import LayerError

_CHUNK = 1 << 18
_MAX_WINDOW = 1 << 27
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_GZIP_BLOCK = 1 << 20
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
MAGIC_SIZE = 6
DEFAULT_LEVELS = {"gzip": 1, "zstd": 3, "none": 0}


class Compressor(Protocol):
    """Takes a stream in pieces; gives the compressed stream in pieces."""

    def compress(self, chunk: bytes, /) -> bytes:
        """What is ready after `chunk`, often nothing."""

    def flush(self) -> bytes:
        """The rest. The compressor is done with it."""


def detect(head: bytes) -> str:
    """The compression that the first bytes of a stream tell: gzip, bzip2, xz, zstd, or none."""
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), "none")


def open_decompressed(stream: Readable) -> Readable:
    """The plain content of a stream, whatever it is compressed with. Reading raises LayerError when it is broken."""
    peeked = PeekedStream(stream)
    kind = detect(peeked.peek(MAGIC_SIZE))
    if kind == "none":
        return peeked
    if kind == "zstd":
        return _ZstdStream(peeked)
    return _DecodedStream(peeked, kind)


def compressor(kind: str, level: int | None = None) -> Compressor:
    """A compressor for gzip, zstd or none, at its default level unless told. The same input gives the same output."""
    chosen = DEFAULT_LEVELS[kind] if level is None else level
    if kind == "gzip":
        return _GzipCompressor(chosen)
    if kind == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=chosen).compressobj()
    return _Plain()


class PeekedStream:
    """A stream whose first bytes can be looked at before they are read."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._head = b""

    def peek(self, size: int) -> bytes:
        """The first `size` bytes, fewer only if there are no more."""
        while len(self._head) < size and (chunk := self._stream.read(size - len(self._head))):
            self._head += chunk
        return self._head[:size]

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the end."""
        if not self._head:
            return self._stream.read(size)
        if size < 0:
            size = len(self._head)
        chunk, self._head = self._head[:size], self._head[size:]
        return chunk


class _DecodedStream:
    """gzip, bzip2 and xz: decoders with the interface of `bz2.BZ2Decompressor`, one per member of the stream."""

    def __init__(self, stream: Readable, kind: str) -> None:
        self._stream = stream
        self._kind = kind
        self._decoder = _decoder(kind)
        self._rest = b""
        self._is_done = False

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the end."""
        limit = size if size >= 0 else _CHUNK
        while not self._is_done:
            if self._decoder.eof and not self._next_member():
                break
            chunk = self._decode(limit)
            if chunk:
                return chunk
        return b""

    def _decode(self, limit: int) -> bytes:
        given = self._rest
        self._rest = b""
        if self._decoder.needs_input and not given:
            given = self._stream.read(_CHUNK)
            if not given:
                raise LayerError(f"{self._kind} stream is truncated")
        try:
            chunk: bytes = self._decoder.decompress(given, limit)
        except Exception as error:  # each decoder has exceptions of its own
            raise LayerError(f"{self._kind} stream is broken: {error}") from error
        return chunk

    def _next_member(self) -> bool:
        """Go on with the next member. Zeros after the last one are padding, as gzip(1) takes them."""
        self._rest = self._decoder.unused_data.lstrip(b"\0")
        while not self._rest:
            chunk = self._stream.read(_CHUNK)
            if not chunk:
                self._is_done = True
                return False
            self._rest = chunk.lstrip(b"\0")
        self._decoder = _decoder(self._kind)
        return True


def _decoder(kind: str) -> Any:
    if kind == "gzip":
        from isal import igzip_lib

        return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    if kind == "bzip2":
        import bz2

        return bz2.BZ2Decompressor()
    import lzma

    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=1 << 30)


class _ZstdStream:
    """zstd frames, with a limit on the window that a frame may ask memory for."""

    def __init__(self, stream: Readable) -> None:
        import zstandard

        from cache.zstdframes import WholeFrames

        whole = WholeFrames(stream)
        decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        self._error = zstandard.ZstdError
        self._reader = decoder.stream_reader(whole, read_size=_CHUNK, read_across_frames=True)  # type: ignore[arg-type]

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the end."""
        try:
            return self._reader.read(size if size >= 0 else _CHUNK)
        except self._error as error:
            raise LayerError(f"zstd stream is broken: {error}") from error


class _GzipCompressor:
    """gzip (RFC 1952) without a name and with time 0.

    The library's output depends on where the input is cut, so that is done in blocks of one size here: the bytes of
    a layer are the same wherever they come from.
    """

    def __init__(self, level: int) -> None:
        from isal import isal_zlib

        self._deflate = isal_zlib.compressobj(level, isal_zlib.DEFLATED, -15)
        self._crc32: Callable[[bytes, int], int] = isal_zlib.crc32
        self._crc = 0
        self._size = 0
        self._head = _GZIP_HEADER
        self._waiting: list[bytes] = []
        self._waiting_size = 0

    def compress(self, chunk: bytes, /) -> bytes:
        """What is ready after `chunk`, often nothing."""
        self._crc = self._crc32(chunk, self._crc)
        self._size += len(chunk)
        self._waiting.append(chunk)
        self._waiting_size += len(chunk)
        return self._blocks() if self._waiting_size >= _GZIP_BLOCK else b""

    def _blocks(self) -> bytes:
        """Compress what is there of whole blocks."""
        waiting = memoryview(b"".join(self._waiting))
        whole = len(waiting) - len(waiting) % _GZIP_BLOCK
        out = [self._deflate.compress(waiting[at : at + _GZIP_BLOCK]) for at in range(0, whole, _GZIP_BLOCK)]
        self._waiting = [bytes(waiting[whole:])]
        self._waiting_size = len(waiting) - whole
        head, self._head = self._head, b""
        return head + b"".join(out)

    def flush(self) -> bytes:
        """The rest, with the check sum."""
        tail = struct.pack("<II", self._crc, self._size & 0xFFFFFFFF)
        rest = self._deflate.compress(b"".join(self._waiting))
        return self._head + bytes(rest) + bytes(self._deflate.flush()) + tail


class _Plain:
    """No compression."""

    def compress(self, chunk: bytes, /) -> bytes:
        """The chunk itself."""
        return chunk

    def flush(self) -> bytes:
        """Nothing."""
        return b""
