"""Content addresses as OCI writes them: `sha256:` and 64 hex digits (image-spec, descriptor, Digests)."""

from __future__ import annotations

import hashlib

from cache.errors import CacheError

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
    return Digest.of_hex(hashlib.sha256(content).hexdigest())
