from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from builder.errors import BuildError, UsageError
from builder.exporter import Exported, ImageInput, export, parse_output
from builder.image.importer import import_layout, load_image
from builder.image.stored import require_image
from builder.plan import SCRATCH, HistoryEntry, PlannedImage
from cache.snapshot import EMPTY, Snapshot
from cache.store import Store
from tests.builder.image_factory import (
    MTIME,
    commit_files,
    digest_of,
    layer_tar,
    layout_files,
    make_image,
    write_layout,
)

EPOCH = 1_400_000_000


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "store")) as opened:
        yield opened


def image_of(snapshot: Snapshot, *, base_layers: int = 0, **changes: Any) -> ImageInput:
    history = tuple(HistoryEntry(f"RUN {number}") for number in range(len(snapshot.layers)))
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]}}
    planned = PlannedImage(SCRATCH, "linux/amd64", config, (), history, base_layers, "")
    return ImageInput(planned, snapshot, (10**18,) * len(history), 10**18)._replace(**changes)


def two_layers(store: Store) -> Snapshot:
    return commit_files(store, commit_files(store, EMPTY, {"a": "1", "d/b": "1"}), {"a": "2", "d/c": "x" * 5000})


def write(store: Store, image: ImageInput, text: str, *names: str) -> Exported:
    spec = parse_output(text)
    return export(store, [image], spec._replace(names=(*spec.names, *names)), io.BytesIO())


