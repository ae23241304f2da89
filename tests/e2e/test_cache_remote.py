"""Caches in a real registry and in a real object store, and records in an image's own config."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from builder.image.layout import Layout
from builder.registry.client import RegistryClient
from builder.registry.neighbours import neighbours
from cache.descriptor import MEDIA_MANIFEST
from cache.store import Store
from tests.conftest import Pybuild, require
from tests.e2e.cachetools import cpu_seconds, machine, messages, ran
from tests.faultproxy import Fault, FaultProxy
from tests.registries import PASSWORD, USER, Registry, htpasswd, registry

DOCKERFILE = """\
FROM base AS tools
COPY f /f
RUN cat /f > /g; date +%s%N > /when
FROM base
COPY --from=tools /g /g
RUN cat /g /g > /h
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def name(hub: Registry, request: pytest.FixtureRequest) -> str:
    """A repository of the test's own."""
    return hub.name(f"cache/{request.node.name.partition('[')[0]}")


def words(based: list[str], *more: str) -> list[str]:
    return ["build", "--progress", "json", *based, *more, "."]


def uploads(hub: Registry) -> int:
    """How many bytes of blobs the registry holds."""
    return sum(path.stat().st_size for path in hub.storage.glob("docker/registry/v2/blobs/sha256/*/*/data"))


def test_another_machine_finds_everything(pybuild: Pybuild, based: list[str], name: str) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, f="hello")
    made = pybuild.ok(*words(based, "-t", "x", "--cache-to", f"type=registry,ref={name}:main,mode=max"))
    other = machine(pybuild, "other")
    found = other.ok(*words(based, "-t", "x", "--cache-from", f"{name}:main"))
    assert ran(found) == [] and found.stdout == made.stdout
    assert other.ok("run", "--rm", "x", "cat", "/h").stdout == "hellohello"


def test_a_second_export_sends_nothing(pybuild: Pybuild, based: list[str], name: str, hub: Registry) -> None:
    pybuild.write(Dockerfile="FROM base\n" + "".join(f"RUN echo {n} > /{n}\n" for n in range(50)))
    target = f"type=registry,ref={name},mode=max"
    pybuild.ok(*words(based, "--cache-to", target))
    held = uploads(hub)
    plain, _ = cpu_seconds(lambda: pybuild.ok(*words(based, "-o", "type=cacheonly")))
    exporting, done = cpu_seconds(lambda: pybuild.ok(*words(based, "-o", "type=cacheonly", "--cache-to", target)))
    assert exporting - plain < 0.7
    assert "is up to date" in messages(done) and uploads(hub) == held


def test_to_another_repository_of_a_registry_layers_are_mounted(
    pybuild: Pybuild, based: list[str], name: str, hub: Registry
) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, f="hello")
    pybuild.ok(*words(based, "--cache-to", f"type=registry,ref={name}/one,mode=max"))
    relay = machine(pybuild, "relay")
    done = relay.ok(
        *words(based, "-o", "type=cacheonly", "--cache-from", f"{name}/one"),
        *("--cache-to", f"type=registry,ref={name}/two,mode=max"),
    )
    assert ran(done) == [] and "importing layer" not in messages(done)
    other = machine(pybuild, "other")
    assert ran(other.ok(*words(based, "-t", "x", "--cache-from", f"{name}/two"))) == []


def test_a_push_to_the_same_registry_sends_no_layer_of_the_cache(
    pybuild: Pybuild, based: list[str], name: str, hub: Registry
) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, f="hello")
    pybuild.ok(*words(based, "--cache-to", f"type=registry,ref={name}/cache,mode=max"))
    other = machine(pybuild, "other")
    done = other.ok(*words(based, "-t", f"{name}/app", "--push", "--cache-from", f"{name}/cache"))
    assert [step for step in ran(done) if step] == []  # the push itself is none of the Dockerfile's
    with Store.open(str(other.root)) as store, RegistryClient({"HOME": "/nonexistent"}) as client:
        cached = json.loads(client.repository(f"{name}/cache").manifest("latest").raw)["layers"]
        pushed = json.loads(client.repository(f"{name}/app").manifest("latest").raw)["layers"]
        known = neighbours(store, client.repository(f"{name}/app").endpoint)
    shared = {layer["digest"] for layer in cached} & {layer["digest"] for layer in pushed}
    path = name.partition("/")[2]
    assert len(shared) == 2
    assert all(f"{path}/cache" in known[digest] for digest in shared)


def test_a_registry_that_is_gone_costs_the_steps_again(pybuild: Pybuild, based: list[str], tmp_path: Path) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, f="hello")
    with registry(tmp_path / "registry") as running:
        ref = running.name("app/cache")
        pybuild.ok(*words(based, "--cache-to", f"type=registry,ref={ref},mode=max"))
        for data in running.storage.glob("docker/registry/v2/repositories/app/cache/_layers/sha256/*/link"):
            if "sha256:" + data.parent.name not in _documents(running, ref):
                data.unlink()  # what a collector that was too eager leaves
        other = machine(pybuild, "other")
        done = other.ok(*words(based, "-t", "x", "--cache-from", ref))
    assert len([step for step in ran(done) if step.startswith("RUN")]) == 2
    assert other.ok("run", "--rm", "x", "cat", "/h").stdout == "hellohello"
    done = machine(pybuild, "third").ok(*words(based, "-t", "x", "--cache-from", ref))
    assert "is not used" in messages(done)


