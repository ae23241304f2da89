"""Sparse members in all of GNU tar's formats, whole and broken."""

from __future__ import annotations

import io
import tarfile

import pytest

from cache.errors import LayerError
from cache.tarreader import read_tar

PARTS = [(0, 3), (1000, 5), (4000, 0)]
SIZE = 4000
WHOLE = b"abc" + bytes(997) + b"defgh" + bytes(SIZE - 1005)
PACKED = b"abcdefgh"


def pad(body: bytes) -> bytes:
    return body + bytes(-len(body) % 512)


def header(name: str, size: int, kind: bytes = b"0") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.USTAR_FORMAT)


def pax(*records: tuple[str, object]) -> bytes:
    body = b""
    for key, value in records:
        record = f" {key}={value}\n"
        length = next(n for n in range(1000) if n == len(str(n)) + len(record))
        body += f"{length}{record}".encode()
    return header("pax", len(body), b"x") + pad(body)


def with_numbers(packed: bytes = PACKED) -> bytes:
    records = [("GNU.sparse.size", SIZE), ("GNU.sparse.numblocks", len(PARTS))]
    for offset, length in PARTS:
        records += [("GNU.sparse.offset", offset), ("GNU.sparse.numbytes", length)]
    return pax(*records) + header("f", len(packed)) + pad(packed)


def with_map(parts: object = "0,3,1000,5,4000,0", size: object = SIZE) -> bytes:
    records = pax(("GNU.sparse.name", "f"), ("GNU.sparse.size", size), ("GNU.sparse.map", parts))
    return records + header("GNUSparseFile.0/f", len(PACKED)) + pad(PACKED)


def with_leading_map(lines: str = "3\n0\n3\n1000\n5\n4000\n0\n") -> bytes:
    records = pax(
        ("GNU.sparse.major", 1), ("GNU.sparse.minor", 0), ("GNU.sparse.name", "f"), ("GNU.sparse.realsize", SIZE)
    )
    body = pad(lines.encode()) + PACKED
    return records + header("GNUSparseFile.0/f", len(body)) + pad(body)


def old(parts: list[tuple[int, int]], packed: bytes, size: int) -> bytes:
    entries = [b"%011o\0%011o\0" % part for part in parts]
    block = bytearray(header("f", len(packed), b"S"))
    block[257:265] = b"ustar  \0"
    block[345:] = bytes(167)
    block[386:482] = b"".join(entries[:4]).ljust(96, b"\0")
    block[482] = len(entries) > 4
    block[483:495] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    further = b""
    for start in range(4, len(entries), 21):
        further += (
            b"".join(entries[start : start + 21]).ljust(504, b"\0") + bytes([start + 21 < len(entries)]) + bytes(7)
        )
    return bytes(block) + further + pad(packed)


def read(*members: bytes) -> list[tuple[str, int, bytes]]:
    found = read_tar(io.BytesIO(b"".join(members) + bytes(1024)))
    return [(member.name, member.size, b"".join(member.chunks())) for member in found]


@pytest.mark.parametrize(
    "member",
    [with_numbers(), with_map(), with_leading_map(), old(PARTS, PACKED, SIZE)],
    ids=["0.0", "0.1", "1.0", "old"],
)
def test_the_whole_file_is_read_and_what_follows_too(member: bytes) -> None:
    after = header("after", 2) + pad(b"ok")
    assert read(member, after) == [("f", SIZE, WHOLE), ("after", 2, b"ok")]
    skipped = read_tar(io.BytesIO(member + after + bytes(1024)))
    assert [found.name for found in skipped] == ["f", "after"]


def test_many_parts_go_on_in_further_blocks() -> None:
    parts = [(1000 * number, 2) for number in range(60)]
    ((_, size, content),) = read(old(parts, b"xy" * 60, 60000))
    assert size == len(content) == 60000
    assert all(content[offset : offset + 2] == b"xy" for offset, _ in parts)
    assert content.count(b"\0") == 60000 - 120


@pytest.mark.parametrize(
    "member",
    [
        with_map("0,3,1000"),
        with_map("0,3,2,5"),
        with_map("0,9,4000,0"),
        with_map("3990,20"),
        with_map("x,1"),
        with_map("-1,2"),
        with_map(size="big"),
        with_leading_map("x\n"),
        with_leading_map("99999999999999999999\n"),
        with_leading_map("2\n0\n3\n"),
        with_numbers(b"abc"),
    ],
)
def test_a_broken_map_is_a_layer_error(member: bytes) -> None:
    with pytest.raises(LayerError):
        read(member)
