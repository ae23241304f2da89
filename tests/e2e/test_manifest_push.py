"""Indexes that were put together in the store, at a registry: with everything that they name, as others read them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.conftest import Pybuild
from tests.e2e.peers import require, run
from tests.registries import Registry, registry


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def built(pybuild: Pybuild) -> Pybuild:
    """An image for each of two platforms, built here, so that their layers have no blobs yet."""
    pybuild.write(Dockerfile="FROM scratch\nARG TARGETARCH\nCOPY f /$TARGETARCH\n", f="content")
    for architecture in ("amd64", "arm64"):
        pybuild.ok("build", "--platform", f"linux/{architecture}", "-t", f"app:{architecture}", ".")
    return pybuild


def raw(plain: Registry, name: str) -> dict[str, object]:
    document = json.loads(run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{plain.name(name)}"))
    assert isinstance(document, dict)
    return document


def test_an_index_is_pushed_with_its_images(built: Pybuild, plain: Registry) -> None:
    require("skopeo")
    name = plain.name("made:1")
    built.ok("manifest", "create", name, "app:amd64", "app:arm64")
    built.ok("manifest", "annotate", "--variant", "v9", "--annotation", "k=v", name, "app:arm64")
    pushed = built.ok("manifest", "push", "-q", name).stdout.strip()
    document = raw(plain, "made:1")
    entries = document["manifests"]
    assert isinstance(entries, list) and len(entries) == 2
    assert (entries[1]["platform"]["variant"], entries[1]["annotations"]) == ("v9", {"k": "v"})
    for entry in entries:
        manifest = raw(plain, f"made@{entry['digest']}")
        layers = manifest["layers"]
        assert isinstance(layers, list)
        assert {layer["digest"] for layer in layers} <= plain.blobs()
        assert all(layer["mediaType"].endswith("+gzip") for layer in layers)
    seen = json.loads(built.ok("manifest", "inspect", plain.name(f"made@{pushed}")).stdout)
    assert seen == document
    run("skopeo", "copy", "-q", "--all", "--src-tls-verify=false", f"docker://{name}", f"dir:{built.cwd}/copied")


def test_an_index_goes_elsewhere_and_is_forgotten(built: Pybuild, plain: Registry) -> None:
    require("skopeo")
    built.ok("manifest", "create", "app:all", "app:amd64", "app:arm64")
    built.ok("manifest", "push", "--purge", "app:all", f"docker://{plain.name('other:1')}", plain.name("other:2"))
    assert raw(plain, "other:1") == raw(plain, "other:2")
    assert "all" not in [line.split()[1] for line in built.ok("images").stdout.splitlines()]
    failed = built("manifest", "push", "app:amd64", plain.name("other:3"))
    assert failed.returncode == 1 and "expected an index" in failed.stderr


def test_push_sends_an_index_as_manifest_push_does(built: Pybuild, plain: Registry) -> None:
    require("skopeo")
    name = plain.name("same:1")
    built.ok("manifest", "create", "--annotation", "index=yes", name, "app:amd64", "app:arm64")
    by_push = built.ok("push", "-q", name).stdout
    assert built.ok("manifest", "push", "-q", name).stdout == by_push
    built.ok("copy", "-q", "--all", f"store:{name}", f"docker://{plain.name('same:2')}")
    assert raw(plain, "same:2") == raw(plain, "same:1")


def test_rollback_after_a_pull(built: Pybuild, plain: Registry) -> None:
    name = plain.name("moving:1")
    ids = []
    for text in ("one", "two"):
        built.write(f=text)
        built.ok("build", "-t", "here:1", "--platform", "linux/amd64", ".")
        built.ok("push", "here:1", name)
        built.ok("pull", "-q", "--platform", "linux/amd64", name)
        ids.append(built.ok("inspect", "-f", ".Id", name).stdout)
    built.ok("rollback", name)
    assert built.ok("inspect", "-f", ".Id", name).stdout == ids[0] != ids[1]