def _documents(running: Registry, ref: str) -> set[str]:
    """The digest of the index of a cache."""
    with RegistryClient({"HOME": "/nonexistent"}) as client:
        raw = client.repository(ref).manifest("latest").raw
    return {json.loads(raw)["config"]["digest"]}


@pytest.mark.parametrize("fault", [Fault(flip=True), Fault(status=404)])
def test_a_registry_at_its_worst_costs_steps_and_nothing_else(
    pybuild: Pybuild, based: list[str], proxy: FaultProxy, fault: Fault
) -> None:
    """Every answer about a blob is wrong: layers, the index, lists of files."""
    pybuild.write(Dockerfile=DOCKERFILE, f="hello")
    ref = proxy.name(f"worst/{pybuild.root.parent.name}".lower())
    pybuild.ok(*words(based, "-t", "x", "--cache-to", f"type=registry,ref={ref},mode=max"))
    index = str(manifest_of(ref)["config"]["digest"])
    proxy.rule = lambda method, path: fault if method == "GET" and "/blobs/" in path and index not in path else None
    other = machine(pybuild, "other")
    other.ok(*words(based, "-t", "x", "--cache-from", ref))
    assert other.ok("run", "--rm", "x", "cat", "/h").stdout == "hellohello"
    assert other.ok("store", "check").stdout.startswith("0 damaged")
    pybuild.write(f="changed")
    explained = machine(pybuild, "third").ok("explain", *based, "--cache-from", ref, ".").stdout
    assert "COPY f /f (Dockerfile:2): files of f changed (which ones is not known any more)" in explained
    proxy.rule = lambda method, path: fault if method == "GET" and "/blobs/" in path else None
    done = machine(pybuild, "fourth").ok(*words(based, "-o", "type=cacheonly", "--cache-from", ref))
    assert "is not used: " in messages(done)


def test_registry_with_passwords(pybuild: Pybuild, based: list[str], tmp_path: Path) -> None:
    import base64

    pybuild.write(Dockerfile="FROM base\nRUN echo x > /x\n")
    with registry(tmp_path / "registry", auth=htpasswd(tmp_path / "auth")) as running:
        token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (tmp_path / "docker").mkdir()
        (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {running.address: {"auth": token}}}))
        env = {"DOCKER_CONFIG": str(tmp_path / "docker")}
        ref = running.name("app/cache")
        denied = pybuild(*words(based, "--cache-to", f"type=registry,ref={ref}"), env={"HOME": str(tmp_path)})
        assert denied.returncode == 1 and "exporting cache" in denied.stderr
        pybuild.ok(*words(based, "--cache-to", f"type=registry,ref={ref}"), env=env)
        other = machine(pybuild, "other")
        assert ran(other.ok(*words(based, "-t", "x", "--cache-from", ref), env=env)) == []
        assert token not in denied.stderr


def test_a_base_image_is_pulled_only_when_it_is_needed(
    pybuild: Pybuild, base_layout: Path, name: str, tmp_path: Path
) -> None:
    with RegistryClient({"HOME": str(tmp_path)}) as client:
        push(client, f"{name}/base", base_layout)
    pybuild.write(Dockerfile=DOCKERFILE.replace("FROM base", f"FROM {name}/base"), f="hello")
    made = pybuild.ok(*words([], "-t", "x", "--cache-to", f"type=registry,ref={name},mode=max"))
    other = machine(pybuild, "other")
    done = other.ok(*words([], "-o", "type=cacheonly", "--cache-from", name))
    assert ran(done) == [] and "importing layer" not in messages(done)
    assert not [path for path in (other.root / "snapshots").iterdir() if path.name != "empty"]
    done = other.ok(*words([], "-t", "x", "--cache-from", name))
    assert [step for step in ran(done) if not step.startswith("FROM")] == [] and done.stdout == made.stdout
    assert other.ok("run", "--rm", "x", "cat", "/h").stdout == "hellohello"
    pybuild.write(Dockerfile=DOCKERFILE.replace("FROM base", f"FROM {name}/base").replace("/g /g >", "/g >"))
    third = machine(pybuild, "third")
    done = third.ok(*words([], "-t", "x", "--cache-from", name))
    assert [step for step in ran(done) if step.startswith("RUN")] == ["RUN cat /g > /h"]
    assert third.ok("run", "--rm", "x", "cat", "/h").stdout == "hello"


