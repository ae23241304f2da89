"""Images from registries: as bases of builds and by name; through networks that break, and after a kill."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import Pybuild, require
from tests.e2e.peers import require as require_programs
from tests.e2e.peers import run
from tests.faultproxy import Fault, FaultProxy
from tests.registries import Registry

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory, plain: Registry, base_layout: Path) -> str:
    """The repository of an image with four layers, three of them of some megabytes, tag `1`."""
    require(os.geteuid() == 0, "building needs root")
    scratch = tmp_path_factory.mktemp("pushed")
    context = scratch / "context"
    context.mkdir()
    lines = ["FROM base"]
    for number in range(3):
        (context / f"f{number}").write_bytes(random.randbytes((number + 1) * MEGABYTE))
        lines.append(f"COPY f{number} /data/f{number}")
    (context / "Dockerfile").write_text("\n".join([*lines, "RUN rm /data/f0 && echo made > /made"]) + "\n")
    command = Pybuild(scratch / "store", context)
    command.ok(
        *("build", "--build-context", f"base=oci-layout://{base_layout}"),
        *("-o", f"type=registry,name={plain.name('app:1')}", "."),
    )
    return "app"


def check_store(root: Path) -> None:
    """Every blob is what its name says."""
    for path in (root / "blobs/sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def partials(root: Path) -> dict[str, int]:
    directory = root / "run/downloads"
    return {path.name: path.stat().st_size for path in directory.iterdir()} if directory.exists() else {}


def test_from_copy_and_mount(pybuild: Pybuild, proxy: FaultProxy, pushed: str) -> None:
    name = proxy.name(f"{pushed}:1")
    pybuild.write(
        Dockerfile=f"FROM {name}\nCOPY --from={name} /made /copied\n"
        f"RUN --mount=from={name},target=/m cat /m/made /copied /made > /all && ls /data > /names\n"
    )
    pybuild.ok("build", "-t", "x", ".")
    assert pybuild.ok("run", "--rm", "x", "cat", "/all", "/names").stdout == "made\n" * 3 + "f1\nf2\n"
    layers = [each for each in proxy.passed if "/blobs/" in each.path]
    assert len({each.path for each in layers}) == len(layers)  # nothing twice
    check_store(pybuild.root)


def test_a_warm_build_asks_nobody(pybuild: Pybuild, proxy: FaultProxy, pushed: str) -> None:
    pybuild.write(Dockerfile=f"FROM {proxy.name(pushed)}:1\nRUN echo x > /x\n")
    pybuild.ok("build", "-t", "x", ".")
    proxy.forget()
    pybuild.ok("build", "-t", "x", ".")
    pybuild.write(Dockerfile=f"FROM {proxy.name(pushed)}:1\nRUN echo y > /y\n")
    pybuild.ok("build", "-t", "x", ".")
    assert proxy.passed == []


def test_a_warm_build_loads_no_client(pybuild: Pybuild, proxy: FaultProxy, pushed: str) -> None:
    pybuild.write(Dockerfile=f"FROM {proxy.name(pushed)}:1\nCOPY --from={proxy.name(pushed)}:1 /made /x\n")
    pybuild.ok("build", "-t", "x", ".")
    probe = "import sys; from builder.cli import main; main(sys.argv[1:]); print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", probe, "build", "-t", "x", "."],
        cwd=pybuild.cwd,
        env=pybuild.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"urllib3", "ssl", "http.client", "tomllib", "builder.registry.client", "lark"}


def test_pull_asks_what_the_name_means_now(pybuild: Pybuild, proxy: FaultProxy, plain: Registry, pushed: str) -> None:
    moving = "moving:latest"
    for content in ("one", "two"):
        pybuild.write(Dockerfile="FROM scratch\nCOPY f /f\n", f=content)
        pybuild.ok("build", "-o", f"type=registry,name={plain.name(moving)}", ".")
        pybuild.write(Dockerfile=f"FROM {proxy.name(pushed)}:1\nCOPY --from={proxy.name('moving')} /f /f\nRUN cat /f\n")
        if content == "one":
            pybuild.ok("build", "-t", "x", ".")
    pybuild.ok("build", "-t", "x", ".")
    assert pybuild.ok("run", "--rm", "x", "cat", "/f").stdout == "one"
    proxy.forget()
    pybuild.ok("build", "--pull", "-t", "x", ".")
    assert pybuild.ok("run", "--rm", "x", "cat", "/f").stdout == "two"
    unchanged = [each for each in proxy.passed if f"/{pushed}/" in each.path]
    assert {each.method for each in unchanged} == {"HEAD"}  # the base means what it meant: no document is sent again


def test_by_digest(pybuild: Pybuild, proxy: FaultProxy, pushed: str) -> None:
    digest = pybuild.ok("pull", "-q", proxy.name(f"{pushed}:1")).stdout.strip()
    other = Pybuild(pybuild.root.parent / "other", pybuild.cwd)
    other.write(Dockerfile=f"FROM {proxy.name(pushed)}@{digest}\nRUN cat /made\n")
    other.ok("build", "-t", "x", ".")
    proxy.forget()
    other.ok("build", "--pull", "-t", "x", ".")
    assert proxy.passed == []  # a digest means one thing only


def test_platforms(pybuild: Pybuild, proxy: FaultProxy, plain: Registry) -> None:
    pybuild.write(Dockerfile="FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n", amd64="amd64", arm64="arm64")
    name = "platforms:1"
    pybuild.ok("build", "--platform", "linux/amd64,linux/arm64", "-t", plain.name(name), "--push", ".")
    pybuild.write(Dockerfile=f"FROM {proxy.name(name)}\nCOPY amd64 /x\n")
    pybuild.ok("build", "--platform", "linux/amd64,linux/arm64", "-o", "type=local,dest=out", ".")
    for architecture in ("amd64", "arm64"):
        assert (pybuild.cwd / f"out/linux_{architecture}/arch").read_text() == architecture
    proxy.forget()
    pybuild.ok("build", "--platform", "linux/arm64,linux/amd64", "-o", "type=local,dest=out", ".")
    assert proxy.passed == []
    done = pybuild("build", "--platform", "linux/s390x", "-o", "type=local,dest=out", ".")
    assert done.returncode == 1
    assert "Dockerfile:1" in done.stderr and "its platforms: linux/amd64, linux/arm64" in done.stderr


def test_schema_2_of_docker(pybuild: Pybuild, plain: Registry, proxy: FaultProxy, base_layout: Path) -> None:
    require_programs("skopeo")
    target = f"docker://{plain.name('schema2:1')}"
    run("skopeo", "copy", "-q", "--format", "v2s2", "--dest-tls-verify=false", f"oci:{base_layout}:latest", target)
    pybuild.write(Dockerfile=f"FROM {proxy.name('schema2:1')}\nRUN echo docker > /x\n")
    pybuild.ok("build", "-t", "x", ".")
    assert pybuild.ok("run", "--rm", "x", "cat", "/x").stdout == "docker\n"
    pybuild.ok("build", "-o", f"type=registry,name={plain.name('again:1')}", ".")
    raw = json.loads(run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{plain.name('again:1')}"))
    assert {layer["mediaType"] for layer in raw["layers"]} == {"application/vnd.oci.image.layer.v1.tar+gzip"}


FAULTS = {
    "cut": lambda dice: Fault(cut_answer=dice.randrange(MEGABYTE)),
    "reset": lambda dice: Fault(cut_answer=dice.randrange(MEGABYTE), is_reset=True),
    "busy": lambda dice: Fault(status=429, headers={"Retry-After": "0"}),
    "down": lambda dice: Fault(status=dice.choice((500, 502, 503, 504))),
    "slow": lambda dice: Fault(delay=dice.random() / 5),
    "wrong": lambda dice: Fault(flip=True),
    "short": lambda dice: Fault(end_answer=dice.randrange(MEGABYTE)),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_network_at_its_worst(pybuild: Pybuild, proxy: FaultProxy, pushed: str, kind: str) -> None:
    """The first answer to every question is a fault, and then every third."""
    dice = random.Random(kind)
    asked: Counter[str] = Counter()

    def rule(method: str, path: str) -> Fault | None:
        asked[path] += 1
        return FAULTS[kind](dice) if method == "GET" and asked[path] % 3 == 1 else None

    proxy.rule = rule
    pybuild.write(Dockerfile=f"FROM {proxy.name(pushed)}:1\nRUN ls /data && cat /made\n")
    done = pybuild("build", "-t", "x", ".")
    assert done.returncode == 0, done.stderr
    check_store(pybuild.root)
    assert partials(pybuild.root) == {}


def test_wrong_bytes_for_ever(pybuild: Pybuild, proxy: FaultProxy, pushed: str) -> None:
    proxy.rule = lambda method, path: Fault(flip=True) if method == "GET" and "/blobs/" in path else None
    done = pybuild("pull", proxy.name(f"{pushed}:1"))
    assert done.returncode == 1
    assert "came with the digest" in done.stderr and "hint: " in done.stderr
    check_store(pybuild.root)
    assert pybuild.ok("images", "-q").stdout == ""
    proxy.rule = lambda _method, _path: None
    pybuild.ok("pull", proxy.name(f"{pushed}:1"))
    check_store(pybuild.root)


def test_a_killed_pull_resumes(pybuild: Pybuild, proxy: FaultProxy, pushed: str) -> None:
    """Killed at whatever moment: complete layers are not asked for again, half ones not from the start."""
    name = proxy.name(f"{pushed}:1")
    whole = sum(layer["size"] for layer in _layers(proxy, pushed))
    proxy.rule = lambda method, path: Fault(delay=0.05, cut_answer=300_000) if "/blobs/" in path else None
    kills = 0
    for _ in range(12):
        process = subprocess.Popen(
            pybuild.argv("pull", name), cwd=pybuild.cwd, env=pybuild.environment(), stderr=subprocess.DEVNULL
        )
        seen, deadline = len(proxy.exchanges), time.monotonic() + 30
        while len(proxy.exchanges) == seen and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(random.random() / 3)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        check_store(pybuild.root)
    assert kills > 1
    proxy.rule = lambda _method, _path: None
    pybuild.ok("pull", name)
    check_store(pybuild.root)
    assert partials(pybuild.root) == {}
    # What was on its way at a kill may be lost, nothing else; without resuming it would be a multiple of all.
    assert proxy.received("/blobs/") <= whole + kills * 4 * 300_000
    assert pybuild.ok("run", "--rm", name, "cat", "/made").stdout == "made\n"


def test_what_is_complete_is_not_fetched_again(pybuild: Pybuild, proxy: FaultProxy, pushed: str) -> None:
    layers = _layers(proxy, pushed)
    last = layers[-2]["digest"]
    proxy.rule = lambda method, path: Fault(status=404) if last in path else None
    assert pybuild("pull", proxy.name(f"{pushed}:1")).returncode == 1
    proxy.rule = lambda _method, _path: None
    proxy.forget()
    pybuild.ok("pull", proxy.name(f"{pushed}:1"))
    fetched = [each.path.rpartition("/")[2] for each in proxy.passed if "/blobs/" in each.path]
    assert last in fetched and layers[0]["digest"] not in fetched


def _layers(proxy: FaultProxy, repository: str) -> list[dict[str, object]]:
    from urllib.request import Request, urlopen

    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    with urlopen(Request(f"http://{proxy.address}/v2/{repository}/manifests/1", headers=accept)) as answer:
        document = json.load(answer)
    proxy.forget()
    layers: list[dict[str, object]] = document["layers"]
    return layers


def test_mirrors(pybuild: Pybuild, plain: Registry, proxy: FaultProxy, pushed: str, tmp_path: Path) -> None:
    """A name that leads nowhere by itself is had from its second mirror; the layer that this one has lost from the
    registry itself."""
    lost = str(_layers(proxy, pushed)[-1]["digest"])
    conf = tmp_path / "registries.conf"
    conf.write_text(
        f'[[registry]]\nprefix = "images.invalid/team"\nlocation = "{plain.address}"\n'
        '[[registry.mirror]]\nlocation = "127.0.0.1:1/nothing"\n'
        f'[[registry.mirror]]\nlocation = "{proxy.address}"\n'
        f'[aliases]\nshorty = "images.invalid/team/{pushed}"\n'
    )
    env = {"CONTAINERS_REGISTRIES_CONF": str(conf)}
    proxy.rule = lambda _method, path: Fault(status=404) if lost in path else None
    pybuild.write(Dockerfile="FROM shorty:1\nRUN cat /made\n")
    pybuild.ok("build", "-t", "x", ".", env=env)
    assert any("/blobs/" in each.path for each in proxy.passed)
    conf.write_text('[[registry]]\nprefix = "docker.io"\nblocked = true\n')
    done = pybuild("build", "--no-cache", "-f", "-", ".", env=env, stdin=None, input="FROM alpine:9\n")
    assert done.returncode == 1 and "blocked" in done.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("{proxy}/nothing:1", ("Dockerfile:1", "not found", "MANIFEST_UNKNOWN", "pybuild login", "pybuild load")),
        ("127.0.0.1:1/x", ("Dockerfile:1", "connection refused", "hint: ")),
        ("{proxy}/{pushed}:2", ("not found", "hint: ")),
    ],
)
def test_errors_say_what_to_try(
    pybuild: Pybuild, proxy: FaultProxy, pushed: str, name: str, words: tuple[str, ...]
) -> None:
    pybuild.write(Dockerfile=f"FROM {name.format(proxy=proxy.address, pushed=pushed)}\n")
    done = pybuild("build", ".")
    assert done.returncode == 1
    for word in words:
        assert word in done.stderr


def test_two_at_once_fetch_once(pybuild: Pybuild, proxy: FaultProxy, pushed: str) -> None:
    whole = sum(int(str(layer["size"])) for layer in _layers(proxy, pushed))
    argv = pybuild.argv("pull", proxy.name(f"{pushed}:1"))
    both = [
        subprocess.Popen(argv, cwd=pybuild.cwd, env=pybuild.environment(), stderr=subprocess.DEVNULL) for _ in range(2)
    ]
    assert [process.wait(60) for process in both] == [0, 0]
    configs = [each for each in proxy.passed if "/blobs/" in each.path and each.received < 5000]
    assert proxy.received("/blobs/") <= whole + sum(each.received for each in configs)


@pytest.mark.parametrize("command", ["build", "pull"])
@pytest.mark.parametrize("part", ["/manifests/", "/blobs/"])
def test_an_interrupt_ends_it(pybuild: Pybuild, proxy: FaultProxy, pushed: str, command: str, part: str) -> None:
    """A registry that says nothing any more does not hold up who wants to go."""
    released = threading.Event()

    def rule(_method: str, path: str) -> Fault | None:
        return Fault(hold=released) if part in path else None

    proxy.rule = rule
    pybuild.write(Dockerfile=f"FROM {proxy.name(pushed)}:1\nRUN cat /made\n")
    words = ["build", "."] if command == "build" else ["pull", proxy.name(f"{pushed}:1")]
    process = subprocess.Popen(pybuild.argv(*words), cwd=pybuild.cwd, env=pybuild.environment(), stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 20
        while not proxy.under_way and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert time.monotonic() - began < 6
    finally:
        released.set()
        process.kill()
        process.communicate()


MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""A small process in between: a child counts the memory of the one that forked it as its own."""


