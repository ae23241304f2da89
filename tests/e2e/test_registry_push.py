"""Images to registries: only what is new, whole or not at all, and as other programs read them."""

from __future__ import annotations

import json
import random
import subprocess
import time
from pathlib import Path

import pytest

from builder.registry.client import RegistryClient
from builder.registry.errors import NotFoundError
from tests.conftest import Completed, Pybuild
from tests.e2e.peers import Docker, Podman, docker, podman, require, run
from tests.faultproxy import Fault, FaultProxy
from tests.registries import Registry

__all__ = ["docker", "podman"]

MEGABYTE = 1 << 20


@pytest.fixture
def project(pybuild: Pybuild) -> Pybuild:
    """A context with a large file and a small one, in layers of their own."""
    (pybuild.cwd / "large").write_bytes(random.randbytes(3 * MEGABYTE))
    pybuild.write(small="one", Dockerfile="FROM base\nCOPY large /large\nRUN echo made > /made\nCOPY small /small\n")
    return pybuild


def build(project: Pybuild, based: list[str], *words: str, **options: object) -> Completed:
    return project.ok("build", *based, *words, ".", **options)


def manifest(plain: Registry, name: str) -> dict[str, object]:
    raw = run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{plain.name(name)}")
    document: dict[str, object] = json.loads(raw)
    return document


def layers_of(plain: Registry, name: str) -> list[dict[str, object]]:
    layers = manifest(plain, name)["layers"]
    assert isinstance(layers, list)
    return layers


def test_only_what_is_new_is_sent(project: Pybuild, based: list[str], plain: Registry, proxy: FaultProxy) -> None:
    require("skopeo")
    build(project, based, "-t", proxy.name("new:1"), "--push")
    assert proxy.sent() > 3 * MEGABYTE
    before = layers_of(plain, "new:1")
    project.write(small="two")
    proxy.forget()
    build(project, based, "-t", proxy.name("new:1"), "--push")
    document = manifest(plain, "new:1")
    after, config = layers_of(plain, "new:1"), document["config"]
    assert isinstance(config, dict)
    assert before[:-1] == after[:-1] and before[-1] != after[-1]
    [raw] = [each.sent for each in proxy.passed if "/manifests/" in each.path]
    assert proxy.sent() == int(str(after[-1]["size"])) + config["size"] + raw
    proxy.forget()
    build(project, based, "-t", proxy.name("new:1"), "--push")
    assert proxy.sent() == raw  # the manifest alone


def test_the_tag_comes_last(project: Pybuild, based: list[str], proxy: FaultProxy) -> None:
    build(project, based, "-t", proxy.name("last:1"), "-t", proxy.name("last:2"), "--push")
    changes = [(each.method, each.path) for each in proxy.passed if each.method in ("PUT", "PATCH", "POST")]
    tags = [number for number, (_, path) in enumerate(changes) if "/manifests/" in path]
    assert tags == [len(changes) - 2, len(changes) - 1]
    assert [changes[number][1].rpartition("/")[2] for number in tags] == ["1", "2"]


def test_an_index_comes_after_its_manifests(project: Pybuild, plain: Registry, proxy: FaultProxy) -> None:
    require("skopeo")
    project.write(Dockerfile="FROM scratch\nARG TARGETARCH\nCOPY small /$TARGETARCH\n")
    words = ("--platform", "linux/amd64,linux/arm64", "--annotation", "index:note=x", "--annotation", "manifest:m=y")
    project.ok("build", *words, "-t", proxy.name("index:1"), "--push", ".")
    puts = [each.path.rpartition("/")[2] for each in proxy.passed if "/manifests/" in each.path]
    document = manifest(plain, "index:1")
    entries = document["manifests"]
    assert isinstance(entries, list)
    assert puts == [*(entry["digest"] for entry in entries), "1"]
    assert document["annotations"] == {"note": "x"}
    assert manifest(plain, f"index@{entries[0]['digest']}")["annotations"] == {"m": "y"}


def test_base_layers_are_mounted(project: Pybuild, based: list[str], proxy: FaultProxy) -> None:
    build(project, based, "-o", f"type=registry,name={proxy.name('team/base:1')}")
    other = Pybuild(project.root.parent / "other", project.cwd)
    other.write(Dockerfile=f"FROM {proxy.name('team/base:1')}\nRUN echo more > /more\n")
    proxy.forget()
    other.ok("build", "-t", proxy.name("team/app:1"), "--push", ".")
    assert proxy.sent() < 10_000  # a layer of a line, config and manifest
    mounted = [each for each in proxy.passed if "mount=" in each.path]
    assert {each.status for each in mounted} == {201}


