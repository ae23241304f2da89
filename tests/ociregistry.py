"""A registry in memory that holds its clients to the letter of the distribution-spec 1.1; the freedoms that it gives to
registries are switches: what they answer to mounts, how large chunks may be, where an upload goes on.

What a client must not do is refused as the specification says, and noted in `violations`.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

from cache.digest import sha256_bytes
from tests.registries import serving

_PATH = re.compile(r"/v2/(?P<name>.+?)/(?P<kind>blobs/uploads|blobs|manifests|referrers|tags)/(?P<reference>[^/]*)")
_INDEX = "application/vnd.oci.image.index.v1+json"
_RANGE = re.compile(r"(\d+)-(\d+)")


class Manifest(NamedTuple):
    """A manifest as it was put."""

    media_type: str
    raw: bytes


class Upload:
    """An upload that has begun; `state` is in its location, and changes with every answer."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.content = b""
        self.state = secrets.token_hex(8)
        self.last_chunk = 0


class OciRegistry:
    """See the module."""

    def __init__(self) -> None:
        self.port = 0
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], Manifest] = {}
        self.uploads: dict[str, Upload] = {}
        self.requests: list[tuple[str, str, int, int]] = []
        """Method, path, status and bytes of the body of every request."""
        self.violations: list[str] = []
        self.mounts = True
        """Whether blobs may be mounted from other repositories; otherwise uploads begin instead."""
        self.lists_referrers = True
        self.chunk_min = 0
        self.chunk_max = 0
        self.tells_places = True
        """Whether Range says how much of an upload has come, or always the same."""
        self.page = 2
        """Entries of a list on a page."""
        self.lock = threading.RLock()

    def name(self, path: str) -> str:
        """The name of an image on it."""
        return f"127.0.0.1:{self.port}/{path}"

    def count(self, method: str, part: str = "") -> int:
        """How many requests of a method had such a path."""
        return sum(verb == method and part in path for verb, path, *_ in self.requests)

    def referrers(self, name: str, digest: str) -> list[dict[str, Any]]:
        """The descriptors of what refers to a manifest."""
        found = []
        for (repository, reference), manifest in self.manifests.items():
            document = json.loads(manifest.raw)
            if (repository, document.get("subject", {}).get("digest")) == (name, digest) and ":" in reference:
                kind = document.get("artifactType") or document.get("config", {}).get("mediaType")
                entry = {"mediaType": manifest.media_type, "digest": reference, "size": len(manifest.raw)}
                marks = {"annotations": document["annotations"]} if document.get("annotations") else {}
                found.append({**entry, **marks, "artifactType": kind})
        return found


