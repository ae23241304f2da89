from __future__ import annotations

import bz2
import gzip
import io
import itertools
import json
import lzma
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from builder.errors import BuildError
from builder.image.importer import import_archive, import_layout, load_image
from builder.image.layout import split_layout_name
from builder.image.stored import chain_id_of, require_image, resolve_image
from cache.store import Store
from tests.builder.image_factory import (
    INDEX,
    Image,
    digest_of,
    layer_tar,
    layout_files,
    make_image,
    write_layout,
    write_tar,
)

ONE, TWO = layer_tar({"one": "1", "both": "1"}), layer_tar({"two": "2", "both": "2"})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "store")) as opened:
        yield opened


def shown(store: Store, chain_id: str) -> dict[str, str]:
    snapshot = store.snapshots.get(chain_id)
    assert snapshot is not None
    found: dict[str, str] = {}
    for directory in reversed(store.snapshots.lower_dirs(snapshot)):
        found.update({path.name: path.read_text() for path in Path(directory).iterdir()})
    return found


def docker_files(image: Image, *names: str) -> dict[str, bytes | str]:
    """As `docker save` of 20.10 writes it: a directory for each layer, the list at the end."""
    hexes = [digest[7:] for digest in image.layers]
    files: dict[str, bytes | str] = {}
    for digits in hexes:
        files[f"{digits}/VERSION"] = b"1.0"
        files[f"{digits}/layer.tar"] = image.blobs[f"sha256:{digits}"]
    files[f"{image.config_digest[7:]}.json"] = image.blobs[image.config_digest]
    item = {
        "Config": f"{image.config_digest[7:]}.json",
        "RepoTags": list(names) or None,
        "Layers": [f"{digits}/layer.tar" for digits in hexes],
    }
    files["manifest.json"] = json.dumps([item]).encode()
    return files


def test_a_layout_becomes_snapshots(store: Store, tmp_path: Path) -> None:
    image = make_image(ONE, TWO)
    layout = write_layout(tmp_path / "layout", layout_files([image.named("latest")], image.blobs))
    stored = import_layout(store, layout)
    assert (stored.manifest_digest, stored.config_digest) == (image.descriptor["digest"], image.config_digest)
    assert stored.config["config"] == {"Cmd": ["sh"]}
    assert shown(store, stored.chain_id) == {"one": "1", "two": "2", "both": "2"}


def test_the_second_import_reads_no_layer(store: Store, tmp_path: Path) -> None:
    image = make_image(ONE)
    layout = write_layout(tmp_path / "layout", layout_files([image.named("latest")], image.blobs))
    first = import_layout(store, layout)
    for digest in [*image.layers, image.config_digest]:
        os.unlink(Path(layout) / "blobs" / "sha256" / digest[7:])
    assert import_layout(store, layout) == first


@pytest.mark.parametrize(
    ("wanted", "name"),
    [(None, "latest"), ("v1", "v1"), ("v1", "docker.io/library/app:v1"), ("app:v1", "app:v1"), (None, "only")],
)
def test_an_image_of_a_layout_is_found_by_tag(store: Store, tmp_path: Path, wanted: str | None, name: str) -> None:
    image, other = make_image(ONE), make_image(TWO)
    entries = [image.named(name)] if name == "only" else [other.named("other"), image.named(name)]
    layout = write_layout(tmp_path / "layout", layout_files(entries, image.blobs, other.blobs))
    assert import_layout(store, layout, wanted).config_digest == image.config_digest


def test_an_image_of_a_layout_is_found_by_digest(store: Store, tmp_path: Path) -> None:
    image, other = make_image(ONE), make_image(TWO)
    layout = write_layout(tmp_path / "layout", layout_files([image.descriptor], image.blobs, other.blobs))
    for each in (image, other):  # the second is in the layout, but not in its index
        assert import_layout(store, layout, each.descriptor["digest"]).config_digest == each.config_digest


def test_a_missing_tag_names_those_that_are_there(store: Store, tmp_path: Path) -> None:
    image = make_image(ONE)
    layout = write_layout(tmp_path / "layout", layout_files([image.named("v1"), image.named("v2")], image.blobs))
    with pytest.raises(BuildError, match="no image tagged 'v3'") as caught:
        import_layout(store, layout, "v3")
    assert caught.value.hint == "its tags: v1, v2"


def index_of(*entries: dict[str, object]) -> tuple[dict[str, object], dict[str, bytes]]:
    raw = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    return {"mediaType": INDEX, "digest": digest_of(raw), "size": len(raw)}, {digest_of(raw): raw}


