"""The distribution protocol against a real registry, with and without a network at its worst."""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.image.manifest import Manifest, encode_manifest
from builder.image.referrer import referrers_tag
from builder.registry.client import RegistryClient
from builder.registry.errors import NotFoundError, RegistryError, UnreachableError, WrongContentError
from builder.registry.referrers import list_referrers, push_referrer
from builder.registry.repository import Repository
from cache.descriptor import MEDIA_CONFIG, MEDIA_LAYER_GZIP, MEDIA_MANIFEST, Descriptor
from cache.digest import sha256_bytes
from tests.faultproxy import Fault, FaultProxy, fault_proxy
from tests.registries import Registry

LARGE = 3 << 20


@pytest.fixture
def client(tmp_path: Path) -> Iterator[RegistryClient]:
    with RegistryClient({"HOME": str(tmp_path), "CONTAINERS_REGISTRIES_CONF": os.devnull}) as opened:
        yield opened


@pytest.fixture
def repository(client: RegistryClient, proxy: FaultProxy) -> Repository:
    return client.repository(proxy.name("team/app"), may_push=True)


def blob_of(content: bytes, media_type: str = MEDIA_LAYER_GZIP) -> Descriptor:
    return Descriptor(media_type, sha256_bytes(content), len(content))


def opener(content: bytes) -> Callable[[], io.BytesIO]:
    return lambda: io.BytesIO(content)


def read(repository: Repository, blob: Descriptor) -> bytes:
    with repository.open_blob(blob) as stream:
        return b"".join(iter(lambda: stream.read(1 << 18), b""))


def push_image(repository: Repository, content: bytes, tag: str) -> tuple[Descriptor, bytes]:
    layer = blob_of(content)
    repository.upload(layer, opener(content))
    config = repository.upload_bytes(b'{"x": 1}', MEDIA_CONFIG)
    raw = encode_manifest(Manifest(config, (layer,)))
    repository.put_manifest(raw, MEDIA_MANIFEST, tag)
    return Descriptor(MEDIA_MANIFEST, sha256_bytes(raw), len(raw)), raw


@pytest.mark.parametrize("size", [0, 1, 1000, LARGE])
def test_blobs_go_and_come_back(repository: Repository, proxy: FaultProxy, size: int) -> None:
    content = random.randbytes(size)
    blob = blob_of(content)
    assert not repository.has_blob(blob.digest)
    assert repository.upload(blob, opener(content)).how == "sent"
    assert repository.blob_size(blob.digest) == size
    assert read(repository, blob) == content
    proxy.forget()
    assert repository.upload(blob, opener(content)).how == "present"
    assert proxy.sent() == 0


def test_a_neighbours_blob_is_mounted(client: RegistryClient, repository: Repository, proxy: FaultProxy) -> None:
    content = random.randbytes(LARGE)
    blob = blob_of(content)
    repository.upload(blob, opener(content))
    proxy.forget()
    other = client.repository(proxy.name("other"), may_push=True)
    done = other.upload(blob, opener(content), mount_from=["team/nothing", "team/app"])
    assert (done.how, done.source, proxy.sent()) == ("mounted", "team/app", 0)
    assert other.has_blob(blob.digest)


def test_manifests_by_tag_and_digest(repository: Repository) -> None:
    image, raw = push_image(repository, random.randbytes(100), "v1")
    for reference in ("v1", str(image.digest)):
        found = repository.find_manifest(reference)
        assert found is not None and (found.digest, found.size, found.media_type) == image[1:3] + image[:1]
        assert repository.manifest(reference).raw == raw
    assert "v1" in repository.tags()
    assert repository.find_manifest("absent") is None
    with pytest.raises(NotFoundError, match="MANIFEST_UNKNOWN"):
        repository.manifest("absent")


def test_lists_come_in_pages(client: RegistryClient, proxy: FaultProxy) -> None:
    for number in range(3):
        push_image(client.repository(proxy.name(f"page/{number}"), may_push=True), b"x", "first")
    pages = list(client.repository(proxy.name("x")).pages("_catalog?n=1", "catalog"))
    assert len(pages) >= 3
    assert {f"page/{number}" for number in range(3)} <= {name for page in pages for name in page["repositories"]}