class _Handler(BaseHTTPRequestHandler):
    registry: OciRegistry
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command in ("POST", "PUT", "PATCH") and "Content-Length" not in self.headers:
            self._wrong("a request with a body has no Content-Length")
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        place = _PATH.fullmatch(parts.path)
        self._size = len(body)
        with self.registry.lock:
            if place is None:
                self._answer(200 if parts.path == "/v2/" else 404, b"{}")
                return
            handle = getattr(self, f"_{place['kind'].replace('/', '_')}")
            handle(place["name"], place["reference"], query, body)

    def _wrong(self, what: str) -> None:
        self.registry.violations.append(f"{self.command} {self.path}: {what}")

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.registry.requests.append((self.command, self.path, status, self._size))
        self.send_response_only(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str, **headers: str) -> None:
        body = json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode()
        self._answer(status, body, **headers)

    # Uploads

    def _blobs_uploads(self, name: str, reference: str, query: dict[str, str], body: bytes) -> None:
        if self.command == "POST":
            self._begin(name, query)
            return
        upload = self.registry.uploads.get(reference)
        if upload is None or (upload.name, upload.state) != (name, query.get("state")):
            self._wrong("no such upload, or not where the last answer said")
            self._refuse(404, "BLOB_UPLOAD_UNKNOWN")
        elif self.command == "GET":
            self._where(204, reference, upload)
        elif self.command == "PATCH":
            self._patch(reference, upload, body)
        else:
            self._finish(reference, upload, query, body)

    def _begin(self, name: str, query: dict[str, str]) -> None:
        if "mount" in query and self.registry.mounts:
            lent = self.registry.blobs.get((query.get("from", ""), query["mount"]))
            if lent is not None:
                self.registry.blobs[name, query["mount"]] = lent
                self._answer(201, Location=f"/v2/{name}/blobs/{query['mount']}")
                return
        reference = secrets.token_hex(8)
        self.registry.uploads[reference] = Upload(name)
        least = {"OCI_Chunk_Min_Length": str(self.registry.chunk_min)} if self.registry.chunk_min else {}
        self._where(202, reference, self.registry.uploads[reference], **least)

    def _where(self, status: int, reference: str, upload: Upload, **headers: str) -> None:
        """Where an upload goes on: relative, with a query that is to be kept, and another one every time."""
        upload.state = secrets.token_hex(8)
        location = f"/v2/{quote(upload.name)}/blobs/uploads/{reference}?state={upload.state}&other=a%2Fb"
        end = len(upload.content) - 1 if self.registry.tells_places else 0
        last = {"Range": f"0-{end}"} if upload.content else {}
        self._answer(status, Location=location, **last, **headers)

    def _patch(self, reference: str, upload: Upload, body: bytes) -> None:
        if self.headers.get("Content-Type") != "application/octet-stream":
            self._wrong("a chunk is to have the type application/octet-stream")
        place = self.headers.get("Content-Range")
        if place is None and upload.content:
            self._wrong("a chunk that is not the first has no Content-Range")
        if place is not None:
            match = _RANGE.fullmatch(place)
            if match is None or int(match[2]) - int(match[1]) + 1 != len(body):
                self._wrong(f"Content-Range {place} for {len(body)} bytes")
            if match is None or int(match[1]) != len(upload.content):
                self._where(416, reference, upload)
                return
        if self.registry.chunk_max and len(body) > self.registry.chunk_max:
            self._refuse(413, "SIZE_INVALID")
            return
        if upload.last_chunk and upload.last_chunk < self.registry.chunk_min:
            self._wrong(f"a chunk of {upload.last_chunk} bytes was not the last one")
        upload.last_chunk = len(body)
        upload.content += body
        self._where(202, reference, upload)

    def _finish(self, reference: str, upload: Upload, query: dict[str, str], body: bytes) -> None:
        if query.get("other") != "a/b":
            self._wrong("the query of the location was not kept")
        if self.registry.chunk_max and len(body) > self.registry.chunk_max:
            self._refuse(413, "SIZE_INVALID")
            return
        if upload.content and body:
            self._wrong("the last request has bytes without a Content-Range")
        content = upload.content + body
        del self.registry.uploads[reference]
        if sha256_bytes(content) != query.get("digest"):
            self._refuse(400, "DIGEST_INVALID")
            return
        self.registry.blobs[upload.name, query["digest"]] = content
        self._answer(201, Location=f"/v2/{upload.name}/blobs/{query['digest']}", Docker_Content_Digest=query["digest"])

    # Content

    def _blobs(self, name: str, reference: str, _query: dict[str, str], _body: bytes) -> None:
        content = self.registry.blobs.get((name, reference))
        if content is None:
            self._refuse(404, "BLOB_UNKNOWN")
            return
        asked = self.headers.get("Range", "").removeprefix("bytes=")
        if self.command == "HEAD" or not asked:
            self._answer(200, content, Docker_Content_Digest=reference)
            return
        begin = int(asked.partition("-")[0])
        place = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        self._answer(206, content[begin:], Content_Range=place, Docker_Content_Digest=reference)

    def _manifests(self, name: str, reference: str, _query: dict[str, str], body: bytes) -> None:
        if self.command == "PUT":
            self._put_manifest(name, reference, body)
            return
        manifest = self.registry.manifests.get((name, reference))
        if manifest is None:
            self._refuse(404, "MANIFEST_UNKNOWN")
        elif manifest.media_type not in self.headers.get("Accept", ""):
            self._wrong(f"{manifest.media_type} is not accepted")
            self._refuse(404, "MANIFEST_UNKNOWN")
        else:
            digest = str(sha256_bytes(manifest.raw))
            self._answer(200, manifest.raw, Content_Type=manifest.media_type, Docker_Content_Digest=digest)

    def _put_manifest(self, name: str, reference: str, body: bytes) -> None:
        document, digest = json.loads(body), str(sha256_bytes(body))
        media_type = self.headers.get("Content-Type", "")
        if document.get("mediaType", media_type) != media_type:
            self._wrong("the Content-Type is not the manifest's mediaType")
        if ":" in reference and reference != digest:
            self._refuse(400, "DIGEST_INVALID")
            return
        blobs = [*document.get("layers", []), *([document["config"]] if "config" in document else [])]
        if any((name, blob["digest"]) not in self.registry.blobs for blob in blobs):
            self._wrong("a blob of the manifest is not there yet")
            self._refuse(404, "MANIFEST_BLOB_UNKNOWN")
            return
        is_own_list = reference.startswith("sha256-")
        below = [] if is_own_list else document.get("manifests", [])
        if any((name, entry["digest"]) not in self.registry.manifests for entry in below):
            self._wrong("a manifest of the index is not there yet")
        for key in (digest, reference):
            self.registry.manifests[name, key] = Manifest(media_type, body)
        subject = document.get("subject", {}).get("digest")
        listed = {"OCI_Subject": subject} if subject and self.registry.lists_referrers else {}
        self._answer(201, Location=f"/v2/{name}/manifests/{digest}", Docker_Content_Digest=digest, **listed)

    # Lists

    def _referrers(self, name: str, reference: str, query: dict[str, str], _body: bytes) -> None:
        if not self.registry.lists_referrers:
            self._answer(404)
            return
        found = self.registry.referrers(name, reference)
        applied = {}
        if "artifactType" in query:
            found = [entry for entry in found if entry["artifactType"] == query["artifactType"]]
            applied = {"OCI_Filters_Applied": "artifactType"}
        part, link = self._page(found, query)
        body = json.dumps({"schemaVersion": 2, "mediaType": _INDEX, "manifests": part}).encode()
        self._answer(200, body, Content_Type=_INDEX, **applied, **link)

    def _tags(self, name: str, _list: str, query: dict[str, str], _body: bytes) -> None:
        tags = sorted(
            reference for owner, reference in self.registry.manifests if owner == name and ":" not in reference
        )
        part, link = self._page(tags, query)
        self._answer(200, json.dumps({"name": name, "tags": part}).encode(), **link)

    def _page(self, entries: list[Any], query: dict[str, str]) -> tuple[list[Any], dict[str, str]]:
        begin = int(query.get("from", 0))
        end = begin + self.registry.page
        if end >= len(entries):
            return entries[begin:], {}
        kept = "".join(f"&{key}={quote(value, safe='')}" for key, value in query.items() if key != "from")
        return entries[begin:end], {"Link": f'<{urlsplit(self.path).path}?from={end}{kept}>; rel="next"'}

    def log_message(self, *_: object) -> None:
        pass


for _method in ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"):
    setattr(_Handler, f"do_{_method}", _Handler._any)


@contextmanager
def oci_registry() -> Iterator[OciRegistry]:
    """A registry on a free port of the loopback interface."""
    running = OciRegistry()
    with serving(type("Handler", (_Handler,), {"registry": running})) as port:
        running.port = port
        yield running
