"""A blob's bytes from a registry, as one stream whatever happens to the connections under it.

A connection that breaks is replaced by one that goes on where it broke (Range). The stream ends only when the size and
the digest are right; bytes that are not are a WrongContentError.
"""

from __future__ import annotations

import hashlib
import re
from types import TracebackType
from typing import TYPE_CHECKING

from builder.registry.errors import UnreachableError, WrongContentError
from builder.registry.session import Call, Patience, Session
from builder.registry.transport import Reply, TransportError
from cache.descriptor import Descriptor

if TYPE_CHECKING:
    from hashlib import _Hash

_CHUNK = 1 << 20
_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


class BlobStream:
    """See the module. A context manager; `offset` bytes, hashed into `content`, are there already."""

    def __init__(
        self, session: Session, call: Call, blob: Descriptor, *, offset: int = 0, content: _Hash | None = None
    ) -> None:
        self._session = session
        self._call = call
        self._blob = blob
        self._hash = content if content is not None else hashlib.sha256()
        self._patience = Patience(session.transport, call.attempts)
        self._reply: Reply | None = None
        self.offset = offset
        """How many bytes have come."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the verified end. UnreachableError, WrongContentError and what a session
        raises."""
        left = self._blob.size - self.offset
        if left == 0:
            self._verify()
            return b""
        while True:
            chunk = self._try(min(left, size if size >= 0 else _CHUNK))
            if chunk:
                self._hash.update(chunk)
                self.offset += len(chunk)
                self._patience.renew()
                return chunk

    def _try(self, size: int) -> bytes:
        """Some bytes, or none after a failure that is worth another try."""
        self._session.transport.check()
        try:
            if self._reply is None:
                self._reply = self._open()
            chunk = self._reply.read(size)
            if chunk:
                return chunk
            failure = UnreachableError(
                f"{self._session.endpoint.host}: blob {self._blob.digest} ends after {self.offset} bytes, "
                f"expected {self._blob.size}"
            )
        except TransportError as error:
            failure = error
        self.close()
        self._patience.after_error(failure)
        return b""

    def _open(self) -> Reply:
        if self.offset == 0:
            return self._session.call(self._call)
        headers = {**self._call.headers, "Range": f"bytes={self.offset}-{self._blob.size - 1}"}
        reply = self._session.call(self._call._replace(headers=headers, expected=(200, 206)))
        if reply.status == 206:
            place = _RANGE.fullmatch(reply.headers.get("Content-Range", ""))
            if place is None or int(place[1]) != self.offset:
                reply.close()
                raise WrongContentError(f"{self._session.endpoint.host} answers with another range than was asked for")
            return reply
        left = self.offset  # a server without ranges begins at the beginning
        while left and (chunk := reply.read(min(left, _CHUNK))):
            left -= len(chunk)
        return reply

    def _verify(self) -> None:
        actual = f"sha256:{self._hash.hexdigest()}"
        self.close()
        if actual != self._blob.digest:
            raise WrongContentError(
                f"{self._session.endpoint.host}: blob {self._blob.digest} came with the digest {actual}",
                hint="the registry, or a proxy on the way, is damaged",
            )

    def close(self) -> None:
        """Give the connection back or up. Idempotent."""
        if self._reply is not None:
            reply, self._reply = self._reply, None
            reply.close()

    def __enter__(self) -> BlobStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
