"""Reading tar streams: ustar, PAX, GNU and old ones, member by member, in constant memory.

Strict where it matters: a bad check sum, a truncated stream and absurd sizes are LayerErrors. Says what the archive
says and does nothing with it; in particular names are not checked here.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cache.blobs import Readable
from cache.errors import LayerError
from cache.namedtuple import NamedTuple

if TYPE_CHECKING:
    from cache.tarsparse import SparseContent

REGULAR, HARDLINK, SYMLINK, CHARDEV, BLOCKDEV, DIRECTORY, FIFO = "0", "1", "2", "3", "4", "5", "6"

_BLOCK = 512
_CHUNK = 1 << 20
_MAX_EXTENSION = 1 << 20
_XATTR = "SCHILY.xattr."
_SPARSE = "GNU.sparse."
_SPARSE_PAIRS = (_SPARSE + "offset", _SPARSE + "numbytes")
_OLD_SPARSE = "S"


class TarMember(NamedTuple):
    """One member. `name` and `linkname` are as in the archive, odd bytes by surrogateescape; a directory has no size.

    `content` is readable until the next member is asked for.
    """

    name: str
    type: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    linkname: str
    devmajor: int
    devminor: int
    xattrs: dict[str, bytes]
    content: Content | SparseContent

    def chunks(self) -> Iterator[bytes]:
        """The member's bytes in chunks of at most 1 MiB; LayerError if the stream ends before."""
        while chunk := self.content.read(_CHUNK):
            yield chunk


