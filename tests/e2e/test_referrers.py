"""What refers to images: attached by a push, taken along by copies, seen by inspect; at registries that list it and at
those where a tag has to do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from builder.image.document import encode_document
from builder.image.referrer import EMPTY_CONFIG, MEDIA_EMPTY, artifact, cosign_tags
from builder.registry.client import RegistryClient
from builder.registry.referrers import push_referrer
from cache.descriptor import MEDIA_MANIFEST, Descriptor
from cache.digest import Digest
from tests.conftest import Pybuild
from tests.ociregistry import OciRegistry, oci_registry

SBOM = "application/spdx+json"


@pytest.fixture
def registry() -> Iterator[OciRegistry]:
    with oci_registry() as running:
        yield running
        assert running.violations == []


BOTH = pytest.mark.parametrize("lists", [True, False], ids=["list", "tag"])


@pytest.fixture
def built(pybuild: Pybuild) -> Pybuild:
    """An image for each of two platforms under one name, and files to attach."""
    pybuild.write(Dockerfile="FROM scratch\nARG TARGETARCH\nCOPY f /$TARGETARCH\n", f="content")
    pybuild.write(sbom='{"spdxVersion": "SPDX-2.3"}', note="note\n")
    pybuild.ok("build", "--platform", "linux/amd64,linux/arm64", "-t", "app:1", ".")
    return pybuild


def attach(built: Pybuild, registry: OciRegistry, *names: str) -> str:
    """Push the index with an SBOM and a note; its digest."""
    words = ("--attach", f"{SBOM}=sbom", "--attach", "text/plain=note")
    return built.ok("push", "-q", "app:1", *(registry.name(name) for name in names), *words).stdout.strip()


def seen(built: Pybuild, registry: OciRegistry, name: str) -> list[dict[str, Any]]:
    """The referrers of an image's index."""
    said = built.ok("inspect", "-f", ".Index.Referrers", f"docker://{registry.name(name)}").stdout
    return list(json.loads(said))


def content_of(registry: OciRegistry, name: str, digest: str) -> tuple[str, bytes]:
    """The name and the bytes of the file of an artifact."""
    [layer] = json.loads(registry.manifests[name, digest].raw)["layers"]
    return layer["annotations"]["org.opencontainers.image.title"], registry.blobs[name, layer["digest"]]


@BOTH
def test_a_push_attaches_files(built: Pybuild, registry: OciRegistry, lists: bool) -> None:
    registry.lists_referrers = lists
    digest = attach(built, registry, "team/app:1", "team/app:2", "other:1")
    for name in ("team/app", "other"):
        sbom, note = seen(built, registry, f"{name}:1")
        assert (sbom["artifactType"], note["artifactType"]) == (SBOM, "text/plain")
        assert content_of(registry, name, sbom["digest"]) == ("sbom", b'{"spdxVersion": "SPDX-2.3"}')
        subject = json.loads(registry.manifests[name, sbom["digest"]].raw)["subject"]
        assert (subject["digest"], subject["size"]) == (digest, len(registry.manifests[name, digest].raw))
    attach(built, registry, "other:1")
    assert len(seen(built, registry, "other:1")) == 2  # the same once more is the same


def sign(registry: OciRegistry, name: str, subject: dict[str, Any], tag: str = "") -> bytes:
    """Put a signature of a manifest there, as an artifact or under a tag; its bytes."""
    with RegistryClient({"HOME": "/nonexistent", "CONTAINERS_REGISTRIES_CONF": os.devnull}) as client:
        repository = client.repository(registry.name(name), may_push=True)
        repository.upload_bytes(EMPTY_CONFIG, MEDIA_EMPTY)
        blob = repository.upload_bytes(b"signature of " + subject["digest"].encode(), "example/sig")
        document = artifact("example/sig", blob, Descriptor.from_json(subject))
        if not tag:
            push_referrer(repository, raw := encode_document(document), MEDIA_MANIFEST)
            return raw
        raw = encode_document({key: value for key, value in document.items() if key != "subject"})
        repository.put_manifest(raw, MEDIA_MANIFEST, tag)
        return raw


@BOTH
def test_a_copy_takes_referrers_along(built: Pybuild, registry: OciRegistry, tmp_path: Path, lists: bool) -> None:
    """registry -> layout -> registry -> archive -> registry, with a signature of the SBOM, and one as cosign has it."""
    registry.lists_referrers = lists
    digest = attach(built, registry, "a:1")
    sbom, _ = seen(built, registry, "a:1")
    sign(registry, "a", sbom)
    tag = cosign_tags(Digest(digest))[0]
    raw = sign(registry, "a", sbom, tag)
    places = [
        *(f"docker://{registry.name('a:1')}", f"oci:{tmp_path}/layout:1", f"docker://{registry.name('b:1')}"),
        *(f"oci-archive:{tmp_path}/a.tar:1", f"docker://{registry.name('c:1')}"),
    ]
    for source, dest in pairwise(places):
        assert built.ok("copy", "-q", "--all", "--referrers", source, dest).stdout.strip() == digest
    for name in ("b", "c"):
        found = {entry["artifactType"]: entry for entry in seen(built, registry, f"{name}:1")}
        assert set(found) == {SBOM, "text/plain", ""}
        assert (found[""]["tag"], registry.manifests[name, tag].raw) == (tag, raw)
        assert content_of(registry, name, found[SBOM]["digest"])[0] == "sbom"
        assert [entry["artifactType"] for entry in registry.referrers(name, sbom["digest"])] == ["example/sig"]
    loaded = Pybuild(tmp_path / "loaded", built.cwd)
    for archive in ("layout", "a.tar"):  # what only refers to images is none
        assert len(loaded.ok("load", str(tmp_path / archive)).stdout.splitlines()) == 1


