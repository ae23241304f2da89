"""`pybuild copy`: an image goes round all places and is the same at the end."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import Pybuild
from tests.e2e.peers import Docker, docker, podman, require, run
from tests.faultproxy import Fault, FaultProxy
from tests.registries import Registry

__all__ = ["docker", "podman"]


@pytest.fixture
def image(pybuild: Pybuild, based: list[str], plain: Registry) -> str:
    """The name of an image at the registry; its digest is what `copy` prints of it."""
    (pybuild.cwd / "large").write_bytes(random.randbytes(2 << 20))
    pybuild.write(Dockerfile='FROM base\nCOPY large /large\nRUN echo made > /made\nCMD ["cat", "/made"]\n')
    name = plain.name("source:1")
    pybuild.ok("build", *based, "-o", f"type=registry,name={name}", ".")
    return name


def copy(pybuild: Pybuild, source: str, dest: str, *words: str) -> str:
    return pybuild.ok("copy", "-q", *words, source, dest).stdout.strip()


def test_round_trip(pybuild: Pybuild, image: str, plain: Registry, tmp_path: Path) -> None:
    """registry -> registry -> layout -> archive -> store -> registry"""
    places = [
        f"docker://{image}",
        f"docker://{plain.name('copied/there:2')}",
        f"oci:{tmp_path}/layout:tag",
        f"oci-archive:{tmp_path}/archive.tar:tag",
        "store:copied:1",
        f"docker://{plain.name('back:3')}",
    ]
    digests = {copy(pybuild, source, dest) for source, dest in pairwise(places)}
    assert len(digests) == 1
    assert pybuild.ok("run", "--rm", "copied:1").stdout == "made\n"
    again = Pybuild(tmp_path / "again", pybuild.cwd)
    assert again.ok("pull", "-q", plain.name("back:3")).stdout.strip() == digests.pop()


def test_others_read_what_is_copied(pybuild: Pybuild, image: str, tmp_path: Path) -> None:
    require("skopeo")
    digest = copy(pybuild, f"docker://{image}", f"oci:{tmp_path}/layout:tag")
    assert json.loads(run("skopeo", "inspect", f"oci:{tmp_path}/layout:tag"))["Digest"] == digest
    copy(pybuild, f"docker://{image}", f"docker-archive:{tmp_path}/docker.tar:named:1")
    said = json.loads(run("skopeo", "inspect", "--config", f"docker-archive:{tmp_path}/docker.tar:named:1"))
    assert said["config"]["Cmd"] == ["cat", "/made"]
    run("skopeo", "copy", "-q", f"oci:{tmp_path}/layout:tag", f"docker-archive:{tmp_path}/theirs.tar:theirs:1")
    copy(pybuild, f"docker-archive:{tmp_path}/theirs.tar:theirs:1", "store:theirs:1")
    assert pybuild.ok("run", "--rm", "theirs:1").stdout == "made\n"


@pytest.mark.parametrize("transport", ["oci-archive", "docker-archive"])
def test_archives_are_streams(pybuild: Pybuild, image: str, transport: str) -> None:
    command = pybuild.argv("copy", "-q", f"docker://{image}", f"{transport}:-:piped:1")
    written = subprocess.run(command, env=pybuild.environment(), capture_output=True, check=True)
    assert written.stderr.startswith(b"sha256:")  # the digest, beside the archive
    command = pybuild.argv("copy", "-q", f"{transport}:-:piped:1", "store:piped:1")
    read = subprocess.run(command, env=pybuild.environment(), input=written.stdout, capture_output=True, check=True)
    assert read.stdout == written.stderr
    assert pybuild.ok("run", "--rm", "piped:1").stdout == "made\n"
    command[-2] = f"{transport}:-:other:1"
    failed = subprocess.run(command, env=pybuild.environment(), input=written.stdout, capture_output=True, check=False)
    assert failed.returncode == 1 and b"no such image" in failed.stderr and b"piped:1" in failed.stderr


def test_all_platforms(pybuild: Pybuild, plain: Registry, proxy: FaultProxy, tmp_path: Path) -> None:
    pybuild.write(Dockerfile="FROM scratch\nARG TARGETARCH\nCOPY f /$TARGETARCH\n", f="f")
    name = plain.name("many:1")
    pybuild.ok("build", "--platform", "linux/amd64,linux/arm64", "-t", name, "--push", ".")
    one = copy(pybuild, f"docker://{name}", f"oci:{tmp_path}/one:1", "--platform", "linux/arm64")
    every = copy(pybuild, f"docker://{name}", f"oci:{tmp_path}/every:1", "--all")
    assert one != every
    pybuild.ok("build", "--platform", "linux/amd64,linux/arm64", "-t", "stored:1", ".")
    assert copy(pybuild, "store:stored:1", f"oci:{tmp_path}/stored:1", "--all") == every
    assert pybuild.ok("push", "-q", "stored:1", plain.name("stored:1")).stdout.strip() == every
    assert copy(pybuild, f"oci:{tmp_path}/every:1", f"docker://{plain.name('every:2')}", "--all") == every
    assert copy(pybuild, f"docker://{plain.name('every:2')}", f"oci-archive:{tmp_path}/a.tar:1", "-a") == every
    assert copy(pybuild, f"oci-archive:{tmp_path}/a.tar:1", f"docker://{plain.name('every:3')}", "-a") == every
    assert copy(pybuild, f"docker://{plain.name('every:3')}", "store:came:1", "-a") == every
    assert pybuild.ok("inspect", "-f", ".Index.Platforms[*]", "came:1").stdout == "linux/amd64\nlinux/arm64\n"
    again = Pybuild(tmp_path / "again", pybuild.cwd)
    assert copy(again, f"oci-archive:{tmp_path}/a.tar:1", "store:came:1", "-a") == every
    assert again.ok("push", "-q", "came:1", plain.name("every:4")).stdout.strip() == every
    assert again.ok("prune", "-a", "-f") and "0 damaged" in again.ok("store", "check").stdout
    assert again.ok("push", "-q", "came:1", plain.name("every:5")).stdout.strip() == every
    index = json.loads((tmp_path / "every/index.json").read_text())
    assert [entry["digest"] for entry in index["manifests"]] == [every]
    done = pybuild("copy", "--platform", "linux/s390x", f"docker://{name}", f"oci:{tmp_path}/no:1")
    assert done.returncode == 1 and "linux/amd64, linux/arm64" in done.stderr
    assert not (tmp_path / "no").exists()


def test_within_a_registry_nothing_is_sent(pybuild: Pybuild, image: str, proxy: FaultProxy) -> None:
    name = image.partition("/")[2]
    copy(pybuild, f"docker://{proxy.name(name)}", f"docker://{proxy.name('near:1')}")
    raw = sum(each.sent for each in proxy.passed if "/manifests/" in each.path)
    assert (proxy.received("/blobs/"), proxy.sent()) == (0, raw)


def test_attestations_stay_out_of_the_store(pybuild: Pybuild, plain: Registry, tmp_path: Path) -> None:
    """An index as BuildKit makes it can be copied everywhere else."""
    pybuild.write(Dockerfile="FROM scratch\nCOPY f /f\n", f="f")
    pybuild.ok("build", "-t", "one:1", ".")
    copy(pybuild, "store:one:1", f"oci:{tmp_path}/one:1")
    [entry] = json.loads((tmp_path / "one/index.json").read_text())["manifests"]
    unknown = {"architecture": "unknown", "os": "unknown"}
    attested = {
        **{key: entry[key] for key in ("mediaType", "digest", "size")},
        **{"platform": unknown, "annotations": {"vnd.docker.reference.type": "attestation-manifest"}},
    }
    platform = {"architecture": "amd64", "os": "linux"}
    index = {"schemaVersion": 2, "manifests": [{**entry, "platform": platform}, attested]}
    raw = json.dumps(index).encode()
    digest = hashlib.sha256(raw).hexdigest()
    (tmp_path / "one/blobs/sha256" / digest).write_bytes(raw)
    top = {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": f"sha256:{digest}", "size": len(raw)}
    listed = {"schemaVersion": 2, "manifests": [{**top, "annotations": {"org.opencontainers.image.ref.name": "1"}}]}
    (tmp_path / "one/index.json").write_text(json.dumps(listed))
    copy(pybuild, f"oci:{tmp_path}/one:1", f"docker://{plain.name('attested:1')}", "-a")
    refused = pybuild("copy", "-a", f"docker://{plain.name('attested:1')}", "store:x:1")
    assert (refused.returncode, "no attestations" in refused.stderr) == (1, True), refused.stderr
    copy(pybuild, f"docker://{plain.name('attested:1')}", "store:x:1", "--platform", "linux/amd64")


def test_from_registry_to_registry_through_a_bad_network(pybuild: Pybuild, image: str, proxy: FaultProxy) -> None:
    name = image.partition("/")[2]
    count = iter(range(1_000_000))
    proxy.rule = lambda method, path: (
        Fault(cut_answer=700_000) if method == "GET" and "/blobs/" in path and next(count) % 2 == 0 else None
    )
    expected = copy(pybuild, f"docker://{image}", f"docker://{proxy.name('direct:1')}")
    assert copy(pybuild, f"docker://{proxy.name(name)}", f"docker://{proxy.name('broken:1')}") == expected


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("alpine", "store:x"), 2, "names no transport"),
        (("docker:alpine", "store:x"), 2, "is not docker://NAME"),
        (("oci:", "store:x"), 2, "says nothing"),
        (("oci:nothing:1", "store:x"), 1, "is not an OCI image layout"),
        (("oci-archive:nothing", "store:x"), 1, "no such file"),
        (("store:nothing", "oci:x"), 1, "no such image"),
        (("docker://127.0.0.1:1/x", "oci:x"), 1, "connection refused"),
        (("docker-archive:-", "oci:x"), 1, "is not an image archive"),
    ],
)
def test_errors(pybuild: Pybuild, words: tuple[str, str], code: int, message: str) -> None:
    done = pybuild("copy", *words)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr


def test_without_skopeo(pybuild: Pybuild) -> None:
    done = pybuild("copy", "docker-daemon:x:1", "store:x", env={"PATH": "/nothing"})
    assert done.returncode == 1
    assert "skopeo is not installed" in done.stderr and "apt install skopeo" in done.stderr


@pytest.mark.xdist_group("peers")
def test_docker_daemon(pybuild: Pybuild, image: str, docker: Docker) -> None:
    require("skopeo")
    env = docker.environ
    pybuild.ok("copy", f"docker://{image}", "docker-daemon:from-us:1", env=env)
    assert docker.run_image("from-us:1", "cat", "/made") == "made\n"
    pybuild.ok("copy", "docker-daemon:from-us:1", "store:from-docker:1", env=env)
    assert pybuild.ok("run", "--rm", "from-docker:1").stdout == "made\n"


@pytest.mark.xdist_group("peers")
def test_containers_storage(pybuild: Pybuild, image: str, tmp_path: Path) -> None:
    require("skopeo")
    where = f"containers-storage:[vfs@{tmp_path}/root+{tmp_path}/run]localhost/from-us:1"
    pybuild.ok("copy", f"docker://{image}", where)
    assert json.loads(run("skopeo", "inspect", "--config", where))["config"]["Cmd"] == ["cat", "/made"]
    pybuild.ok("copy", where, "store:from-podman:1")
    assert pybuild.ok("run", "--rm", "from-podman:1").stdout == "made\n"