def test_the_platform_chooses_among_several_and_attestations_are_no_images(store: Store, tmp_path: Path) -> None:
    images = {arch: make_image(ONE, architecture=arch) for arch in ("arm64", "amd64")}
    entries = [
        {**image.descriptor, "platform": {"os": "linux", "architecture": arch}} for arch, image in images.items()
    ]
    attestation = {**entries[0], "platform": {"os": "unknown", "architecture": "unknown"}}
    entry, index = index_of(attestation, *entries)
    blobs = [image.blobs for image in images.values()]
    layout = write_layout(tmp_path / "layout", layout_files([entry], index, *blobs))
    for arch, image in images.items():
        assert import_layout(store, layout, None, f"linux/{arch}").config_digest == image.config_digest
    with pytest.raises(BuildError, match="no image for platform linux/s390x, its platforms: linux/amd64, linux/arm64"):
        import_layout(store, layout, None, "linux/s390x")


def test_indexes_nest_only_so_deep(store: Store, tmp_path: Path) -> None:
    image = make_image(ONE)
    entry, blobs = dict(image.descriptor), dict(image.blobs)
    for depth in range(6):
        layout = write_layout(tmp_path / str(depth), layout_files([entry], blobs))
        if depth <= 4:
            assert import_layout(store, layout).config_digest == image.config_digest
        else:
            with pytest.raises(BuildError, match="nested more than 4"):
                import_layout(store, layout)
        entry, index = index_of(entry)
        blobs.update(index)


