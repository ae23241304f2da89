from __future__ import annotations

import gzip

import pytest

from cache.compression import compressor

CONTENT = b"".join(b"line %d of a layer\n" % number for number in range(200_000))


def compressed(kind: str, step: int) -> bytes:
    """The content, handed over in pieces of `step` bytes."""
    stream = compressor(kind)
    pieces = [stream.compress(CONTENT[at : at + step]) for at in range(0, len(CONTENT), step)]
    return b"".join([*pieces, stream.flush()])


@pytest.mark.parametrize("kind", ["gzip", "zstd", "none"])
def test_bytes_do_not_depend_on_how_the_input_is_cut(kind: str) -> None:
    assert len({compressed(kind, step) for step in (997, 1 << 16, 1 << 20, (1 << 20) + 1, len(CONTENT))}) == 1


def test_gzip_is_gzip_without_name_and_time() -> None:
    stream = compressed("gzip", 1 << 16)
    assert gzip.decompress(stream) == CONTENT
    assert stream[4:8] == b"\0\0\0\0"


def test_empty_gzip() -> None:
    stream = compressor("gzip")
    assert gzip.decompress(stream.flush()) == b""