class Content:
    """What is left to read of the current member."""

    def __init__(self, stream: Readable, size: int) -> None:
        self._stream = stream
        self._left = size
        self._padding = -size % _BLOCK

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the end of the member."""
        wanted = self._left if size < 0 else min(size, self._left)
        chunk = _read_exactly(self._stream, wanted)
        if len(chunk) < wanted:
            raise LayerError("tar stream is truncated: it ends within a member")
        self._left -= wanted
        return chunk

    def skip(self) -> None:
        """Read to the next header."""
        self._left += self._padding
        self._padding = 0
        while self._left:
            self.read(_CHUNK)


def is_tar_header(block: bytes) -> bool:
    """Whether a stream that begins with these 512 bytes is a tar with something in it."""
    try:
        return _next_header(io.BytesIO(block)) is not None
    except LayerError:
        return False


def read_tar(stream: Readable) -> Iterator[TarMember]:
    """The members of a plain tar stream, in order. LayerError when it is no tar or a broken one; nothing for no bytes.

    Like Go's archive/tar it ends at two zero blocks or at the end of the stream between two members.
    """
    extensions = _Extensions()
    while (header := _next_header(stream)) is not None:
        kind = header[156:157]
        size = _number(header, 124, 136)
        if kind in b"xgLK":
            extensions.add(kind, _extension(stream, size))
            continue
        member = extensions.apply(_member(header, stream, size), stream)
        if kind == b"S":
            member = _old_sparse(member, header, stream)
        if kind == b"\0" and member.name.endswith("/"):
            member = member._replace(type=DIRECTORY)  # archives older than the type for it
        yield member
        member.content.skip()
        extensions.clear()
    if extensions.is_pending:
        raise LayerError("tar stream is truncated: it ends after an extended header")


class _Extensions:
    """What extended headers said about the next member (pax(1); GNU's long names). Global ones are left aside, as Go
    does."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget what was meant for the last member."""
        self._records: dict[str, bytes] = {}
        self._name: bytes | None = None
        self._linkname: bytes | None = None
        self.is_pending = False

    def add(self, kind: bytes, body: bytes) -> None:
        """Take in the body of an extended header."""
        self.is_pending = self.is_pending or kind != b"g"
        if kind == b"L":
            self._name = body.split(b"\0", 1)[0]
        elif kind == b"K":
            self._linkname = body.split(b"\0", 1)[0]
        elif kind == b"x":
            self._records = _pax_records(body)

    def apply(self, member: TarMember, stream: Readable) -> TarMember:
        """The member with what was said about it."""
        if self._name is not None:
            member = member._replace(name=os.fsdecode(self._name))
        if self._linkname is not None:
            member = member._replace(linkname=os.fsdecode(self._linkname))
        if self._records:
            member = _apply_pax(member, self._records, stream)
        return member


def _next_header(stream: Readable) -> bytes | None:
    header = _read_exactly(stream, _BLOCK)
    if not header:
        return None
    if len(header) < _BLOCK:
        raise LayerError("tar stream is truncated: it ends within a header")
    if not header.strip(b"\0"):
        second = _read_exactly(stream, _BLOCK)
        if second.strip(b"\0"):
            raise LayerError("tar stream is broken: a header follows a zero block")
        _drain(stream)
        return None
    stored = _number(header, 148, 156)
    unsigned = sum(header) - sum(header[148:156]) + 256
    if stored != unsigned and stored != unsigned - 256 * sum(byte > 127 for byte in header[:148] + header[156:]):
        raise LayerError("tar stream is broken: a header has the wrong check sum")
    return header


def _drain(stream: Readable) -> None:
    """Read what follows the end, so that digests of the whole stream can be checked. It means nothing."""
    while stream.read(_CHUNK):
        pass


def _member(header: bytes, stream: Readable, size: int) -> TarMember:
    kind = chr(header[156]) if header[156] else REGULAR
    name = _text(header, 0, 100)
    magic = header[257:265]
    if magic[:6] == b"ustar\0" and header[345]:
        name = _text(header, 345, 476 if header[508:] == b"tar\0" else 500) + b"/" + name
    body = 0 if kind in "123456" else size
    has_devices = kind in "34" and magic[:5] == b"ustar"
    return TarMember(
        os.fsdecode(name),
        REGULAR if kind in ("7", _OLD_SPARSE) else kind,
        _number(header, 100, 108) & 0o7777,
        _number(header, 108, 116),
        _number(header, 116, 124),
        body,
        _number(header, 136, 148, signed=True) * 1_000_000_000,
        os.fsdecode(_text(header, 157, 257)),
        _number(header, 329, 337) if has_devices else 0,
        _number(header, 337, 345) if has_devices else 0,
        {},
        Content(stream, body),
    )


def _old_sparse(member: TarMember, header: bytes, stream: Readable) -> TarMember:
    from cache.tarsparse import SparseContent, old_parts

    def block() -> bytes:
        found = _read_exactly(stream, _BLOCK)
        if len(found) < _BLOCK:
            raise LayerError("tar stream is truncated: it ends within a header")
        return found

    size = _number(header, 483, 495)
    return member._replace(size=size, content=SparseContent(member.content, old_parts(header, block, _number), size))


def _pax_sparse(member: TarMember, records: dict[str, bytes]) -> TarMember:
    from cache.tarsparse import SparseContent, pax_parts

    size = _decimal("size", records.get(_SPARSE + "realsize") or records.get(_SPARSE + "size", b""))
    name = os.fsdecode(records[_SPARSE + "name"]) if records.get(_SPARSE + "name") else member.name
    content = SparseContent(member.content, pax_parts(records, member.content), size)
    return member._replace(name=name, size=size, content=content)


def _apply_pax(member: TarMember, records: dict[str, bytes], stream: Readable) -> TarMember:
    changed: dict[str, object] = {}
    for field, key in (("name", "path"), ("linkname", "linkpath")):
        if records.get(key):
            changed[field] = os.fsdecode(records[key])
    for field in ("uid", "gid"):
        if field in records:
            changed[field] = _decimal(field, records[field])
    if "mtime" in records:
        changed["mtime_ns"] = _seconds(records["mtime"])
    if "size" in records and member.type == REGULAR:
        size = _decimal("size", records["size"])
        changed.update(size=size, content=Content(stream, size))
    xattrs = {key.removeprefix(_XATTR): value for key, value in records.items() if key.startswith(_XATTR)}
    member = member._replace(**changed, xattrs=xattrs)  # type: ignore[arg-type]
    if member.type == REGULAR and any(key.startswith(_SPARSE) for key in records):
        return _pax_sparse(member, records)
    return member


def _extension(stream: Readable, size: int) -> bytes:
    if size > _MAX_EXTENSION:
        raise LayerError(f"tar stream is broken: an extended header has {size} bytes")
    content = Content(stream, size)
    body = content.read(size)
    content.skip()
    return body


def _pax_records(body: bytes) -> dict[str, bytes]:
    records: dict[str, bytes] = {}
    pairs: list[bytes] = []
    start = 0
    while start < len(body) and body[start]:
        space = body.find(b" ", start, start + 8)
        digits = body[start:space] if space > start else b""
        end = start + int(digits) if digits.isdigit() else 0
        key, equals, value = body[space + 1 : end].partition(b"=")
        if not equals or not value.endswith(b"\n") or end > len(body):
            raise LayerError("tar stream is broken: an extended header has a malformed record")
        name = os.fsdecode(key)
        if name in _SPARSE_PAIRS:
            pairs.append(value[:-1])
        records[name] = value[:-1]
        start = end
    if pairs:
        # The oldest sparse format says them once for each part; its successor has all in one record.
        records[_SPARSE + "map"] = b",".join(pairs)
    return records


def _text(header: bytes, start: int, end: int) -> bytes:
    return header[start:end].split(b"\0", 1)[0]


def _number(header: bytes, start: int, end: int, *, signed: bool = False) -> int:
    """A field in octal digits, or with the top bit set in binary (GNU)."""
    field = header[start:end]
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & ((1 << bits) - 1)
        if value >> (bits - 1):
            value -= 1 << bits
    else:
        digits = field.strip(b" \0").split(b"\0", 1)[0]
        if digits.strip(b"01234567"):
            raise LayerError(f"tar stream is broken: {field!r} is not an octal number")
        value = int(digits, 8) if digits else 0
    if value < 0 and not signed:
        raise LayerError(f"tar stream is broken: {value} is negative")
    return value


def _decimal(key: str, value: bytes) -> int:
    if not value.isdigit() or len(value) > 19:
        raise LayerError(f"tar stream is broken: {key} is {value!r}")
    return int(value)


def _seconds(value: bytes) -> int:
    """A PAX time in nanoseconds: decimal seconds, perhaps negative, perhaps with a fraction."""
    whole, _, fraction = value.removeprefix(b"-").partition(b".")
    if not whole.isdigit() or len(whole) > 18 or (fraction and not fraction.isdigit()):
        raise LayerError(f"tar stream is broken: mtime is {value!r}")
    nanoseconds = int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    return -nanoseconds if value.startswith(b"-") else nanoseconds


def _read_exactly(stream: Readable, size: int) -> bytes:
    chunk = stream.read(size) if size else b""
    if len(chunk) == size or not chunk:
        return chunk
    parts, missing = [chunk], size - len(chunk)
    while missing and (chunk := stream.read(missing)):
        parts.append(chunk)
        missing -= len(chunk)
    return b"".join(parts)