def read_tar(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        members = tar.getmembers()
        assert all((m.mtime, m.uid, m.gid, m.uname) == (0, 0, 0, "") for m in members)
        names = [member.name for member in members]
        assert names == sorted(names)
        return {m.name: tar.extractfile(m).read() for m in members if m.isreg()}  # type: ignore[union-attr]


def blob(files: dict[str, bytes], descriptor: dict[str, Any]) -> bytes:
    content = files["blobs/sha256/" + descriptor["digest"][7:]]
    assert digest_of(content) == descriptor["digest"]
    assert len(content) == descriptor["size"]
    return content


def documents(files: dict[str, bytes]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    entry = json.loads(files["index.json"])["manifests"][0]
    manifest = json.loads(blob(files, entry))
    return entry, manifest, json.loads(blob(files, manifest["config"]))


def test_a_plain_build_stores_an_image_and_compresses_nothing(store: Store) -> None:
    snapshot = two_layers(store)
    exported = write(store, image_of(snapshot), "type=image", "app:1", "app:2")
    image = require_image(store, "app:2")
    assert exported._replace(descriptor=None) == Exported(
        image.manifest_digest, (image.config_digest,), tuple(f"docker.io/library/app:{n}" for n in (1, 2))
    )
    assert image.chain_id == snapshot.chain_id
    assert [layer.digest for layer in image.manifest.layers] == [layer.diff_id for layer in snapshot.layers]
    assert {digest for digest, _ in store.blobs.walk()} == {image.manifest_digest, image.config_digest}


def test_the_same_build_gives_the_same_image_and_writes_nothing(store: Store) -> None:
    image = image_of(two_layers(store))
    first = write(store, image, "type=image", "app")
    times = {digest: os.stat(store.blobs.path(digest)).st_mtime_ns for digest, _ in store.blobs.walk()}
    write(store, image, f"type=oci,dest={store.root}.tar")  # compressed layers are there now, and change nothing
    assert write(store, image, "type=image", "app") == first
    assert {digest: os.stat(store.blobs.path(digest)).st_mtime_ns for digest in times} == times


def test_an_image_without_a_name_has_an_id(store: Store) -> None:
    exported = write(store, image_of(two_layers(store)), "type=image")
    assert require_image(store, exported.image_ids[0]).manifest_digest == exported.digest


@pytest.mark.parametrize(
    ("options", "media_type", "plain"),
    [
        ("", "tar+gzip", gzip.decompress),
        (",compression=gzip,compression-level=0", "tar+gzip", gzip.decompress),
        (",compression=zstd", "tar+zstd", lambda raw: zstandard.ZstdDecompressor().decompressobj().decompress(raw)),
        (",compression=uncompressed", "tar", bytes),
    ],
)
def test_an_oci_archive_holds_what_was_built(
    store: Store, tmp_path: Path, options: str, media_type: str, plain: Any
) -> None:
    snapshot = two_layers(store)
    exported = write(store, image_of(snapshot), f"type=oci,dest={tmp_path}/x.tar{options}", "app")
    files = read_tar(tmp_path / "x.tar")
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    assert "manifest.json" not in files
    entry, manifest, config = documents(files)
    assert entry["digest"] == exported.digest
    assert entry["platform"] == {"architecture": "amd64", "os": "linux"}
    assert entry["annotations"] == {
        "io.containerd.image.name": "docker.io/library/app:latest",
        "org.opencontainers.image.created": "2001-09-09T01:46:40Z",
        "org.opencontainers.image.ref.name": "latest",
    }
    assert [layer["mediaType"].rpartition(".")[2] for layer in manifest["layers"]] == [media_type] * 2
    assert [digest_of(plain(blob(files, layer))) for layer in manifest["layers"]] == config["rootfs"]["diff_ids"]
    assert config["rootfs"]["diff_ids"] == [layer.diff_id for layer in snapshot.layers]
    assert len(files) == 6


def test_a_docker_archive_has_a_list_for_docker_load(store: Store, tmp_path: Path) -> None:
    write(store, image_of(two_layers(store)), f"type=docker,dest={tmp_path}/x.tar", "app:1", "example.org/app:2")
    files = read_tar(tmp_path / "x.tar")
    [item] = json.loads(files["manifest.json"])
    _, manifest, _ = documents(files)
    assert item["RepoTags"] == ["app:1", "example.org/app:2"]
    assert item["Config"] == "blobs/sha256/" + manifest["config"]["digest"][7:]
    assert item["Layers"] == ["blobs/sha256/" + layer["digest"][7:] for layer in manifest["layers"]]


def test_what_is_exported_can_be_loaded_again(store: Store, tmp_path: Path) -> None:
    snapshot = two_layers(store)
    for kind in ("oci", "docker"):
        exported = write(store, image_of(snapshot), f"type={kind},dest={tmp_path}/{kind}.tar", "app:1")
        with Store.open(str(tmp_path / f"{kind}-store")) as other:
            [(names, image)] = load_image(other, str(tmp_path / f"{kind}.tar"))
            assert [name.familiar for name in names] == ["app:1"]
            assert (image.manifest_digest, image.config_digest) == (exported.digest, exported.image_ids[0])
            assert image.chain_id == snapshot.chain_id


def test_the_same_input_gives_the_same_archive(store: Store, tmp_path: Path) -> None:
    write(store, image_of(two_layers(store)), f"type=docker,dest={tmp_path}/1.tar", "app")
    with Store.open(str(tmp_path / "other")) as other:
        commit_files(other, EMPTY, {"something": "else"})
        write(other, image_of(two_layers(other)), f"type=docker,dest={tmp_path}/2.tar", "app")
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()


def test_timestamps_are_clamped_but_not_those_of_the_base(store: Store, tmp_path: Path) -> None:
    tar = layer_tar({"base": ""})
    base = make_image(tar)
    stored = import_layout(store, write_layout(tmp_path / "base", layout_files([base.descriptor], base.blobs)))
    snapshot = store.snapshots.get(stored.chain_id)
    assert snapshot is not None
    digests = []
    for number in range(2):
        active = store.snapshots.prepare(snapshot)
        for name, mtime in (("new", EPOCH + 5 + number), ("old", EPOCH - 5)):
            (Path(active.upper_dir) / name).write_text("")
            os.utime(Path(active.upper_dir) / name, (mtime, mtime))
        image = image_of(store.snapshots.commit(active), base_layers=1, epoch=EPOCH)
        spec = f"type=oci,dest={tmp_path}/x.tar,rewrite-timestamp=true"
        digests.append(write(store, image._replace(created_ns=number), spec).digest)
    assert digests[0] == digests[1]
    _, manifest, config = documents(files := read_tar(tmp_path / "x.tar"))
    assert config["created"] == "2014-05-13T16:53:20Z"
    assert manifest["layers"][0]["digest"] == base.layers[0]
    raw = gzip.decompress(blob(files, manifest["layers"][1]))
    assert digest_of(raw) == config["rootfs"]["diff_ids"][1]
    with tarfile.open(fileobj=io.BytesIO(raw)) as layer:
        assert {member.name: member.mtime for member in layer} == {"new": EPOCH, "old": EPOCH - 5}


def test_clamped_layers_can_be_used_from_the_store(store: Store) -> None:
    write(store, image_of(two_layers(store), epoch=EPOCH), "type=image,rewrite-timestamp=true", "app")
    snapshot = store.snapshots.get(require_image(store, "app").chain_id)
    assert snapshot is not None
    top, bottom = store.snapshots.lower_dirs(snapshot)
    assert (Path(top) / "a").read_text() == "2"
    assert os.stat(Path(bottom) / "a").st_mtime == EPOCH


def test_layers_that_need_no_clamping_stay_what_they_are(store: Store, tmp_path: Path) -> None:
    image = image_of(two_layers(store), epoch=MTIME)
    write(store, image, "type=image,rewrite-timestamp=true", "app")
    assert require_image(store, "app").chain_id == image.snapshot.chain_id
    write(store, image, f"type=oci,dest={tmp_path}/x.tar")
    _, manifest, _ = documents(read_tar(tmp_path / "x.tar"))
    assert {layer["mediaType"].rpartition(".")[2] for layer in manifest["layers"]} == {"tar+gzip"}


def test_annotations_go_where_they_belong(store: Store, tmp_path: Path) -> None:
    options = "annotation.a=1,annotation-manifest-descriptor.b=2,annotation[linux/arm64].c=3"
    image = image_of(two_layers(store))
    write(store, image, f"type=oci,dest={tmp_path}/x.tar,{options}")
    entry, manifest, _ = documents(read_tar(tmp_path / "x.tar"))
    assert manifest["annotations"] == {"a": "1"}
    assert entry["annotations"]["b"] == "2"
    with pytest.raises(BuildError, match="no index to annotate"):
        write(store, image, f"type=oci,dest={tmp_path}/x.tar,annotation-index.a=1")


def test_several_platforms_share_an_index(store: Store, tmp_path: Path) -> None:
    image = image_of(two_layers(store))
    arm = image._replace(planned=image.planned._replace(platform="linux/arm/v7"))
    spec = parse_output(f"type=oci,dest={tmp_path}/x.tar,annotation-index.k=v")
    export(store, [image, arm], spec._replace(names=("app",)), io.BytesIO())
    files = read_tar(tmp_path / "x.tar")
    [entry] = json.loads(files["index.json"])["manifests"]
    index = json.loads(blob(files, entry))
    assert index["annotations"] == {"k": "v"}
    assert [manifest["platform"] for manifest in index["manifests"]] == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm", "os": "linux", "variant": "v7"},
    ]
    for text in ("type=docker,dest=x", f"type=tar,platform-split=false,dest={tmp_path}/y.tar"):
        with pytest.raises(BuildError, match="platform"):
            export(store, [image, arm], parse_output(text), io.BytesIO())
    export(store, [image, arm], parse_output(f"type=local,dest={tmp_path}/out"), io.BytesIO())
    assert sorted(os.listdir(tmp_path / "out")) == ["linux_amd64", "linux_arm_v7"]


def test_a_layout_directory_grows_by_tags(store: Store, tmp_path: Path) -> None:
    first, second = image_of(commit_files(store, EMPTY, {"a": ""})), image_of(two_layers(store))
    spec = f"type=oci,tar=false,dest={tmp_path}/layout"
    ids = [write(store, image, spec, *names).image_ids[0] for image, names in ((first, ["a:1"]), (second, ["a:2"]))]
    write(store, first, spec)
    with Store.open(str(tmp_path / "other")) as other:
        found = [import_layout(other, f"{tmp_path}/layout", tag).config_digest for tag in ("1", "2", "latest")]
    assert found == [*ids, ids[0]]
    write(store, second, spec, "a:1")
    with Store.open(str(tmp_path / "another")) as other:
        assert import_layout(other, f"{tmp_path}/layout", "1").config_digest == ids[1]
    names = [entry.name for entry in (tmp_path / "layout").rglob("*") if entry.is_file()]
    assert not [name for name in names if name.endswith(".tmp")]


def test_a_tree_is_written_flat(store: Store, tmp_path: Path) -> None:
    image = image_of(two_layers(store))
    write(store, image, f"{tmp_path}/out")
    found = {
        str(path.relative_to(tmp_path / "out")): path.read_text()
        for path in (tmp_path / "out").rglob("?")
        if path.is_file()
    }
    assert found == {"a": "2", "d/b": "1", "d/c": "x" * 5000}
    stdout = io.BytesIO()
    export(store, [image], parse_output("-"), stdout)
    with tarfile.open(fileobj=io.BytesIO(stdout.getvalue())) as tar:
        members = {member.name: member for member in tar}
        assert list(members) == ["a", "d", "d/b", "d/c"]
        content = tar.extractfile(members["d/c"])
        assert content is not None
        assert content.read() == b"x" * 5000


def test_a_flat_tar_keeps_what_a_tree_has(store: Store, tmp_path: Path) -> None:
    active = store.snapshots.prepare(EMPTY)
    root = Path(active.upper_dir)
    (root / "f").write_text("1")
    os.chown(root / "f", 5, 3_000_000)
    (root / "f").chmod(0o4711)
    os.utime(root / "f", (5, 2**33 + 5))
    os.link(root / "f", root / "g")
    os.symlink("/etc/x", root / ("l" * 120))
    os.mknod(root / "n", 0o20600, os.makedev(1, 3))
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(root / "f", "security.capability", capability)
    write(store, image_of(store.snapshots.commit(active)), f"type=tar,dest={tmp_path}/x.tar")
    with tarfile.open(tmp_path / "x.tar") as tar:
        members = {member.name: member for member in tar}
    file = members["f"]
    assert (file.mode, file.uid, file.gid, file.mtime) == (0o4711, 5, 3_000_000, 2**33 + 5)
    assert file.pax_headers["SCHILY.xattr.security.capability"].encode("utf-8", "surrogateescape") == capability
    assert (members["g"].islnk(), members["g"].linkname) == (True, "f")
    assert members["l" * 120].linkname == "/etc/x"
    assert (members["n"].ischr(), members["n"].devmajor, members["n"].devminor) == (True, 1, 3)


def test_a_file_is_replaced_as_a_whole_or_not_at_all(store: Store, tmp_path: Path) -> None:
    dest = tmp_path / "x.tar"
    dest.write_text("before")
    snapshot = two_layers(store)
    lost = store.layers.blob(snapshot.layers[0])[0]
    image = image_of(snapshot)
    path = Path(store.blobs.path(lost.digest))
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(BuildError, match="is corrupt"):
        write(store, image, f"type=oci,dest={dest}")
    assert dest.read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["store", "x.tar"]


def test_a_link_to_a_file_stays_a_link(store: Store, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/x.tar")
    image = image_of(two_layers(store))
    for _ in range(2):
        write(store, image, f"type=oci,dest={tmp_path}/link")
    assert (tmp_path / "link").is_symlink()
    assert read_tar(tmp_path / "real" / "x.tar")
    write(store, image, "type=oci,dest=/dev/null")
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("type=oci,dest={tmp}", "is a directory"),
        ("type=oci,dest={tmp}/none/x.tar", "cannot be written: no such file"),
        ("type=oci,dest={tmp}/store/version,tar=false", "cannot be written"),
        ("{tmp}/store/version", "not a directory"),
        ("type=oci,dest=-", "refusing to write binary output to a terminal"),
        ("type=oci,dest=/dev/full", "cannot be written: no space left"),
    ],
)
def test_a_dest_that_does_not_work_is_named(store: Store, tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(BuildError, match=problem):
        export(store, [image_of(two_layers(store))], parse_output(text.format(tmp=tmp_path)), Terminal())


@pytest.mark.parametrize("name", ["App", "a b", "app:", "a@sha256:" + "0" * 64, ""])
def test_a_name_that_cannot_be_given_is_a_usage_error(store: Store, name: str) -> None:
    with pytest.raises(UsageError, match="image"):
        write(store, image_of(EMPTY), "type=image", name)


def test_an_image_may_have_no_layers(store: Store, tmp_path: Path) -> None:
    write(store, image_of(EMPTY), f"type=docker,dest={tmp_path}/x.tar", "empty")
    with Store.open(str(tmp_path / "other")) as other:
        [(_, image)] = load_image(other, str(tmp_path / "x.tar"))
        assert (image.chain_id, image.manifest.layers) == ("", ())


def test_nothing_is_made_of_cacheonly(store: Store) -> None:
    assert write(store, image_of(two_layers(store)), "type=cacheonly") == Exported()
    assert list(store.blobs.walk()) == []


def test_an_archive_is_streamed(store: Store, tmp_path: Path) -> None:
    active = store.snapshots.prepare(EMPTY)
    (Path(active.upper_dir) / "big").write_bytes(os.urandom(1 << 20) * 8)
    image = image_of(store.snapshots.commit(active))

    class Counter(io.BytesIO):
        largest, digest = 0, hashlib.sha256()

        def write(self, chunk: Any, /) -> int:
            self.largest = max(self.largest, len(chunk))
            self.digest.update(chunk)
            return len(chunk)

    counter = Counter()
    export(store, [image], parse_output("type=oci,dest=-,compression=uncompressed"), counter)
    assert counter.largest <= 1 << 20
    write(store, image, f"type=oci,dest={tmp_path}/x.tar,compression=uncompressed")
    assert counter.digest.hexdigest() == digest_of((tmp_path / "x.tar").read_bytes())[7:]


def test_dockers_media_types(store: Store, tmp_path: Path) -> None:
    image = image_of(two_layers(store))
    write(store, image, f"type=oci,dest={tmp_path}/x.tar,oci-mediatypes=false,annotation.a=b")
    entry, manifest, _ = documents(read_tar(tmp_path / "x.tar"))
    assert entry["mediaType"] == manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert manifest["config"]["mediaType"] == "application/vnd.docker.container.image.v1+json"
    assert {each["mediaType"] for each in manifest["layers"]} == {"application/vnd.docker.image.rootfs.diff.tar.gzip"}
    assert manifest["annotations"] == {"a": "b"}
    arm = image._replace(planned=image.planned._replace(platform="linux/arm64"))
    spec = parse_output(f"type=oci,dest={tmp_path}/y.tar,oci-mediatypes=false")
    export(store, [image, arm], spec, io.BytesIO())
    [entry] = json.loads(read_tar(tmp_path / "y.tar")["index.json"])["manifests"]
    assert entry["mediaType"] == "application/vnd.docker.distribution.manifest.list.v2+json"
    with pytest.raises(BuildError, match="oci-mediatypes=false"):
        export(store, [image, arm], parse_output("type=image,oci-mediatypes=false,annotation-index.a=b"), io.BytesIO())
    stored = write(store, image, "type=image,oci-mediatypes=false", "old")
    assert require_image(store, "old").manifest_digest == stored.digest


def test_an_epoch_of_one_output(store: Store, tmp_path: Path) -> None:
    image = image_of(two_layers(store), base_layers=1)
    write(store, image, f"type=oci,dest={tmp_path}/x.tar,source-date-epoch={EPOCH}")
    files = read_tar(tmp_path / "x.tar")
    _, manifest, config = documents(files)
    assert config["created"] == "2014-05-13T16:53:20Z"
    with tarfile.open(fileobj=io.BytesIO(blob(files, manifest["layers"][1]))) as layer:
        assert max(member.mtime for member in layer) == EPOCH


def test_a_directory_is_made_equal_on_request(store: Store, tmp_path: Path) -> None:
    image = image_of(two_layers(store))
    write(store, image, f"type=local,dest={tmp_path}/fresh")
    expected = sorted(path.relative_to(tmp_path / "fresh") for path in (tmp_path / "fresh").rglob("*"))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    for mode in ("copy", "delete"):
        dest = tmp_path / "dest"
        (dest / "old/deep").mkdir(parents=True, exist_ok=True)
        (dest / "old/deep/f").write_text("x")
        (dest / "link").unlink(missing_ok=True)
        (dest / "link").symlink_to(outside)
        write(store, image, f"type=local,dest={dest},mode={mode}")
        found = sorted(path.relative_to(dest) for path in dest.rglob("*"))
        assert (found == expected) == (mode == "delete")
    assert (outside / "kept").exists()
    both = [image, image._replace(planned=image.planned._replace(platform="linux/arm64"))]
    export(store, both, parse_output(f"type=local,dest={dest},mode=delete"), io.BytesIO())
    assert sorted(os.listdir(dest)) == ["linux_amd64", "linux_arm64"]
