"""Content addresses as OCI writes them: `sha256:` and 64 hex digits (image-spec, descriptor, Digests)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.errors import CacheError

if TYPE_CHECKING:
    import hashlib
    from hashlib import sha256
else:
    try:
        from _sha256 import sha256
    except ImportError:
        from hashlib import sha256

_PAYS_OFF = 1 << 20
_HEX_DIGITS = frozenset("0123456789abcdef")


class Digest(str):
    """`sha256:<64 lower-case hex digits>`, a plain string that has been checked."""

    __slots__ = ()

    @property
    def algorithm(self) -> str:
        """The part before the colon."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The part after the colon."""
        return self.partition(":")[2]

    @classmethod
    def parse(cls, text: str) -> Digest:
        """`text` as a Digest; CacheError unless it is a well-formed sha256 digest."""
        algorithm, _, digits = text.partition(":")
        if algorithm != "sha256" or len(digits) != 64 or not _HEX_DIGITS.issuperset(digits):
            raise CacheError(f"digest {text!r} is not valid: expected sha256: and 64 lower-case hex digits")
        return cls(text)

    @classmethod
    def of_hex(cls, digits: str) -> Digest:
        """The Digest of 64 hex digits that hashlib just made."""
        return cls("sha256:" + digits)


def sha256_bytes(content: bytes) -> Digest:
    """The digest of `content`."""
    return Digest.of_hex(sha256_hex(content))


def sha256_hex(content: bytes) -> str:
    """The 64 hex digits of the sha256 of `content`."""
    found = new_sha256(len(content))
    found.update(content)
    return found.hexdigest()


def new_sha256(size: int) -> hashlib._Hash:
    """A hash to be fed with about `size` bytes.

    hashlib loads OpenSSL, which takes a third of what Python itself takes to start and pays off for megabytes only. The
    other one is what Python's own `random` does the same with.
    """
    if size < _PAYS_OFF:
        return sha256()
    import hashlib

    return hashlib.sha256()
