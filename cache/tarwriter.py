"""Tar entries as bytes: POSIX ustar headers, PAX records only where ustar has no room (pax(1), extended header
keywords).

Deterministic: numeric owners without names, whole seconds, no access times, the same entry always gives the same
bytes. Knows no file system.
"""

from __future__ import annotations

from cache.namedtuple import NamedTuple

BLOCK = 512
REGULAR, HARDLINK, SYMLINK, CHARDEV, BLOCKDEV, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
END = bytes(2 * BLOCK)

_MAX_ID = 0o7777777
_MAX_SIZE = _MAX_TIME = 0o77777777777
_MAGIC = b"ustar\x0000"
_NO_NAMES = bytes(64)
_NO_DEVICE = b"0000000\x000000000\x00"
_BLANK_CHECKSUM = 8 * 32


class TarEntry(NamedTuple):
    """One tar member without its content. `mtime` is in seconds; a directory's name ends with a slash."""

    name: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    linkname: bytes = b""
    devmajor: int = 0
    devminor: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


def encode(entry: TarEntry) -> bytes:
    """The entry's header, a multiple of 512 bytes; its content and `padding` follow."""
    name, linkname, prefix = entry.name, entry.linkname, b""
    uid, gid, size, mtime = entry.uid, entry.gid, entry.size, entry.mtime
    records: list[tuple[bytes, bytes]] = []
    if len(name) > 100 or not name.isascii():
        prefix, name = _split(name)
        if len(name) > 100 or not name.isascii() or not prefix.isascii():
            records.append((b"path", entry.name))
            prefix, name = b"", _plain(entry.name)
    if len(linkname) > 100 or not linkname.isascii():
        records.append((b"linkpath", linkname))
        linkname = _plain(linkname)
    if uid > _MAX_ID:
        records.append((b"uid", b"%d" % uid))
        uid = 0
    if gid > _MAX_ID:
        records.append((b"gid", b"%d" % gid))
        gid = 0
    if size > _MAX_SIZE:
        records.append((b"size", b"%d" % size))
        size = 0
    if not has_plain_time(entry):
        records.append((b"mtime", b"%d" % mtime))
        mtime = 0
    if entry.xattrs:
        records += [(b"SCHILY.xattr." + key, value) for key, value in entry.xattrs]
    fields = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (entry.mode & 0o7777, uid, gid, size, mtime)
    header = _header(entry, name, prefix, fields, linkname)
    return _extended(entry.name, records) + header if records else header


def has_plain_time(entry: TarEntry) -> bool:
    """Whether the time stands in the ustar header and not in a PAX record."""
    return 0 <= entry.mtime <= _MAX_TIME


def timeless(entry: TarEntry, header: bytes) -> tuple[bytes, bytes]:
    """What a content digest covers of an entry whose `header` this is: all but the time and the check sum over it."""
    kept = header if has_plain_time(entry) else encode(entry._replace(mtime=0))
    return kept[: -BLOCK + 136], kept[-BLOCK + 156 :]


def padding(size: int) -> bytes:
    """The zeros after `size` bytes of content."""
    return bytes(-size % BLOCK)


def _header(entry: TarEntry, name: bytes, prefix: bytes, fields: bytes, linkname: bytes) -> bytes:
    device = _NO_DEVICE
    if entry.devmajor or entry.devminor:
        device = b"%07o\0%07o\0" % (entry.devmajor, entry.devminor)
    middle = entry.type + linkname.ljust(100, b"\0") + _MAGIC
    checksum = sum(name) + sum(fields) + _BLANK_CHECKSUM + sum(middle) + sum(device) + sum(prefix)
    return b"%b%b%06o\0 %b%b%b%b" % (
        name.ljust(100, b"\0"),
        fields,
        checksum,
        middle,
        _NO_NAMES,
        device,
        prefix.ljust(167, b"\0"),
    )


def _split(name: bytes) -> tuple[bytes, bytes]:
    """The name as ustar's prefix (155 bytes) and name (100 bytes), or with an empty prefix if that cannot be."""
    slash = name.rfind(b"/", 0, min(156, len(name) - 1))
    return (name[:slash], name[slash + 1 :]) if slash > 0 else (b"", name)


def _plain(name: bytes) -> bytes:
    """What fits of a name, for readers without PAX. It keeps a directory's slash, which old readers tell it by."""
    ascii_name = bytes(byte for byte in name if byte < 128)
    return ascii_name if len(ascii_name) <= 100 else ascii_name[:99] + name[-1:]


def _extended(name: bytes, records: list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(_record(key, value) for key, value in sorted(records))
    fields = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (0o644, 0, 0, len(body), 0)
    entry = TarEntry(b"", b"x", 0, 0, 0, 0, 0)
    short = b"PaxHeaders.0/" + _plain(name.rstrip(b"/").rpartition(b"/")[2])[:80]
    return _header(entry, short, b"", fields, b"") + body + padding(len(body))


def _record(key: bytes, value: bytes) -> bytes:
    """One PAX record, `<length> <key>=<value>`, where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)
