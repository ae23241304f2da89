"""One repository of a registry: its blobs, manifests, tags and referrers (OCI distribution-spec 1.1).

What comes back is verified against its digest before anybody sees it. Addresses that a manifest names (`urls`) are
never followed. Knows no store and no platform.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from builder.image.document import MAX_DOCUMENT_SIZE, parse_document
from builder.registry.auth import Scopes, scope
from builder.registry.blobstream import BlobStream
from builder.registry.endpoint import Endpoint
from builder.registry.errors import NotFoundError, RegistryError, WrongContentError
from builder.registry.session import Call, Session, origin
from builder.registry.upload import BlobUpload, Uploaded
from cache.blobs import Readable
from cache.descriptor import (
    MEDIA_DOCKER_INDEX,
    MEDIA_DOCKER_MANIFEST,
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    Descriptor,
)
from cache.digest import Digest, sha256_bytes
from cache.errors import CacheError
from cache.namedtuple import NamedTuple

if TYPE_CHECKING:
    from hashlib import _Hash

_ACCEPT = ", ".join((MEDIA_INDEX, MEDIA_MANIFEST, MEDIA_DOCKER_INDEX, MEDIA_DOCKER_MANIFEST))
_PAGES = 1000
_TRIES = 3
"""Of a document that comes whole, but with the wrong digest."""


class FetchedManifest(NamedTuple):
    """A manifest or an index with its own bytes."""

    media_type: str
    digest: Digest
    raw: bytes

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, self.digest, len(self.raw))


class Repository:
    """See the module. Any thread may use it. Everything raises RegistryError or one of its kinds.

    `may_push` asks for the right to write from the first request on.
    """

    def __init__(self, session: Session, *, may_push: bool = False) -> None:
        self._session = session
        self._name = session.endpoint.repository
        self._scopes: Scopes = scope(self._name, ("pull", "push") if may_push else ("pull",))

    @property
    def endpoint(self) -> Endpoint:
        """Where it is."""
        return self._session.endpoint

    def __str__(self) -> str:
        return str(self._session.endpoint)

    # Manifests

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Media type, digest and size of what a tag or digest names, None when there is no such thing. One HEAD."""
        call = Call("HEAD", f"{self._name}/manifests/{reference}", self._scopes, {"Accept": _ACCEPT})
        try:
            reply = self._session.call(call)
        except NotFoundError:
            return None
        reply.close()
        size = reply.headers.get("Content-Length", "")
        try:
            digest = Digest.parse(reply.headers.get("Docker-Content-Digest", ""))
        except CacheError:
            return self.manifest(reference).descriptor
        return Descriptor(_plain_type(reply.headers.get("Content-Type", "")), digest, int(size or 0))

    def manifest(self, reference: str) -> FetchedManifest:
        """What a tag or digest names, at most 4 MiB, verified. NotFoundError, WrongContentError."""
        call = Call("GET", f"{self._name}/manifests/{reference}", self._scopes, {"Accept": _ACCEPT})
        for number in range(_TRIES):
            reply, raw = self._session.fetch(call, MAX_DOCUMENT_SIZE)
            promised = reply.headers.get("Docker-Content-Digest", "")
            actual = sha256_bytes(raw)
            wanted = reference if ":" in reference else promised
            if actual == wanted or not wanted.startswith("sha256:"):
                break
            if number == _TRIES - 1:
                raise WrongContentError(
                    f"{self}: manifest {wanted} came with the digest {actual}",
                    hint="the registry, or a proxy on the way, is damaged",
                )
        document = parse_document(raw, f"{self}: manifest {reference}")
        media_type = document.get("mediaType") or _plain_type(reply.headers.get("Content-Type", ""))
        return FetchedManifest(str(media_type), actual, raw)

    def put_manifest(self, raw: bytes, media_type: str, reference: str = "") -> Digest:
        """Store a manifest or index under a tag or (default) its digest; what it refers to is there already. Its
        digest. Idempotent."""
        return self.push_manifest(raw, media_type, reference)[0]

    def push_manifest(self, raw: bytes, media_type: str, reference: str = "") -> tuple[Digest, bool]:
        """The same; and whether the registry has listed it among the referrers of its subject."""
        digest = sha256_bytes(raw)
        call = Call(
            "PUT",
            f"{self._name}/manifests/{reference or digest}",
            self._scopes,
            {"Content-Type": media_type},
            raw,
            expected=(201, 202),
        )
        for _ in range(_TRIES):
            reply = self._session.call(call)
            reply.close()
            stored = reply.headers.get("Docker-Content-Digest", "")
            if not stored.startswith("sha256:") or stored == digest:
                return digest, bool(reply.headers.get("OCI-Subject"))
        raise WrongContentError(
            f"{self}: the registry stored manifest {digest} as {stored}",
            hint="the registry, or a proxy on the way, is damaged",
        )

    # Blobs

    def blob_size(self, digest: Digest) -> int | None:
        """The size of a blob in bytes, None when it is not there. One HEAD."""
        try:
            reply = self._session.call(Call("HEAD", f"{self._name}/blobs/{digest}", self._scopes))
        except NotFoundError:
            return None
        reply.close()
        size = reply.headers.get("Content-Length", "")
        return int(size) if size.isascii() and size.isdecimal() else None

    def has_blob(self, digest: Digest) -> bool:
        """Whether the repository has a blob. One HEAD."""
        return self.blob_size(digest) is not None

    def open_blob(self, blob: Descriptor, *, offset: int = 0, content: _Hash | None = None) -> BlobStream:
        """A blob's bytes as a stream that resumes and verifies itself; close it. Nothing is asked before the first
        read. From `offset` on when `content`, a sha256, has those before."""
        call = Call("GET", f"{self._name}/blobs/{blob.digest}", self._scopes)
        return BlobStream(self._session, call, blob, offset=offset, content=content)

    def read_blob(self, blob: Descriptor, limit: int = MAX_DOCUMENT_SIZE) -> bytes:
        """A whole small blob, verified. WrongContentError also when its descriptor says more than `limit` bytes."""
        if blob.size > limit:
            raise WrongContentError(f"{self}: blob {blob.digest} is too large: {blob.size} bytes, at most {limit}")
        for number in range(_TRIES):
            with self.open_blob(blob) as stream:
                try:
                    return b"".join(iter(stream.read, b""))
                except WrongContentError:
                    if number == _TRIES - 1:
                        raise
        raise AssertionError("the last try returns or raises")

    def upload(
        self,
        blob: Descriptor,
        open_stream: Callable[[], Readable],
        *,
        mount_from: Iterable[str] = (),
        on_sent: Callable[[int], object] = lambda _: None,
    ) -> Uploaded:
        """Bring a blob there: nothing is sent when it is there already, or can be mounted from one of those
        repositories of the same registry. `open_stream` gives the bytes from the start, again after a failure;
        `on_sent` hears of every piece. Idempotent."""
        return BlobUpload(self._session, blob, open_stream, on_sent=on_sent).run(mount_from)

    def upload_bytes(self, raw: bytes, media_type: str) -> Descriptor:
        """The same for a small blob in memory; its descriptor."""
        import io

        blob = Descriptor(media_type, sha256_bytes(raw), len(raw))
        self.upload(blob, lambda: io.BytesIO(raw))
        return blob

    # Lists

    def tags(self) -> list[str]:
        """Every tag, as the registry orders them."""
        found: list[str] = []
        for document in self.pages(f"{self._name}/tags/list", "tags list"):
            tags = document.get("tags") or []
            found += [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
        return found

    def pages(self, target: str, what: str) -> Iterator[dict[str, Any]]:
        """The JSON documents of a list that may come in pages (Link, rel="next")."""
        for _ in range(_PAGES):
            reply, raw = self._session.fetch(Call("GET", target, self._scopes), MAX_DOCUMENT_SIZE)
            yield parse_document(raw, f"{self}: {what}")
            following = _next_page(reply.headers.get("Link", ""))
            if not following:
                return
            target = urljoin(reply.url, following)
            if origin(target) != origin(reply.url):
                raise RegistryError(f"{self}: the next page of the {what} is on another host")
        raise RegistryError(f"{self}: the {what} has more than {_PAGES} pages")


def _plain_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip()


def _next_page(link: str) -> str:
    """The address in `<…>; rel="next"`, "" for none."""
    address, _, parameters = link.partition(">")
    return address.strip().removeprefix("<") if 'rel="next"' in parameters or "rel=next" in parameters else ""
