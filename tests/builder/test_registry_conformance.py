"""The client against a registry that takes the distribution-spec at its word, whatever freedom that makes use of."""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.copying.content import Content, Document, FindReferrers, ImageSource, with_referrers
from builder.errors import BuildError
from builder.image.manifest import Index, Manifest, encode_manifest
from builder.image.referrer import Referrer
from builder.registry.client import RegistryClient
from builder.registry.errors import RegistryError
from builder.registry.referrers import list_referrers, push_referrer
from builder.registry.repository import Repository
from cache.descriptor import MEDIA_CONFIG, MEDIA_INDEX, MEDIA_LAYER_GZIP, MEDIA_MANIFEST, Descriptor
from cache.digest import sha256_bytes
from tests.ociregistry import OciRegistry, oci_registry

LARGE = 20 << 20


@pytest.fixture
def strict() -> Iterator[OciRegistry]:
    with oci_registry() as running:
        yield running
        assert running.violations == []


@pytest.fixture
def client(tmp_path: Path) -> Iterator[RegistryClient]:
    with RegistryClient({"HOME": str(tmp_path), "CONTAINERS_REGISTRIES_CONF": os.devnull}) as opened:
        yield opened


@pytest.fixture
def repository(client: RegistryClient, strict: OciRegistry) -> Repository:
    return client.repository(strict.name("team/app"), may_push=True)


def upload(repository: Repository, content: bytes, mount_from: tuple[str, ...] = ()) -> tuple[Descriptor, str]:
    blob = Descriptor(MEDIA_LAYER_GZIP, sha256_bytes(content), len(content))
    return blob, repository.upload(blob, lambda: io.BytesIO(content), mount_from=mount_from).how


def read(repository: Repository, blob: Descriptor) -> bytes:
    with repository.open_blob(blob) as stream:
        return b"".join(iter(lambda: stream.read(1 << 18), b""))


def push(repository: Repository, tag: str) -> Descriptor:
    layer, _ = upload(repository, random.randbytes(100))
    config = repository.upload_bytes(b'{"x": 1}', MEDIA_CONFIG)
    raw = encode_manifest(Manifest(config, (layer,)))
    repository.put_manifest(raw, MEDIA_MANIFEST, tag)
    return Descriptor(MEDIA_MANIFEST, sha256_bytes(raw), len(raw))


def test_push_and_pull(repository: Repository, strict: OciRegistry) -> None:
    images = [push(repository, tag) for tag in ("a", "b", "c")]
    raw = encode_manifest(Index(tuple(images)))
    repository.put_manifest(raw, MEDIA_INDEX, "all")
    assert repository.manifest("all").raw == raw
    assert repository.manifest("all").media_type == MEDIA_INDEX
    assert repository.find_manifest("b") == images[1]
    assert repository.find_manifest("d") is None
    assert repository.tags() == ["a", "all", "b", "c"]
    assert strict.count("GET", "/tags/") == 2  # pages


@pytest.mark.parametrize("size", [0, 1, 1000, LARGE])
def test_blobs(repository: Repository, strict: OciRegistry, size: int) -> None:
    content = random.randbytes(size)
    blob, how = upload(repository, content)
    assert (how, read(repository, blob)) == ("sent", content)
    assert upload(repository, content)[1] == "present"


@pytest.mark.parametrize(("least", "chunks"), [(0, 3), (1, 3), (9 << 20, 3), (10 << 20, 2), (LARGE + 1, 1)])
def test_chunks_are_as_large_as_they_are_to_be(
    repository: Repository, strict: OciRegistry, least: int, chunks: int
) -> None:
    """A registry that takes no more at a time, and none that takes less."""
    strict.chunk_min, strict.chunk_max = least, max(least, 8 << 20)
    if least > LARGE:
        strict.chunk_max = 0
    content = random.randbytes(LARGE)
    blob, _ = upload(repository, content)
    assert read(repository, blob) == content
    taken = [size for method, _, status, size in strict.requests if (method, status) == ("PATCH", 202)]
    assert (len(taken), sum(taken)) == (chunks, LARGE)


def test_a_registry_that_does_not_say_how_much_it_has(repository: Repository, strict: OciRegistry) -> None:
    strict.tells_places, strict.chunk_max = False, 8 << 20
    content = random.randbytes(LARGE)
    blob, _ = upload(repository, content)
    assert read(repository, blob) == content


def test_mounts(client: RegistryClient, repository: Repository, strict: OciRegistry) -> None:
    content = random.randbytes(1000)
    upload(repository, content)
    other = client.repository(strict.name("other"), may_push=True)
    assert upload(other, content, ("nobody", "team/app"))[1] == "mounted"


def test_a_registry_that_lends_nothing(client: RegistryClient, repository: Repository, strict: OciRegistry) -> None:
    """It begins an upload instead, which is gone on with."""
    strict.mounts = False
    content = random.randbytes(2 << 20)
    upload(repository, content)
    begun = strict.count("POST")
    other = client.repository(strict.name("other"), may_push=True)
    blob, how = upload(other, content, ("team/app",))
    assert (how, read(other, blob)) == ("sent", content)
    assert strict.count("POST") == begun + 1


def test_wrong_bytes_are_not_sent_for_ever(repository: Repository, strict: OciRegistry) -> None:
    blob = Descriptor(MEDIA_LAYER_GZIP, sha256_bytes(b"right"), 5)
    with pytest.raises(RegistryError, match="DIGEST_INVALID"):
        repository.upload(blob, lambda: io.BytesIO(b"wrong"))
    assert strict.blobs == {}


@pytest.mark.parametrize("lists", [True, False])
def test_referrers(repository: Repository, strict: OciRegistry, lists: bool) -> None:
    strict.lists_referrers = lists
    subject = push(repository, "subject")
    pushed = []
    for number in range(5):
        kind = f"example/kind{number % 2}"
        config = repository.upload_bytes(b"{}", kind)
        document = json.loads(encode_manifest(Manifest(config, (), {"number": str(number)})))
        raw = json.dumps({**document, "subject": subject.to_json()}).encode()
        pushed.append(push_referrer(repository, raw, MEDIA_MANIFEST))
    found = list_referrers(repository, subject.digest)
    assert [each.digest for each in found] == pushed
    assert [each.annotations for each in found] == [{"number": str(number)} for number in range(5)]
    assert [each.digest for each in list_referrers(repository, subject.digest, "example/kind1")] == pushed[1::2]
    assert any(tag.startswith("sha256-") for tag in repository.tags()) != lists


def test_too_many_referrers_are_not_taken_along() -> None:
    """Nor are those that refer to each other without an end."""
    image = Document(Descriptor(MEDIA_MANIFEST, sha256_bytes(b"image"), 5), b"image")
    raw = encode_manifest(Manifest(Descriptor(MEDIA_CONFIG, sha256_bytes(b""), 0), ()))

    def read(_descriptor: Descriptor) -> bytes:
        return raw

    def referrers(count: int) -> FindReferrers:
        return lambda digest, _type: [
            Referrer(Descriptor(MEDIA_MANIFEST, sha256_bytes(f"{digest}{number}".encode()), len(raw)))
            for number in range(count)
        ]

    content = Content((image,), (), pytest.fail, read)
    for count, message in ((1, "nested more than"), (1001, "more than 1000")):
        with pytest.raises(BuildError, match=message):
            with_referrers(ImageSource([], read, pytest.fail, referrers(count)), content)
