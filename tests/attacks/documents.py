"""Attacks by the JSON of images: indexes, manifests, configs, names in archives."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from tests.attacks.catalogue import attack
from tests.attacks.scene import Scene
from tests.builder.image_factory import (
    CONFIG,
    INDEX,
    LAYER,
    MANIFEST,
    digest_of,
    layer_tar,
    layout_files,
    make_image,
    write_layout,
    write_tar,
)

AREA = "Documents of images"


def use(scene: Scene, files: dict[str, bytes], name: str = "evil") -> str:
    """Use a layout as a base, or load it as an archive; returns all that was said. It ends by itself."""
    directory = scene.scratch / name
    if len(name) % 2:
        write_layout(directory, files)
        scene.give(directory)
        return scene.build("FROM evil\nRUN true\n", "--build-context", f"evil=oci-layout://{directory}").stderr
    archive = scene.cwd / f"{name}.tar"
    write_tar(archive, dict(files))
    scene.give(archive)
    return scene("load", "-i", str(archive)).stderr


def descriptor(content: bytes, media_type: str, **fields: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **fields}


def index_of(*entries: Any, **fields: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries), **fields}).encode()


@attack(
    AREA,
    "generic (nested indexes, JSON bombs)",
    "indexes in indexes 200 deep and 2^20 wide by reuse, JSON nested 100,000 deep, a manifest of 30 MB, a million keys",
    "refused; depth and size are bounded",
)
def documents_without_end(scene: Scene) -> None:
    good = make_image(layer_tar({"f": "f"}))
    blobs = dict(good.blobs)
    entry = good.descriptor
    for _ in range(200):
        content = index_of(entry, entry)
        entry = descriptor(content, INDEX)
        blobs[entry["digest"]] = content
    begun = time.monotonic()
    assert "deep" in use(scene, layout_files([entry], blobs), "nested") or time.monotonic() - begun < 30
    for number, content in enumerate(
        (b"[" * 100_000, b'{"a":' * 100_000, b" " * (30 << 20) + index_of(good.descriptor))
    ):
        entry = descriptor(content, MANIFEST)
        use(scene, layout_files([entry], {entry["digest"]: content}), f"deep{number}")
        files = layout_files([], good.blobs)
        use(scene, {**files, "index.json": content}, f"index{number}")


@attack(
    AREA,
    "CVE-2021-41190",
    "documents that are two things: `layers` and `manifests`, a manifest called an index and an index called a "
    "manifest, "
    "a media type in the document that the descriptor does not have",
    "refused as ambiguous",
)
def ambiguous_documents(scene: Scene) -> None:
    good = make_image(layer_tar({"f": "f"}))
    manifest = json.loads(good.blobs[good.descriptor["digest"]])
    both = json.dumps({**manifest, "manifests": [good.descriptor]}).encode()
    renamed = json.dumps({**manifest, "mediaType": INDEX}).encode()
    index = index_of(good.descriptor)
    for number, (content, media_type) in enumerate(
        (
            (both, MANIFEST),
            (both, INDEX),
            (renamed, MANIFEST),
            (good.blobs[good.descriptor["digest"]], INDEX),
            (index, MANIFEST),
        )
    ):
        entry = descriptor(content, media_type)
        said = use(scene, layout_files([entry], good.blobs, {entry["digest"]: content}), f"ambiguous{number}")
        assert "pybuild: " in said, number


@attack(
    AREA,
    "CVE-2024-3727",
    "digests that are paths or of another algorithm, sizes that are wrong, negative or huge, in every descriptor",
    "the grammar of a digest is checked before it becomes a path; content is verified while it is read",
)
def digests_as_paths(scene: Scene) -> None:
    good = make_image(layer_tar({"f": "f"}))
    manifest = json.loads(good.blobs[good.descriptor["digest"]])
    bad = (
        {"digest": "sha256:../../../../../../../.." + str(scene.host / "canary")},
        {"digest": str(scene.host / "canary")},
        {"digest": "sha256:" + "A" * 64},
        {"digest": "md5:" + "0" * 32},
        {"digest": "sha256:" + "0" * 64},
        {"digest": "sha256:" + "0" * 63 + "\n"},
        {"digest": ["sha256"]},
        {"size": -1},
        {"size": 1 << 62},
        {"size": "5"},
    )
    for number, change in enumerate(bad):
        where = number % 3
        if where == 0:
            files = layout_files([{**good.descriptor, **change}], good.blobs)
        else:
            changed = dict(manifest)
            changed["config" if where == 1 else "layers"] = (
                {**manifest["config"], **change} if where == 1 else [{**manifest["layers"][0], **change}]
            )
            content = json.dumps(changed).encode()
            files = layout_files([descriptor(content, MANIFEST)], good.blobs, {digest_of(content): content})
        said = use(scene, files, f"digest{number}" + "x" * (number // 3 % 2))
        assert "pybuild: " in said, change
        assert "alive" not in said


@attack(
    AREA,
    "CVE-2020-15157",
    "layers with `urls` of the attacker's server, foreign media types, subjects and referrers",
    "no URL of an image is ever asked",
)
def urls_of_layers(scene: Scene) -> None:
    good = make_image(layer_tar({"f": "f"}))
    manifest = json.loads(good.blobs[good.descriptor["digest"]])
    with scene.server() as server:
        url = server.file("/layer", b"x")
        for media_type in (LAYER, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"):
            layer = {**manifest["layers"][0], "mediaType": media_type, "urls": [url], "digest": "sha256:" + "1" * 64}
            content = json.dumps({**manifest, "layers": [layer], "subject": {"urls": [url]}}).encode()
            files = layout_files([descriptor(content, MANIFEST, urls=[url])], good.blobs, {digest_of(content): content})
            use(scene, files, f"urls{len(media_type)}")
        assert not server.requests


@attack(
    AREA,
    "generic",
    "values of the wrong type everywhere in a config: lists for objects, numbers for texts, history that does not fit, "
    "diff ids that lie, dates beyond all calendars",
    "one error that says what is wrong",
)
def configs_of_wrong_types(scene: Scene) -> None:
    tar = layer_tar({"f": "f"})
    changes: tuple[dict[str, Any], ...] = (
        {"config": []},
        {"config": {"Env": "A=B", "Cmd": {"a": 1}, "Labels": [1]}},
        {"rootfs": None},
        {"rootfs": {"type": "layers", "diff_ids": ["../x"]}},
        {"rootfs": {"type": "layers", "diff_ids": []}},
        {"history": [{"created": "99999-99-99"}, 7]},
        {"history": [{"empty_layer": False}] * 50},
        {"created": 1e400, "architecture": ["x"]},
        {"os": "/../..", "architecture": "../../.."},
        {"manifest_config": {"mediaType": CONFIG, "digest": "sha256:" + "2" * 64, "size": 2}},
        {"manifest_layers": {"a": 1}},
    )
    for number, change in enumerate(changes):
        image = make_image(tar, **change)
        use(scene, layout_files([image.descriptor], image.blobs), f"types{number}" + "x" * (number % 2))


@attack(
    AREA,
    "generic",
    "a layout whose index.json, oci-layout, blobs directory or blobs are links to files of the host",
    "their bytes are not what the digests say; nothing of them is shown",
)
def layouts_of_links(scene: Scene) -> None:
    good = make_image(layer_tar({"f": "f"}))
    files = layout_files([good.descriptor], good.blobs)
    for number, name in enumerate(
        ("index.json", "oci-layout", "blobs", "blobs/sha256", f"blobs/sha256/{good.layers[0][7:]}")
    ):
        directory = scene.scratch / f"links{number}"
        write_layout(directory, files)
        place = directory / name
        target = scene.host if place.is_dir() else scene.host / "canary"
        place.rename(scene.scratch / f"away{number}")
        place.symlink_to(target)
        scene.give(directory)
        words = ("--build-context", f"evil=oci-layout://{directory}")
        said = scene.refused(scene.build("FROM evil\nRUN true\n", *words)).stderr
        assert "alive" not in said


@attack(
    AREA,
    "CVE-2019-14271, CVE-2021-21284",
    "archives of `docker save` whose Config and Layers are paths out, links or directories; members named upwards",
    "names are looked up in the archive only",
)
def docker_archives(scene: Scene) -> None:
    layer = layer_tar({"f": "f"})
    config = make_image(layer).blobs
    document = next(content for content in config.values() if b"rootfs" in content)
    canary = str(scene.host / "canary")
    up = "../../../../../../.." + canary
    cases: tuple[tuple[dict[str, Any], dict[str, bytes | str]], ...] = (
        ({"Config": canary, "Layers": [canary]}, {}),
        ({"Config": up, "Layers": [up]}, {}),
        ({"Config": "c.json", "Layers": ["l.tar"]}, {"c.json": canary, "l.tar": canary}),
        ({"Config": "c.json", "Layers": ["l.tar"]}, {"c.json": document, "l.tar": "l.tar"}),
        ({"Config": "c.json", "Layers": ["a"]}, {"c.json": document, "a": "b", "b": "a"}),
        ({"Config": "c.json", "Layers": [7], "RepoTags": {"a": 1}}, {"c.json": document}),
        (
            {"Config": "c.json", "Layers": ["l.tar"], "RepoTags": ["../../x", "a b", "-x"]},
            {"c.json": document, "l.tar": layer},
        ),
    )
    for number, (entry, members) in enumerate(cases):
        path = scene.cwd / f"docker{number}.tar"
        write_tar(path, {**members, "manifest.json": json.dumps([entry]).encode(), up: b"dead", "/abs": b"dead"})
        scene.give(path)
        done = scene("load", "-i", str(path))
        assert "alive" not in done.stdout + done.stderr
        scene("run", "--rm", str(path))
    assert not os.path.exists("/abs")


@attack(
    AREA,
    "CVE-2024-24557",
    "an image whose history and labels are those of a step's result, in the store before the build; the same "
    "for another "
    "field of the instruction",
    "history is no cache: the step runs",
)
def forged_history(scene: Scene) -> None:
    ran = scene.ok(scene.build("FROM base\nRUN echo real > /proof\n", "-t", "real", "-o", "type=oci,dest=real.tar"))
    assert "DONE" in ran.stderr
    history = json.loads(scene.ok(scene("inspect", "real")).stdout)
    assert history
    made = [{"created_by": "RUN /bin/sh -c echo real > /proof # buildkit", "comment": "buildkit.dockerfile.v0"}]
    forged = make_image(*scene.base_tars(), layer_tar({"proof": "forged"}), compress=False, history=made * 3)
    directory = scene.scratch / "forged"
    write_layout(directory, layout_files([forged.named("latest")], forged.blobs))
    scene.give(directory)
    archive = scene.cwd / "forged.tar"
    write_tar(archive, dict(layout_files([forged.named("docker.io/library/real:latest")], forged.blobs)))
    scene.give(archive)
    import shutil

    shutil.rmtree(scene.root)
    scene.ok(scene("load", "-i", str(archive)))
    done = scene.ok(scene.build("FROM base\nRUN echo real > /proof\n", "-t", "mine"))
    assert "CACHED" not in done.stderr.split("RUN echo", 1)[1]
    assert scene.ok(scene("run", "--rm", "mine", "cat", "/proof")).stdout == "real\n"