@pytest.mark.parametrize(
    ("compression", "ending"),
    [("compression=zstd", "zstd"), ("compression=zstd,compression-level=19", "zstd"), ("compression=gzip", "gzip")],
)
def test_compression(project: Pybuild, based: list[str], plain: Registry, compression: str, ending: str) -> None:
    require("skopeo")
    name = f"compressed-{abs(hash(compression))}:1"
    build(project, based, "-o", f"type=registry,name={plain.name(name)},{compression},force-compression=true")
    assert {str(layer["mediaType"]).rpartition("+")[2] for layer in layers_of(plain, name)} == {ending}


def test_nothing_is_compressed_twice(project: Pybuild, based: list[str], proxy: FaultProxy) -> None:
    build(project, based, "-t", proxy.name("twice:1"), "--push")
    blobs = {path.name: path.stat().st_mtime_ns for path in (project.root / "blobs/sha256").iterdir()}
    build(project, based, "-t", proxy.name("twice:2"), "--push")
    project.ok("push", proxy.name("twice:1"), proxy.name("elsewhere:1"))
    now = {path.name: path.stat().st_mtime_ns for path in (project.root / "blobs/sha256").iterdir()}
    assert {name: now[name] for name in blobs} == blobs


def test_push_by_digest_and_metadata(project: Pybuild, based: list[str], plain: Registry, tmp_path: Path) -> None:
    require("skopeo")
    output = f"type=image,name={plain.name('digest')},push=true,push-by-digest=true"
    build(project, based, "-o", output, "--metadata-file", str(tmp_path / "m"))
    document = json.loads((tmp_path / "m").read_text())
    assert manifest(plain, f"digest@{document['containerimage.digest']}")["schemaVersion"] == 2
    with RegistryClient({"HOME": str(tmp_path)}) as client, pytest.raises(NotFoundError):
        client.repository(plain.name("digest")).tags()


def test_push_of_the_store(project: Pybuild, based: list[str], plain: Registry) -> None:
    build(project, based, "-t", plain.name("stored:1"), "-t", plain.name("stored:2"))
    lines = project.ok("push", "-a", plain.name("stored")).stdout.splitlines()
    assert [line.partition(": digest: ")[0] for line in lines] == [plain.name("stored:1"), plain.name("stored:2")]
    digest = lines[0].rpartition(" ")[2]
    assert project.ok("push", "-q", plain.name("stored:1"), plain.name("other:x")).stdout == f"{digest}\n"
    assert project.ok("push", "-q", plain.name("stored:1"), f"docker://{plain.name('other:y')}").stdout == f"{digest}\n"
    for name in (plain.name("other:x"), f"docker://{plain.name('other:y')}"):
        assert project.ok("pull", "-q", name).stdout == f"{digest}\n"


