"""Images that we write, read and run by other programs; images that they write, read by us."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.exporter import Exported, ImageInput, export, parse_output
from builder.image.importer import import_layout, load_image
from builder.plan import SCRATCH, HistoryEntry, PlannedImage
from cache.store import Store
from tests.builder.image_factory import commit_files
from tests.conftest import PROJECT, Pybuild
from tests.e2e.peers import Docker, Podman, docker, podman, require, run

__all__ = ["docker", "podman"]

pytestmark = pytest.mark.xdist_group("peers")  # podman and dockerd have state of the whole machine
COMMAND = ("cat", "/greeting", "/etc/motd")
OUTPUT = "hello\nof the day\n"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture
def image(store: Store, base_layout: Path) -> ImageInput:
    """busybox, and two layers on it."""
    base = import_layout(store, str(base_layout), "latest")
    snapshot = store.snapshots.get(base.chain_id)
    assert snapshot is not None
    layers = len(snapshot.layers)
    for files in ({"greeting": "hello\n"}, {"etc/motd": "of the day\n"}):
        snapshot = commit_files(store, snapshot, files)
    config = {key: base.config[key] for key in ("architecture", "os", "config")}
    history = (HistoryEntry("COPY greeting /"), HistoryEntry("LABEL a=b", empty_layer=True), HistoryEntry("RUN date"))
    base_history = tuple(base.config["history"])
    planned = PlannedImage(SCRATCH, "linux/amd64", config, base_history, history, layers, "")
    return ImageInput(planned, snapshot, (10**18,) * 3, 10**18)


def write(store: Store, image: ImageInput, kind: str, dest: Path, *, options: str = "") -> Exported:
    spec = parse_output(f"type={kind},dest={dest}{options}")
    return export(store, [image], spec._replace(names=("interop:1",)), io.BytesIO())


@pytest.mark.parametrize("options", ["", ",compression=uncompressed"])
def test_docker_loads_and_runs_it(
    store: Store, image: ImageInput, tmp_path: Path, docker: Docker, options: str
) -> None:
    exported = write(store, image, "docker", tmp_path / "x.tar", options=options)
    try:
        assert "Loaded image: interop:1" in docker("load", stdin=tmp_path / "x.tar")
        [inspected] = json.loads(docker("image", "inspect", "interop:1"))
        assert inspected["Id"] in (exported.image_ids[0], exported.digest)
        assert len(inspected["RootFS"]["Layers"]) == len(image.snapshot.layers)
        assert docker.run_image("interop:1", *COMMAND) == OUTPUT
        assert "COPY greeting /" in docker("history", "--no-trunc", "interop:1")
    finally:
        docker("image", "rm", "-f", "interop:1")


@pytest.mark.parametrize(
    ("kind", "options"),
    [("docker", ""), ("oci", ""), ("oci", ",compression=zstd"), ("oci", ",compression=uncompressed")],
)
def test_podman_loads_and_runs_it(
    store: Store, image: ImageInput, tmp_path: Path, podman: Podman, kind: str, options: str
) -> None:
    exported = write(store, image, kind, tmp_path / "x.tar", options=options)
    loaded = podman("load", stdin=tmp_path / "x.tar").strip().partition(": ")[2]
    assert podman("image", "inspect", "--format", "{{.Id}}", loaded).strip() == exported.image_ids[0][7:]
    assert podman.run_image(loaded, *COMMAND) == OUTPUT


@pytest.mark.parametrize(("kind", "transport"), [("oci", "oci-archive"), ("docker", "docker-archive"), ("dir", "oci")])
def test_skopeo_reads_and_copies_it(store: Store, image: ImageInput, tmp_path: Path, kind: str, transport: str) -> None:
    require("skopeo")
    exported = write(
        store, image, "oci" if kind == "dir" else kind, tmp_path / "x", options=",tar=false" * (kind == "dir")
    )
    source = f"{transport}:{tmp_path / 'x'}" + (":1" if kind == "dir" else "")
    inspected = json.loads(run("skopeo", "inspect", source))
    assert (inspected["Os"], inspected["Architecture"]) == ("linux", "amd64")
    if transport != "docker-archive":  # there skopeo makes up a manifest of its own
        assert inspected["Digest"] == exported.digest
    raw = run("skopeo", "inspect", "--raw", "--config", source)
    assert json.loads(raw)["history"][-1]["created_by"] == "RUN date"
    run("skopeo", "copy", "-q", source, f"oci:{tmp_path / 'copy'}:1")
    copied = json.loads(run("skopeo", "inspect", "--config", f"oci:{tmp_path / 'copy'}:1"))
    assert copied["rootfs"]["diff_ids"] == [layer.diff_id for layer in image.snapshot.layers]


def test_the_demo_runs_elsewhere(base_layout: Path, tmp_path: Path, docker: Docker, podman: Podman) -> None:
    pybuild = Pybuild(tmp_path / "store", PROJECT)
    words = [
        "--build-context",
        f"pybuild/base=oci-layout://{base_layout}",
        "-t",
        "pybuild-demo:1",
        "--progress",
        "quiet",
    ]
    outputs = ["-o", f"type=docker,dest={tmp_path}/docker.tar", "-o", f"type=oci,dest={tmp_path}/oci.tar"]
    image_id = pybuild.ok("build", *words, *outputs, "testdata/demo").stdout.strip()
    try:
        docker("load", stdin=tmp_path / "docker.tar")
        assert docker("image", "inspect", "--format", "{{.Id}}", "pybuild-demo:1").strip() == image_id
        assert "hello from app" in docker.run_image("pybuild-demo:1")
    finally:
        docker("image", "rm", "-f", "pybuild-demo:1")
    loaded = podman("load", stdin=tmp_path / "oci.tar").strip().partition(": ")[2]
    assert "hello from app" in podman.run_image(loaded)
    other = Pybuild(tmp_path / "other", tmp_path)
    other.ok("load", "-i", "docker.tar")
    assert "hello from app" in other.ok("run", "--rm", "pybuild-demo:1").stdout


def test_umoci_unpacks_it(store: Store, image: ImageInput, tmp_path: Path) -> None:
    require("umoci")
    write(store, image, "oci", tmp_path / "layout", options=",tar=false")
    run("umoci", "unpack", "--image", f"{tmp_path / 'layout'}:1", tmp_path / "bundle")
    rootfs = tmp_path / "bundle" / "rootfs"
    assert (rootfs / "greeting").read_text() + (rootfs / "etc" / "motd").read_text() == OUTPUT
    assert (rootfs / "bin" / "sh").exists()
    run("umoci", "gc", "--layout", tmp_path / "layout")


def test_we_load_what_docker_saves(store: Store, image: ImageInput, tmp_path: Path, docker: Docker) -> None:
    exported = write(store, image, "docker", tmp_path / "x.tar")
    try:
        docker("load", "-i", tmp_path / "x.tar")
        docker("save", "-o", tmp_path / "saved.tar", "interop:1")
    finally:
        docker("image", "rm", "-f", "interop:1")
    _check_load(tmp_path, exported, image)


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
def test_we_load_what_podman_saves(store: Store, image: ImageInput, tmp_path: Path, podman: Podman, kind: str) -> None:
    exported = write(store, image, "oci", tmp_path / "x.tar")
    loaded = podman("load", stdin=tmp_path / "x.tar").strip().partition(": ")[2]
    podman("tag", loaded, "docker.io/library/interop:1")
    podman("save", "--format", kind, "-o", tmp_path / "saved.tar", "docker.io/library/interop:1")
    _check_load(tmp_path, exported, image)


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
def test_we_load_what_skopeo_copies(store: Store, image: ImageInput, tmp_path: Path, kind: str) -> None:
    require("skopeo")
    exported = write(store, image, "oci", tmp_path / "x.tar")
    run("skopeo", "copy", "-q", f"oci-archive:{tmp_path / 'x.tar'}", f"{kind}:{tmp_path / 'saved.tar'}:interop:1")
    _check_load(tmp_path, exported, image)


def _check_load(tmp_path: Path, exported: Exported, image: ImageInput) -> None:
    """The saved image, in an empty store, is the one that was exported."""
    with Store.open(str(tmp_path / "other")) as other:
        [(names, loaded)] = load_image(other, str(tmp_path / "saved.tar"))
        assert [name.familiar for name in names] == ["interop:1"]
        assert loaded.chain_id == image.snapshot.chain_id
        assert loaded.config["config"]["Cmd"] == ["sh"]
        assert loaded.config_digest == exported.image_ids[0]