@pytest.mark.parametrize("damage", ["layer", "config", "manifest", "short", "absent"])
def test_a_damaged_layout_is_refused(store: Store, tmp_path: Path, damage: str) -> None:
    image = make_image(ONE)
    layout = Path(write_layout(tmp_path / "layout", layout_files([image.descriptor], image.blobs)))
    victims = {"config": image.config_digest, "manifest": image.descriptor["digest"]}
    path = layout / "blobs" / "sha256" / victims.get(damage, image.layers[0])[7:]
    raw = path.read_bytes()
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes(raw[:-1] if damage == "short" else raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(BuildError, match="sha256:"):
        import_layout(store, str(layout))
    assert store.snapshots.get(chain_id_of([digest_of(ONE)])) is None  # type: ignore[list-item]


def test_a_layer_that_is_not_its_diff_id_is_refused_and_harms_nobody(store: Store, tmp_path: Path) -> None:
    good, evil = make_image(ONE), layer_tar({"evil": ""})
    rootfs = {"type": "layers", "diff_ids": [digest_of(ONE)]}
    bad = make_image(evil, rootfs=rootfs)
    with pytest.raises(BuildError, match=f"has the diff_id {digest_of(evil)}"):
        import_layout(store, write_layout(tmp_path / "bad", layout_files([bad.descriptor], bad.blobs)))
    stored = import_layout(store, write_layout(tmp_path / "good", layout_files([good.descriptor], good.blobs)))
    assert shown(store, stored.chain_id) == {"one": "1", "both": "1"}
    with pytest.raises(BuildError, match="has the diff_id"):  # although its chain is known now
        import_layout(store, str(tmp_path / "bad"))


def test_all_that_is_wrong_is_told_at_once(store: Store, tmp_path: Path) -> None:
    config = {"mediaType": "application/vnd.cncf.helm.config.v1+json"}
    image = make_image(ONE, TWO, rootfs={"type": "layers", "diff_ids": [digest_of(TWO), digest_of(ONE)]})
    manifest = json.loads(image.blobs[image.descriptor["digest"]])
    manifest["config"].update(config)
    manifest["layers"][1]["mediaType"] = "text/plain"
    raw = json.dumps(manifest).encode()
    entry = {**image.descriptor, "digest": digest_of(raw), "size": len(raw)}
    layout = write_layout(tmp_path / "layout", layout_files([entry], image.blobs, {digest_of(raw): raw}))
    with pytest.raises(BuildError) as caught:
        import_layout(store, layout)
    for problem in ("artifact", "layer 0", "layer 1", "'text/plain', which is no layer", "diff_id"):
        assert problem in str(caught.value)


def test_too_few_diff_ids_are_refused(store: Store, tmp_path: Path) -> None:
    image = make_image(ONE, TWO, rootfs={"type": "layers", "diff_ids": [digest_of(ONE)]})
    with pytest.raises(BuildError, match="1 diff_ids"):
        import_layout(store, write_layout(tmp_path / "layout", layout_files([image.descriptor], image.blobs)))


def test_what_is_no_layout_is_said_to_be_none(store: Store, tmp_path: Path) -> None:
    for directory in (tmp_path / "missing", tmp_path):
        with pytest.raises(BuildError, match=r"is not an OCI image layout: no index\.json"):
            import_layout(store, str(directory))
    image = make_image(ONE)
    files = layout_files([image.descriptor], image.blobs)
    write_layout(tmp_path / "v2", {**files, "oci-layout": b'{"imageLayoutVersion":"2.0"}'})
    with pytest.raises(BuildError, match=r"imageLayoutVersion is '2\.0'"):
        import_layout(store, str(tmp_path / "v2"))
    write_layout(tmp_path / "none", layout_files([]))
    with pytest.raises(BuildError, match="has no image"):
        import_layout(store, str(tmp_path / "none"))
    with pytest.raises(BuildError, match="digest 'sha256:12' is not valid"):
        import_layout(store, str(tmp_path / "none"), "sha256:12")


@pytest.mark.parametrize("squeeze", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_an_oci_archive_is_loaded_however_it_is_compressed(store: Store, tmp_path: Path, squeeze: object) -> None:
    assert callable(squeeze)
    image = make_image(ONE, TWO)
    path = Path(write_tar(tmp_path / "x.tar", dict(layout_files([image.named("app:1")], image.blobs))))
    path.write_bytes(squeeze(path.read_bytes()))
    [(names, stored)] = load_image(store, str(path))
    assert [str(name) for name in names] == ["docker.io/library/app:1"]
    assert shown(store, stored.chain_id) == {"one": "1", "two": "2", "both": "2"}
    assert resolve_image(store, "app:1") == stored


@pytest.mark.parametrize("compress", [False, True])
def test_a_docker_archive_is_loaded(store: Store, tmp_path: Path, compress: bool) -> None:
    image = make_image(ONE, TWO, compress=compress)
    path = write_tar(tmp_path / "x.tar", docker_files(image, "app:1", "registry.example/team/app:2"))
    [(names, stored)] = load_image(store, path)
    assert [name.familiar for name in names] == ["app:1", "registry.example/team/app:2"]
    assert stored.config_digest == image.config_digest
    assert shown(store, stored.chain_id) == {"one": "1", "two": "2", "both": "2"}


def test_layers_of_a_docker_archive_may_be_links(store: Store, tmp_path: Path) -> None:
    image = make_image(ONE, compress=False)
    digits = image.layers[0][7:]
    files = docker_files(image)
    files[f"{digits}/layer.tar"] = "../real/layer.tar"
    path = write_tar(tmp_path / "x.tar", {"real/layer.tar": ONE, **files})
    assert len(load_image(store, path)) == 1
    loop = write_tar(tmp_path / "y.tar", {**files, "real/layer.tar": f"../{digits}/layer.tar"})
    with pytest.raises(BuildError, match="lacks"):
        load_image(store, loop)


def test_a_docker_layer_that_is_not_its_diff_id_is_refused(store: Store, tmp_path: Path) -> None:
    image = make_image(TWO, compress=False, rootfs={"type": "layers", "diff_ids": [digest_of(ONE)]})
    with pytest.raises(BuildError, match="diff_id"):
        load_image(store, write_tar(tmp_path / "x.tar", docker_files(image, "app")))
    assert resolve_image(store, "app") is None


def test_both_lists_of_an_archive_give_names(store: Store, tmp_path: Path) -> None:
    image = make_image(ONE)
    item = {"Config": f"blobs/sha256/{image.config_digest[7:]}", "RepoTags": ["b:2"], "Layers": []}
    files = layout_files([image.named("a:1"), image.named("c:3"), image.named("bare")], image.blobs)
    path = write_tar(tmp_path / "x.tar", {**files, "manifest.json": json.dumps([item]).encode()})
    [(names, _)] = import_archive(store, path)
    assert sorted(name.familiar for name in names) == ["a:1", "b:2", "c:3"]


def test_a_stream_is_read_once(store: Store, tmp_path: Path) -> None:
    image = make_image(ONE)
    path = write_tar(tmp_path / "x.tar", docker_files(image, "app"))

    class Pipe(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size, 1000) if size is not None and size >= 0 else 1000)

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation

    [(_, stored)] = load_image(store, Pipe(Path(path).read_bytes()))
    assert stored.config_digest == image.config_digest


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no index.json or manifest.json"),
        (b"garbage" * 1000, "is not an image archive: tar stream"),
        (gzip.compress(b"garbage" * 1000, mtime=0), "is not an image archive: tar stream"),
        (gzip.compress(b"garbage", mtime=0)[:-12], "is not an image archive"),
        (layer_tar({"etc/passwd": "root"}), "no index.json or manifest.json"),
        (layer_tar({"manifest.json": "{"}), "not valid JSON"),
        (layer_tar({"manifest.json": "[5]"}), "not a list of images"),
        (layer_tar({"manifest.json": '[{"Config": 1}]'}), "needs Config"),
        (layer_tar({"manifest.json": '[{"Config": "../../etc/passwd", "Layers": []}]'}), "lacks"),
        (layer_tar({"index.json": '{"schemaVersion":2,"manifests":[]}'}), "has no images"),
        (layer_tar({"index.json": " " * (5 << 20)}), "too large"),
    ],
)
def test_what_is_no_image_archive_is_said_to_be_none(
    store: Store, tmp_path: Path, content: bytes, problem: str
) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    with pytest.raises(BuildError, match=problem) as caught:
        load_image(store, str(path))
    assert "x.tar" in str(caught.value)
    assert list(store.images.walk()) == []


