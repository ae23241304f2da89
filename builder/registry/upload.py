"""Blobs to a registry (distribution-spec, Pushing blobs): what is there is not sent, what a neighbour has is mounted.

A small blob goes in one PUT. A larger one goes as a stream in one PATCH; when that breaks, the registry is asked how
much it got and the rest follows as a chunk, and a registry that refuses so long a request (413) gets chunks from the
start. What the registry has forgotten begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from urllib.parse import quote, urljoin

from builder.registry.auth import Scope, Scopes
from builder.registry.errors import NotFoundError, RegistryError, UnreachableError
from builder.registry.session import ATTEMPTS, Call, Patience, Session, check_redirect
from builder.registry.transport import Reply
from cache.blobs import Readable
from cache.descriptor import Descriptor
from cache.namedtuple import NamedTuple

MONOLITHIC = 1 << 20
"""Bytes of a blob that goes in a single request."""
CHUNK = 8 << 20
_MOUNTS = 4
"""Repositories that are asked; each that has not got the blob costs a request."""
_READ = 1 << 18
_LOST = frozenset((400, 404, 409, 416))
"""What a registry says of an upload that it does not know, or not at this place."""
_TRIES = 3
"""Of a blob that the registry says came with the wrong digest."""
_WRONG_DIGEST = "DIGEST_INVALID"


class Uploaded(NamedTuple):
    """What became of a blob: `present`, `mounted` or `sent`, and for a mount the repository it came from."""

    how: str
    source: str = ""


class _Part:
    """A piece of a stream, as a request's body; tells what was read of it."""

    def __init__(self, stream: Readable, size: int, on_sent: Callable[[int], object]) -> None:
        self._stream = stream
        self._left = size
        self._on_sent = on_sent

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the end of the piece."""
        chunk = self._stream.read(min(self._left, _READ if size < 0 else size)) if self._left else b""
        self._left -= len(chunk)
        self._on_sent(len(chunk))
        return chunk


class BlobUpload:
    """One blob on its way. `open_stream` gives its bytes from the start, as often as it is asked; what it gives is
    closed, if it can be."""

    def __init__(
        self,
        session: Session,
        blob: Descriptor,
        open_stream: Callable[[], Readable],
        *,
        on_sent: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._session = session
        self._repository = session.endpoint.repository
        self._blob = blob
        self._open_stream = open_stream
        self._on_sent = on_sent
        self._scopes: Scopes = frozenset((Scope(self._repository, frozenset(("pull", "push"))),))
        self._patience = Patience(session.transport, ATTEMPTS)
        self._opened: list[Readable] = []
        self._location = ""
        self._offset = 0
        self._chunk = 0
        self._wrong = 0

    def run(self, mount_from: Iterable[str] = ()) -> Uploaded:
        """Bring the blob there. RegistryError when the registry does not take it. Idempotent."""
        while True:
            if self._is_present():
                return Uploaded("present")
            try:
                source = self._mount(mount_from)
                if source is not None:
                    return Uploaded("mounted", source)
                self._send()
                return Uploaded("sent")
            except RegistryError as error:
                mount_from = ()
                self._after(error)

    def _is_present(self) -> bool:
        try:
            self._call(Call("HEAD", f"{self._repository}/blobs/{self._blob.digest}")).close()
        except NotFoundError:
            return False
        return True

    def _mount(self, candidates: Iterable[str]) -> str | None:
        """The repository that lent the blob, None when none did; an upload may have begun then."""
        neighbours = [source for source in candidates if source != self._repository]
        for source in neighbours[:_MOUNTS]:
            target = f"{self._repository}/blobs/uploads/?mount={self._blob.digest}&from={quote(source, safe='/')}"
            scopes = self._scopes | {Scope(source, frozenset(("pull",)))}
            call = Call("POST", target, scopes, {"Content-Length": "0"}, expected=(201, 202))
            try:
                reply = self._session.call(call)
            except RegistryError as error:
                if not 400 <= error.status < 500:
                    raise
                continue  # what we may not read there, or the registry does not lend at all, is sent instead
            reply.close()
            if reply.status == 201:
                return source
            self._moved(reply)
        return None

    def _send(self) -> None:
        """From wherever the upload stands to its end."""
        while True:
            try:
                self._send_once()
                return
            except RegistryError as error:
                self._after(error)
                self._find_place()
                if not self._location and self._is_present():
                    return  # its last answer got lost

    def _after(self, error: RegistryError) -> None:
        """Wait for another try, or raise: a refusal is final, a lost upload or connection is not."""
        if error.status == 413 and (not self._chunk or self._chunk > CHUNK):
            self._chunk = CHUNK
            self._location = ""
            return
        if _WRONG_DIGEST in str(error):
            self._wrong += 1
            if self._wrong >= _TRIES:
                error.hint = "the registry, or a proxy on the way, is damaged"
                raise error
        elif not isinstance(error, UnreachableError) and error.status not in _LOST:
            raise error
        if error.status in _LOST:
            self._location = ""
        self._patience.after_error(error)

    def _find_place(self) -> None:
        """How much of the blob the registry has got; from the start when it cannot say."""
        if not self._location:
            return
        try:
            reply = self._call(Call("GET", self._location, expected=(204,), attempts=2))
        except RegistryError:
            self._location = ""
            return
        reply.close()
        before = self._offset
        self._moved(reply)
        if self._offset > before:
            self._patience.renew()

    def _begin(self) -> None:
        call = Call("POST", f"{self._repository}/blobs/uploads/", headers={"Content-Length": "0"}, expected=(202,))
        reply = self._call(call)
        reply.close()
        smallest = reply.headers.get("OCI-Chunk-Min-Length", "")
        if self._chunk and smallest.isascii() and smallest.isdecimal():
            self._chunk = max(self._chunk, int(smallest))
        self._offset = 0
        self._moved(reply)

    def _moved(self, reply: Reply) -> None:
        """Take in where the upload goes on, and from which byte."""
        target = reply.headers.get("Location")
        if not target:
            raise RegistryError(f"{self._session.endpoint.host}: the answer to an upload has no Location")
        moved = urljoin(reply.url, target)
        check_redirect(reply.url, moved)
        self._location = moved
        _, dash, last = reply.headers.get("Range", "").removeprefix("bytes=").rpartition("-")
        if dash and last.isascii() and last.isdecimal():
            # "0-0" is what registries say of nothing, too; a single byte is sent again at no cost
            self._offset = int(last) + 1 if int(last) else 0

    def _send_once(self) -> None:
        if not self._location:
            self._begin()
        if self._offset == 0 and self._blob.size <= MONOLITHIC and not self._chunk:
            self._finish(self._blob.size)
            return
        while self._offset < self._blob.size:
            self._patch()
        self._finish(0)

    def _patch(self) -> None:
        begin = self._offset
        size = min(self._blob.size - begin, self._chunk or self._blob.size)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        if size < self._blob.size:
            headers["Content-Range"] = f"{begin}-{begin + size - 1}"
        body = self._body(begin, size)
        reply = self._call(Call("PATCH", self._location, headers=headers, body=body, expected=(202,), attempts=1))
        reply.close()
        self._offset = begin + size
        self._moved(reply)
        if not begin < self._offset <= begin + size:
            self._offset = begin + size  # some registries always say the same; the digest tells in the end
        self._patience.renew()

    def _finish(self, size: int) -> None:
        target = f"{self._location}{'&' if '?' in self._location else '?'}digest={quote(self._blob.digest, safe='')}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        body = self._body(0, size) if size else None
        call = Call("PUT", target, headers=headers, body=body, expected=(201, 204), attempts=1)
        self._call(call).close()

    def _body(self, begin: int, size: int) -> Callable[[], Readable]:
        def open_part() -> Readable:
            stream = self._open_stream()
            self._opened.append(stream)
            left = begin
            while left and (chunk := stream.read(min(left, _READ))):
                left -= len(chunk)
            return _Part(stream, size, self._on_sent)

        return open_part

    def _call(self, call: Call) -> Reply:
        try:
            return self._session.call(call._replace(scopes=self._scopes))
        finally:
            while self._opened:
                close = getattr(self._opened.pop(), "close", None)
                if close is not None:
                    close()