def test_referrers_are_listed_by_tag_where_there_is_no_list(repository: Repository) -> None:
    image, _ = push_image(repository, random.randbytes(100), "subject")
    config = repository.upload_bytes(b"{}", "application/vnd.oci.empty.v1+json")
    digests = []
    for kind in ("example/signature", "example/sbom"):
        document = {
            **{"schemaVersion": 2, "mediaType": MEDIA_MANIFEST, "artifactType": kind, "config": config.to_json()},
            **{"layers": [], "subject": image.to_json(), "annotations": {"kind": kind}},
        }
        digests.append(push_referrer(repository, json.dumps(document).encode(), MEDIA_MANIFEST))
    found = list_referrers(repository, image.digest)
    assert [each.digest for each in found] == digests
    assert found[0].annotations == {"kind": "example/signature"}
    assert [each.artifact_type for each in list_referrers(repository, image.digest, "example/sbom")] == ["example/sbom"]
    assert referrers_tag(image.digest) in repository.tags()
    assert list_referrers(repository, sha256_bytes(b"nobody")) == []


READ_FAULTS = {
    "cut at once": [Fault(cut_answer=0)],
    "cut often": [Fault(cut_answer=size) for size in (1, 77, 100_000, 5, 700_000)],
    "cut at random": [Fault(cut_answer=random.Random(size).randrange(LARGE // 4)) for size in range(4)],
    "reset": [Fault(cut_answer=size, is_reset=True) for size in (0, 1, 500_000)],
    "not in order": [Fault(status=503), Fault(status=500), Fault(status=502)],
    "too many requests": [Fault(status=429, headers={"Retry-After": "1"})],
    "no ranges": [Fault(cut_answer=LARGE // 2), Fault(ignore_range=True)],
    "short": [Fault(end_answer=LARGE - 1)],
    "empty": [Fault(end_answer=0), Fault(end_answer=0)],
}


@pytest.mark.parametrize("faults", READ_FAULTS.values(), ids=READ_FAULTS.keys())
def test_a_download_recovers(repository: Repository, proxy: FaultProxy, faults: list[Fault]) -> None:
    content = random.randbytes(LARGE)
    blob = blob_of(content)
    repository.upload(blob, opener(content))
    proxy.forget()
    proxy.once("GET", "/blobs/", *faults)
    assert read(repository, blob) == content
    assert len(proxy.passed) >= len(faults)
    if not any(fault.ignore_range or fault.is_reset for fault in faults):
        assert proxy.received() == LARGE  # nothing is fetched twice


WRITE_FAULTS = {
    "cut": Fault(cut_request=LARGE // 2),
    "cut at once": Fault(cut_request=0),
    "answer lost": Fault(lose_answer=True),
    "error": Fault(status=500),
    "busy": Fault(status=429, headers={"Retry-After": "0"}),
    "too large": Fault(status=413),
    "forgotten": Fault(status=404),
    "elsewhere": Fault(status=416),
    "slow": Fault(delay=0.1),
    "wrong": Fault(flip_request=True),
    "short": Fault(end_request=700),
}


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
@pytest.mark.parametrize("fault", WRITE_FAULTS.values(), ids=WRITE_FAULTS.keys())
@pytest.mark.parametrize("size", [1000, LARGE])
def test_an_upload_recovers(
    repository: Repository, proxy: FaultProxy, plain: Registry, method: str, fault: Fault, size: int
) -> None:
    content = random.randbytes(size)
    blob = blob_of(content)
    proxy.once(method, "/blobs/", fault)
    assert repository.upload(blob, opener(content)).how == "sent"
    assert blob.digest in plain.blobs()
    proxy.rule = lambda _method, _path: None
    assert read(repository, blob) == content


def test_a_registry_with_a_limit_gets_chunks(repository: Repository, proxy: FaultProxy, plain: Registry) -> None:
    content = random.randbytes(20 << 20)
    blob = blob_of(content)
    proxy.once("PATCH", "/blobs/", Fault(status=413))
    repository.upload(blob, opener(content))
    assert blob.digest in plain.blobs()
    chunks = [each.headers["content-range"] for each in proxy.passed if each.method == "PATCH" and each.status == 202]
    assert chunks == ["0-8388607", "8388608-16777215", "16777216-20971519"]


def test_wrong_bytes_never_come_out(repository: Repository, proxy: FaultProxy) -> None:
    content = random.randbytes(LARGE)
    blob = blob_of(content)
    repository.upload(blob, opener(content))
    image, raw = push_image(repository, b"w", "wrong")
    proxy.once("GET", "/manifests/", Fault(flip=True))
    assert repository.manifest("wrong").raw == raw
    proxy.rule = lambda method, _path: Fault(flip=True) if method == "GET" else None
    with pytest.raises(WrongContentError, match="came with the digest"):
        read(repository, blob)
    for reference in ("wrong", str(image.digest)):
        with pytest.raises(WrongContentError, match="came with the digest"):
            repository.manifest(reference)


def test_a_server_that_stays_out_of_order_is_named(repository: Repository, proxy: FaultProxy) -> None:
    proxy.rule = lambda _method, _path: Fault(status=429, headers={"Retry-After": "3600"})
    with pytest.raises(UnreachableError, match="429") as raised:
        repository.manifest("v1")
    assert raised.value.hint == "the registry asks to wait 3600 s"
    assert len(proxy.passed) <= 2  # an hour is not waited for


def test_a_manifest_that_arrives_as_another_one(repository: Repository, proxy: FaultProxy) -> None:
    layer = blob_of(b"layer")
    repository.upload(layer, opener(b"layer"))
    raw = encode_manifest(Manifest(repository.upload_bytes(b'{"x": 1}', MEDIA_CONFIG), (layer,), {"a": "b"}))
    spoilt = raw.replace(b'"b"', b'"c"')
    proxy.once("PUT", "/manifests/", Fault(status=201, headers={"Docker-Content-Digest": sha256_bytes(spoilt)}))
    repository.put_manifest(raw, MEDIA_MANIFEST, "spoilt")
    assert repository.manifest("spoilt").raw == raw
    wrong = Fault(status=201, headers={"Docker-Content-Digest": sha256_bytes(spoilt)})
    proxy.rule = lambda method, _path: wrong if method == "PUT" else None
    with pytest.raises(WrongContentError, match="stored manifest"):
        repository.put_manifest(raw, MEDIA_MANIFEST, "spoilt")


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT"])
@pytest.mark.parametrize("size", [1000, LARGE])
def test_uploads_are_redirected_to_another_host(
    repository: Repository, proxy: FaultProxy, plain: Registry, method: str, size: int
) -> None:
    content = random.randbytes(size)
    blob = blob_of(content)
    with fault_proxy(plain) as elsewhere:
        proxy.rule = lambda verb, path: (
            Fault(status=307, headers={"Location": f"http://{elsewhere.address}{path}"})
            if verb == method and "/blobs/" in path
            else None
        )
        assert repository.upload(blob, opener(content)).how == "sent"
        assert bool(elsewhere.passed) == (method != "PATCH" or size == LARGE)
    assert blob.digest in plain.blobs()


def test_documents_have_a_limit(repository: Repository, proxy: FaultProxy, plain: Registry) -> None:
    raw = json.dumps({"x": "y" * (5 << 20)}).encode()
    blob = repository.upload_bytes(raw, MEDIA_CONFIG)
    with pytest.raises(WrongContentError, match="too large"):
        repository.read_blob(blob)


def test_nobody_there(client: RegistryClient) -> None:
    with pytest.raises(UnreachableError, match="connection refused"):
        client.repository("127.0.0.1:1/x").manifest("y")


def test_authorization_stays_with_its_host(repository: Repository, proxy: FaultProxy, plain: Registry) -> None:
    """A redirect is followed to another host, and only as far as it is safe."""
    content = random.randbytes(1000)
    blob = blob_of(content)
    repository.upload(blob, opener(content))
    with fault_proxy(plain) as elsewhere:
        target = f"http://{elsewhere.address}/v2/team/app/blobs/{blob.digest}"
        proxy.rule = lambda method, path: (
            Fault(status=307, headers={"Location": target}) if method == "GET" and "/blobs/" in path else None
        )
        assert read(repository, blob) == content
        assert [each.headers.get("authorization") for each in elsewhere.passed] == [None]
    proxy.rule = lambda _method, _path: Fault(status=307, headers={"Location": "file:///etc/passwd"})
    with pytest.raises(RegistryError, match="not safe"):
        repository.manifest("v1")
    proxy.rule = lambda _method, path: Fault(status=307, headers={"Location": f"http://{proxy.address}{path}"})
    with pytest.raises(RegistryError, match="redirects"):
        repository.manifest("v1")