def test_memory_of_a_large_image(pybuild: Pybuild, plain: Registry, tmp_path: Path) -> None:
    """Both ways, three layers of 64 MB."""
    for number in range(3):
        with open(pybuild.cwd / f"f{number}", "wb") as file:
            for _ in range(64):
                file.write(os.urandom(MEGABYTE // 2) + bytes(MEGABYTE // 2))
    pybuild.write(Dockerfile="FROM scratch\nCOPY f0 /\nCOPY f1 /\nCOPY f2 /\n")
    name = plain.name("large:1")
    for words in (["build", "-t", name, "--push", "."], ["pull", name]):
        command = [sys.executable, "-c", MEASURE, *pybuild.argv(*words)]
        measured = subprocess.run(
            command, cwd=pybuild.cwd, env=pybuild.environment(), capture_output=True, text=True, check=True
        )
        assert int(measured.stdout.splitlines()[-1]) < 150 * 1024
        pybuild.root = tmp_path / "empty"


def test_run_pulls_what_is_missing(pybuild: Pybuild, plain: Registry, proxy: FaultProxy, pushed: str) -> None:
    name = "running:1"
    for content in ("one", "two"):
        pybuild.write(Dockerfile='FROM base\nCMD ["cat", "/f"]\nCOPY f /f\n', f=content)
        if content == "two":
            never = pybuild("run", "--rm", "--pull", "never", proxy.name("running:2"))
            assert never.returncode == 125 and proxy.name("running:2") in never.stderr
        layout = f"base=docker-image://{plain.name(f'{pushed}:1')}"
        pybuild.ok("build", "--build-context", layout, "-o", f"type=registry,name={plain.name(name)}", ".")
        assert pybuild.ok("run", "--rm", proxy.name(name)).stdout == "one"
    assert pybuild.ok("run", "--rm", "--pull", "always", proxy.name(name)).stdout == "two"
    missing = pybuild("run", "--rm", proxy.name("nothing:1"))
    assert missing.returncode == 125
    assert "no such image" in missing.stderr and "MANIFEST_UNKNOWN" in missing.stderr


def test_pruning_leaves_what_a_base_means(pybuild: Pybuild, proxy: FaultProxy, pushed: str) -> None:
    """Its layers are part of an image; its documents are what a build without a network finds it by."""
    pybuild.write(Dockerfile=f"FROM {proxy.name(pushed)}:1\nRUN echo x > /x\n")
    first = pybuild.ok("build", "-q", "-t", "x", ".").stdout
    pybuild.ok("prune", "-f")
    proxy.forget()
    assert pybuild.ok("build", "-q", "-t", "x", ".").stdout == first
    assert proxy.passed == []
    pybuild.ok("rmi", "x")
    assert "Total reclaimed space: 0B" not in pybuild.ok("prune", "-a", "-f").stdout
    pybuild.ok("build", "-q", "-t", "x", ".")
    assert proxy.passed != []
    assert "0 damaged" in pybuild.ok("store", "check").stdout