@pytest.mark.parametrize("switch", [["--cache-to", "type=inline"], ["--build-arg", "BUILDKIT_INLINE_CACHE=1"]])
def test_an_image_is_its_own_cache(
    pybuild: Pybuild, based: list[str], name: str, tmp_path: Path, switch: list[str]
) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, f="hello")
    layout = tmp_path / "image"
    pybuild.ok(*words(based, *switch, "-o", f"type=oci,tar=false,dest={layout},name={name}"))
    with RegistryClient({"HOME": str(tmp_path)}) as client:
        push(client, name, layout)
    other = machine(pybuild, "other")
    done = other.ok(*words(based, "-t", "x", "--cache-from", f"type=registry,ref={name}"))
    assert ran(done) == []
    assert other.ok("run", "--rm", "x", "cat", "/h").stdout == "hellohello"
    pybuild.write(f="changed")
    done = machine(pybuild, "third").ok(*words(based, "-t", "x", "--cache-from", f"type=registry,ref={name}"))
    assert len([step for step in ran(done) if step.startswith("RUN")]) == 2
    plain = machine(pybuild, "fourth").ok(*words(based, "-t", "x"))
    assert plain.stdout != done.stdout


def manifest_of(name: str) -> Any:
    with RegistryClient({"HOME": "/nonexistent"}) as client:
        return json.loads(client.repository(name).manifest("latest").raw)


def push(client: RegistryClient, name: str, layout: Path) -> None:
    """An image of a layout to a registry."""
    repository = client.repository(name, may_push=True)
    source = Layout(str(layout))
    found = source.find(None, "linux/amd64")
    for blob in (found.manifest.config, *found.manifest.layers):
        content = (layout / "blobs/sha256" / blob.digest.hex).read_bytes()
        repository.upload(blob, partial(io.BytesIO, content))
    repository.put_manifest(found.raw, MEDIA_MANIFEST, "latest")


class Bucket:
    """A bucket on a server that speaks S3."""

    name = "builds"

    def __init__(self, port: int) -> None:
        import boto3

        self.endpoint = f"http://127.0.0.1:{port}"
        self.client: Any = boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1",
            aws_access_key_id="k", aws_secret_access_key="very secret",
        )  # fmt: skip
        self.client.create_bucket(Bucket=self.name)

    def spec(self, **more: str) -> str:
        fields = {"bucket": self.name, "region": "us-east-1", "endpoint_url": self.endpoint, "use_path_style": "true"}
        fields |= {"access_key_id": "k", "secret_access_key": "very secret"} | more
        return "type=s3," + ",".join(f"{key}={value}" for key, value in fields.items())

    def objects(self) -> dict[str, Any]:
        return {item["Key"]: item for item in self.client.list_objects_v2(Bucket=self.name).get("Contents", [])}


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    server = pytest.importorskip("moto.server")
    require(True, "")
    running = server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    running.start()
    yield Bucket(running.get_host_and_port()[1])
    running.stop()
    assert threading.active_count() < 50


def test_bucket(pybuild: Pybuild, based: list[str], bucket: Bucket) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, f="hello")
    target = bucket.spec(name="main;other", prefix="ci/", mode="max", upload_parallelism="8")
    made = pybuild.ok(*words(based, "-t", "x", "--cache-to", target))
    keys = set(bucket.objects())
    assert {"ci/manifests/main", "ci/manifests/other"} < keys
    assert all(key.startswith(("ci/manifests/", "ci/blobs/sha256:")) for key in keys)
    other = machine(pybuild, "other")
    found = other.ok(*words(based, "-t", "x", "--cache-from", bucket.spec(name="other", prefix="ci/")))
    assert ran(found) == [] and found.stdout == made.stdout
    again = pybuild.ok(*words(based, "-o", "type=cacheonly", "--cache-to", target))
    assert "is up to date" in messages(again)
    assert "very secret" not in made.stderr + found.stderr + again.stderr


def test_what_is_in_use_is_touched(pybuild: Pybuild, based: list[str], bucket: Bucket) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, f="hello")
    target = bucket.spec(name="touched", prefix="touched/", touch_refresh="1s")
    pybuild.ok(*words(based, "--cache-to", target))
    before = {key: item["LastModified"] for key, item in bucket.objects().items() if key.startswith("touched/")}
    time.sleep(2.1)  # times are whole seconds there
    pybuild.ok(*words(based, "--cache-to", target))
    after = {key: item["LastModified"] for key, item in bucket.objects().items() if key.startswith("touched/")}
    assert before.keys() == after.keys() and len(before) >= 4
    assert all(after[key] > before[key] for key in before)
    other = machine(pybuild, "other")
    assert ran(other.ok(*words(based, "-t", "x", "--cache-from", bucket.spec(name="touched", prefix="touched/")))) == []


def test_a_bucket_that_is_not_there_is_an_error_of_the_export_only(
    pybuild: Pybuild, based: list[str], bucket: Bucket
) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN true\n")
    done = pybuild.ok(*words(based, "--cache-from", bucket.spec(bucket="absent")))
    assert "is not used: bucket 'absent'" in messages(done)
    done = pybuild(*words(based, "--cache-to", bucket.spec(bucket="absent")))
    assert done.returncode == 1 and "NoSuchBucket" in done.stderr and "very secret" not in done.stderr