def test_a_copy_of_one_kind(built: Pybuild, registry: OciRegistry) -> None:
    attach(built, registry, "a:1")
    source = f"docker://{registry.name('a:1')}"
    built.ok("copy", "--all", source, f"docker://{registry.name('none:1')}")
    built.ok("copy", "--all", f"--referrers={SBOM}", source, f"docker://{registry.name('one:1')}")
    assert seen(built, registry, "none:1") == []
    assert [entry["artifactType"] for entry in seen(built, registry, "one:1")] == [SBOM]


def test_referrers_of_one_platform(built: Pybuild, registry: OciRegistry) -> None:
    """What refers to the index does not refer to the image that is copied alone."""
    attach(built, registry, "a:1")
    image = built.ok("inspect", "-f", ".Digest", f"docker://{registry.name('a:1')}").stdout.strip()
    entry = next(each for each in json.loads(registry.manifests["a", "1"].raw)["manifests"] if each["digest"] == image)
    sign(registry, "a", entry)
    built.ok("copy", "--referrers", f"docker://{registry.name('a:1')}", f"docker://{registry.name('b:1')}")
    said = built.ok("inspect", "-f", ".Referrers[*].artifactType", f"docker://{registry.name('b:1')}").stdout
    assert said == "example/sig\n"


def test_a_layout_is_written_again(built: Pybuild, registry: OciRegistry, tmp_path: Path) -> None:
    """Entries stay once each, and those of others stay."""
    attach(built, registry, "a:1")
    for tag in ("1", "1", "2"):
        built.ok("copy", "--all", "--referrers", f"docker://{registry.name('a:1')}", f"oci:{tmp_path}/layout:{tag}")
    entries = json.loads((tmp_path / "layout/index.json").read_text())["manifests"]
    assert sorted(entry.get("artifactType", "") for entry in entries) == ["", "", SBOM, "text/plain"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("copy", "--referrers", "store:app:1", "oci:x"), 2, "store has no place for referrers"),
        (("copy", "--referrers", "oci:x", "docker-archive:y"), 2, "docker-archive has no place for referrers"),
        (("push", "app:1", "127.0.0.1:1/x", "--attach", "sbom"), 2, "is not TYPE=FILE"),
        (("push", "app:1", "127.0.0.1:1/x", "--attach", "no type=sbom"), 2, "with a media type"),
        (("push", "app:1", "127.0.0.1:1/x", "--attach", "a/b=nothing"), 1, "nothing cannot be read: no such file"),
        (("push", "app:1", "127.0.0.1:1/x", "--attach", "a/b=."), 1, "is not a regular file"),
    ],
)
def test_errors(pybuild: Pybuild, words: tuple[str, ...], code: int, message: str) -> None:
    done = pybuild(*words)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr


def test_inspect_of_a_registry(built: Pybuild, registry: OciRegistry) -> None:
    """The same as of the store, without a layer being fetched or anything being kept."""
    name = registry.name("app:1")
    built.ok("push", "app:1", name)
    other = Pybuild(built.root.parent / "other", built.cwd)
    registry.requests.clear()
    [found] = json.loads(other.ok("inspect", f"docker://{name}").stdout)
    assert registry.count("GET", "/blobs/") == 1  # the config
    assert (found["RepoTags"], found["Index"]["Platforms"]) == ([name], ["linux/amd64", "linux/arm64"])
    assert other.ok("images", "-q").stdout == ""
    other.ok("pull", name)
    [pulled] = json.loads(other.ok("inspect", name).stdout)
    same = ("Id", "Digest", "RepoDigests", "RepoTags", "Created", "Config", "Layers", "RootFS", "Manifest")
    assert {key: found[key] for key in same} == {key: pulled[key] for key in same}
    missing = other("inspect", f"docker://{registry.name('app:2')}")
    assert (missing.returncode, "MANIFEST_UNKNOWN" in missing.stderr) == (1, True)
    sign(registry, "app", {"mediaType": MEDIA_MANIFEST, "digest": found["Digest"], "size": 1}, "artifact")
    other_kind = other("inspect", f"docker://{registry.name('app:artifact')}")
    assert (other_kind.returncode, "no image but another kind" in other_kind.stderr) == (1, True)
