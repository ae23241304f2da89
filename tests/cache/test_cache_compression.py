from __future__ import annotations

import gzip
import io
import random
from typing import Any

import pytest
import zstandard

from cache.compression import compressor, open_decompressed
from cache.errors import LayerError

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


@pytest.mark.parametrize("level", [1, 19])
@pytest.mark.parametrize("options", [{}, {"write_checksum": True}, {"write_content_size": False}])
@pytest.mark.parametrize("content", [b"", b"x", b"a" * 300_000, random.Random(1).randbytes(300_000)])
def test_a_zstd_stream_that_ends_anywhere_but_at_a_frame_is_broken(
    level: int, options: dict[str, Any], content: bytes
) -> None:
    packer = zstandard.ZstdCompressor(level=level, **options)
    skippable = (0x184D2A53).to_bytes(4, "little") + (5).to_bytes(4, "little") + b"12345"
    whole = packer.compress(content) + skippable + packer.compress(b"more")
    frame = len(packer.compress(content))
    assert read_out(whole) == content + b"more"
    assert read_out(whole[:frame]) == read_out(whole[: frame + len(skippable)]) == content
    for end in {6, 9, frame - 1, frame + 1, frame + 7, frame + 12, frame + 14, len(whole) - 1} - {frame}:
        with pytest.raises(LayerError):
            read_out(whole[:end])


def read_out(packed: bytes) -> bytes:
    stream = open_decompressed(io.BytesIO(packed))
    return b"".join(iter(lambda: stream.read(1000), b""))