FAULTS = {
    "cut": Fault(cut_request=100_000),
    "lost": Fault(lose_answer=True),
    "down": Fault(status=503),
    "busy": Fault(status=429, headers={"Retry-After": "0"}),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_network_at_its_worst(
    project: Pybuild, based: list[str], plain: Registry, proxy: FaultProxy, fault: Fault
) -> None:
    """Every third request that changes something fails."""
    count = iter(range(1_000_000))
    proxy.rule = lambda method, _path: (
        fault
        if method in ("POST", "PATCH", "PUT") and next(count) % 3 == 1 and (method != "PUT" or not fault.cut_request)
        else None
    )
    name = f"worst-{fault.status}-{int(fault.lose_answer)}:1"
    build(project, based, "-t", proxy.name(name), "--push")
    assert project.ok("pull", "-q", plain.name(name)).returncode == 0
    assert project.ok("run", "--rm", plain.name(name), "cat", "/made").stdout == "made\n"


def test_a_killed_push_sends_no_blob_twice(project: Pybuild, based: list[str], proxy: FaultProxy) -> None:
    """Killed at whatever moment: what the registry has got completely is not sent again."""
    name = proxy.name("killed:1")
    build(project, based, "-t", name)
    proxy.rule = lambda _method, _path: Fault(delay=0.05)
    kills = 0
    for number in range(6):
        seen, deadline = len(proxy.passed), time.monotonic() + 30
        process = subprocess.Popen(
            project.argv("push", name), env=project.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while len(proxy.exchanges) <= seen + number * 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        kills += process.wait() < 0
    assert kills > 1
    project.ok("push", name)
    sent = [
        each.path.rpartition("digest=")[2] for each in proxy.passed if "digest=" in each.path and each.status == 201
    ]
    assert len(sent) == len(set(sent)) >= 3


@pytest.mark.parametrize("fault", [Fault(flip_request=True), Fault(end_request=500)], ids=["wrong", "short"])
def test_bytes_that_get_lost_or_spoilt(
    project: Pybuild, based: list[str], plain: Registry, proxy: FaultProxy, fault: Fault
) -> None:
    """The registry notices; and says so, when it never gets better."""
    left = [fault] * 2
    proxy.rule = lambda method, path: left.pop() if left and method in ("PATCH", "PUT") and "/blobs/" in path else None
    name = f"spoilt-{int(fault.flip_request)}:1"
    build(project, based, "-t", proxy.name(name), "--push")
    assert left == []
    assert project.ok("copy", "-q", f"docker://{plain.name(name)}", "oci:checked:1").returncode == 0
    proxy.rule = lambda method, path: Fault(flip_request=True) if method == "PUT" and "/blobs/" in path else None
    project.write(small="other")
    done = project("build", *based, "-t", proxy.name(name), "--push", ".")
    assert done.returncode == 1
    assert "DIGEST_INVALID" in done.stderr and "hint: the registry, or a proxy on the way" in done.stderr


def test_a_refusal_is_explained(project: Pybuild, based: list[str], plain: Registry, proxy: FaultProxy) -> None:
    proxy.rule = lambda method, _path: Fault(status=403) if method == "POST" else None
    done = project("build", *based, "-t", proxy.name("refused:1"), "--push", ".")
    assert done.returncode == 1
    assert "403" in done.stderr and f"pybuild login {proxy.address}" in done.stderr
    done = project("build", *based, "--push", ".")
    assert done.returncode == 2 and "-t" in done.stderr
    assert project("push", "nothing").returncode == 1


@pytest.mark.xdist_group("peers")
class TestPeers:
    """Byte for byte there and back."""

    def test_what_we_push_is_what_they_pull(
        self, project: Pybuild, based: list[str], plain: Registry, docker: Docker, podman: Podman, tmp_path: Path
    ) -> None:
        require("skopeo", "buildah")
        name = plain.name("theirs:1")
        build(project, based, "-t", name, "--push")
        expected = layers_of(plain, "theirs:1")
        run("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{name}", f"oci:{tmp_path}/oci:1")
        for layer in expected:
            digest = str(layer["digest"]).removeprefix("sha256:")
            assert (tmp_path / "oci/blobs/sha256" / digest).stat().st_size == layer["size"]
        docker("pull", "-q", name)
        assert docker.run_image(name, "cat", "/made", "/small") == "made\none"
        podman("pull", "-q", "--tls-verify=false", name)
        assert podman.run_image(name, "cat", "/made", "/small") == "made\none"
        storage = ("--root", str(tmp_path / "root"), "--runroot", str(tmp_path / "run"), "--storage-driver", "vfs")
        run("buildah", *storage, "pull", "-q", "--tls-verify=false", name)

    def test_what_they_push_is_what_we_pull(
        self, project: Pybuild, based: list[str], plain: Registry, docker: Docker, podman: Podman
    ) -> None:
        require("skopeo")
        name = plain.name("ours:1")
        build(project, based, "-t", name, "--push")
        docker("pull", "-q", name)
        docker("tag", name, plain.name("docker:1"))
        docker("push", "-q", plain.name("docker:1"))
        podman("pull", "-q", "--tls-verify=false", name)
        podman("push", "-q", "--tls-verify=false", name, plain.name("podman:1"))
        for pushed in ("docker:1", "podman:1"):
            reader = Pybuild(project.root.parent / pushed.partition(":")[0], project.cwd)
            digest = reader.ok("pull", "-q", plain.name(pushed)).stdout.strip()
            said = run("skopeo", "inspect", "--tls-verify=false", f"docker://{plain.name(pushed)}")
            assert json.loads(said)["Digest"] == digest
            assert reader.ok("run", "--rm", plain.name(pushed), "cat", "/made", "/small").stdout == "made\none"
            # and on again as it came
            assert reader.ok("push", "-q", plain.name(pushed), plain.name(f"again-{pushed}")).stdout.strip() == digest