def test_a_root_file_system_does_not_fill_the_store(store: Store, tmp_path: Path) -> None:
    files = {f"usr/lib/{n}": "x" * n for n in range(50)}
    (tmp_path / "x.tar").write_bytes(layer_tar(files))
    with pytest.raises(BuildError, match="not an image archive") as caught:
        load_image(store, str(tmp_path / "x.tar"))
    assert "root file system" in str(caught.value.hint)
    assert list(store.blobs.walk()) == []


def test_a_missing_file_is_a_build_error(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot be read: no such file"):
        load_image(store, str(tmp_path / "nothing.tar"))


def test_an_image_is_found_by_name_and_by_id(store: Store, tmp_path: Path) -> None:
    image = make_image(ONE)
    layout = write_layout(tmp_path / "layout", layout_files([image.named("example.org/team/app:1")], image.blobs))
    [(_, stored)] = load_image(store, layout)
    manifest, config = stored.manifest_digest, stored.config_digest
    for text in (
        "example.org/team/app:1",
        f"example.org/team/app@{manifest}",
        manifest,
        config,
        config[:14],
        config[7:13],
    ):
        assert resolve_image(store, text) == stored, text
    for text in (
        "example.org/team/app",
        "example.org/team/app:2",
        "app:1",
        "",
        "ffffffffffff",
        f"app@{digest_of(b'')}",
    ):
        assert resolve_image(store, text) is None, text
    assert resolve_image(store, "example.org/team/app:1", "linux/amd64") == stored
    assert resolve_image(store, "example.org/team/app:1", "linux/s390x") is None
    with pytest.raises(BuildError, match="no such image: 'app:1'"):
        require_image(store, "app:1")


def test_an_image_without_a_name_is_found_by_its_id(store: Store, tmp_path: Path) -> None:
    image = make_image(ONE)
    load_image(store, write_layout(tmp_path / "layout", layout_files([image.descriptor], image.blobs)))
    assert require_image(store, image.config_digest).manifest_digest == image.descriptor["digest"]


def test_one_id_with_two_manifests_is_not_ambiguous(store: Store, tmp_path: Path) -> None:
    for number, image in enumerate((make_image(ONE), make_image(ONE, compress=False))):
        load_image(store, write_layout(tmp_path / str(number), layout_files([image.named(f"a:{number}")], image.blobs)))
    assert require_image(store, image.config_digest).config_digest == image.config_digest


def test_an_id_that_several_images_start_with_is_ambiguous(store: Store, tmp_path: Path) -> None:
    images = [make_image(ONE, author=str(number)) for number in range(17)]  # two of them share a first digit
    for number, image in enumerate(images):
        load_image(store, write_layout(tmp_path / str(number), layout_files([image.named(f"a:{number}")], image.blobs)))
    digits = sorted(image.config_digest[7] for image in images)
    shared = next(first for first, second in itertools.pairwise(digits) if first == second)
    with pytest.raises(BuildError, match="ambiguous"):
        require_image(store, shared)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("/a/b", ("/a/b", None)),
        ("/a/b:v1", ("/a/b", "v1")),
        ("/a:x/b", ("/a:x/b", None)),
        (f"/a:v1@{digest_of(b'')}", ("/a", digest_of(b""))),
        ("layout:latest", ("layout", "latest")),
    ],
)
def test_a_layout_is_named_by_directory_and_tag(text: str, parts: tuple[str, str | None]) -> None:
    assert split_layout_name(text) == parts
