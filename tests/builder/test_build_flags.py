"""The flags of the build command that say what becomes of the result: annotations, metadata, targets, names."""

from __future__ import annotations

import argparse
import io
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from builder.commands import Environment, build_options
from builder.commands.build_options import agent
from builder.commands.entitlements import check_deletes, parse_entitlements
from builder.commands.known_args import check_known_args, wants_inline_cache
from builder.errors import BuildError, UsageError
from builder.export.annotation import annotated, parse_annotations
from builder.export.spec import Annotation, OutputSpec
from builder.exporter import Exported
from builder.image.platform import host_platform
from builder.metadata import image_ids, metadata, write_metadata
from builder.options import BuildOptions
from builder.outputs import output_specs
from builder.variants import merge, variants
from cache.descriptor import MEDIA_INDEX, MEDIA_MANIFEST, Descriptor
from cache.digest import Digest
from tests.builder.planning import HOST, plan_of


def digest(character: str) -> Digest:
    return Digest.parse("sha256:" + character * 64)


def options_of(*words: str) -> BuildOptions:
    """What the command line's words become."""
    parser = argparse.ArgumentParser()
    build_options.add_arguments(parser)
    env = Environment(io.StringIO(), io.BytesIO(), io.StringIO(), {}, "/", "/store", lambda: 0)
    return build_options.plan_options(parser.parse_args([*words, "."]), env)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=c=d", [Annotation("manifest", "", "a.b", "c=d")]),
        ("index:k=v", [Annotation("index", "", "k", "v")]),
        ("index,manifest:k=", [Annotation("index", "", "k", ""), Annotation("manifest", "", "k", "")]),
        ("manifest-descriptor[linux/arm64]:k=v", [Annotation("manifest-descriptor", "linux/arm64", "k", "v")]),
        ("index-descriptor:k=v:w", [Annotation("index-descriptor", "", "k", "v:w")]),
    ],
)
def test_annotations(text: str, expected: list[Annotation]) -> None:
    assert list(parse_annotations([text])) == expected


@pytest.mark.parametrize("text", ["k", "=v", "index:=v", "layer:k=v", "index,:k=v", "index[linux:k=v", ""])
def test_malformed_annotations(text: str) -> None:
    with pytest.raises(UsageError, match="--annotation"):
        parse_annotations([text])


def test_annotations_are_for_images_only() -> None:
    image, tree = annotated([OutputSpec("oci", "x"), OutputSpec("local", "y")], ["k=v"])
    assert [annotation.key for annotation in image.annotations] == ["k"]
    assert tree.annotations == ()


def made(number: str, target: str = "", *ids: str, kind: str = MEDIA_MANIFEST) -> Exported:
    described = Descriptor(kind, digest(number), 7, {"k": "v"})
    ids = ids or (number,)
    return Exported(str(digest(number)), tuple(map(digest, ids)), ("docker.io/library/a:1",), described, target)


def test_metadata_has_the_keys_of_buildx() -> None:
    found = metadata([made("a", "", "c")])
    assert found == {
        "containerimage.config.digest": str(digest("c")),
        "containerimage.digest": str(digest("a")),
        "containerimage.descriptor": {
            "mediaType": MEDIA_MANIFEST,
            "digest": str(digest("a")),
            "size": 7,
            "annotations": {"k": "v"},
        },
        "image.name": "docker.io/library/a:1",
    }


def test_metadata_of_an_index_names_no_config() -> None:
    index = made("a", "", "c", "d", kind=MEDIA_INDEX)
    assert "containerimage.config.digest" not in metadata([index])
    assert image_ids([index]) == [str(digest("a"))]


def test_metadata_of_trees_and_of_targets() -> None:
    assert metadata([Exported()]) == {}
    found = metadata([made("a", "one"), made("b", "two"), Exported(target="one")])
    assert [found[name]["containerimage.digest"] for name in ("one", "two")] == [str(digest("a")), str(digest("b"))]
    assert image_ids([made("a", "one"), made("b", "two"), made("c", "one")]) == [str(digest("c")), str(digest("b"))]


def test_metadata_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "metadata.json"
    path.write_text("before")
    os.chmod(tmp_path, 0o755)
    write_metadata(str(path), [made("a")])
    assert json.loads(path.read_text()) == metadata([made("a")])
    assert os.listdir(tmp_path) == ["metadata.json"]
    with pytest.raises(BuildError, match="cannot be written"):
        write_metadata(str(tmp_path / "missing" / "file"), [made("a")])


def test_several_targets_and_platforms_are_kept_apart() -> None:
    options = options_of("--target", "a", "--target", "b", "--platform", "linux/amd64,linux/arm64")
    assert (options.target, options.targets) == ("a", ("a", "b"))
    assert (options.platform, options.platforms) == ("linux/amd64", ("linux/amd64", "linux/arm64"))
    found = [(each.target, each.platform) for each in variants(options, HOST)]
    assert found == [("a", "linux/amd64"), ("a", "linux/arm64"), ("b", "linux/amd64"), ("b", "linux/arm64")]


def test_one_is_not_several() -> None:
    options = options_of("--target", "a", "--platform", "linux/arm64,linux/arm64")
    assert (options.target, options.targets, options.platform, options.platforms) == ("a", (), "linux/arm64", ())
    assert options_of() == options_of("--pull")
    assert options_of("--platform", f"local,{host_platform()}").platforms == ()


def test_equal_targets_and_platforms_are_one() -> None:
    options = BuildOptions(targets=("a", "A"), platforms=("linux/arm64", "linux/aarch64", "linux/arm64/v8"))
    assert len(variants(options, HOST)) == 1


STAGES = "FROM busybox AS shared\nRUN x\nFROM shared AS a\nRUN a\nFROM shared AS b\nRUN b\n"


def merged(text: str, **fields: Any) -> Any:
    options = BuildOptions(**fields)
    return merge([plan_of(text, **each._asdict()) for each in variants(options, HOST)])


def test_targets_share_what_they_have_in_common() -> None:
    plan = merged(STAGES, targets=("a", "b"))
    assert [vertex.name.partition("] ")[2] for vertex in plan.vertices if "RUN" in vertex.name] == [
        "RUN x",
        "RUN a",
        "RUN b",
    ]
    assert [image.target for image in plan.images] == ["a", "b"]
    assert [plan.vertices[image.vertex].name for image in plan.images] == ["[a 1/1] RUN a", "[b 1/1] RUN b"]
    for index, vertex in enumerate(plan.vertices):
        assert all(source < index for source in vertex.inputs)


def test_an_undefined_target_among_several_is_an_error() -> None:
    with pytest.raises(BuildError, match="could not be found"):
        merged(STAGES, targets=("a", "none"))


def test_local_store_is_an_output_on_request() -> None:
    outputs = ["type=oci,dest=x"]
    assert [spec.type for spec in output_specs(outputs, [], BuildOptions())] == ["oci"]
    assert [spec.type for spec in output_specs(outputs, [], BuildOptions(), load=True)] == ["oci", "image"]
    assert [spec.type for spec in output_specs([], [], BuildOptions(), load=True)] == ["image"]
    (only,) = output_specs(["type=image,name=b"], ["a", "b"], BuildOptions(), load=True)
    assert only.names == ("b", "a")
    assert [spec.names for spec in output_specs(["type=docker"], ["a"], BuildOptions())] == [("a",)]


@pytest.mark.parametrize(("outputs", "tags"), [(["type=docker,dest=x"], []), (["type=docker,dest=x"], ["a"])])
def test_what_holds_one_platform_is_refused_before_the_build(outputs: list[str], tags: list[str]) -> None:
    options = BuildOptions(platforms=("linux/amd64", "linux/arm64"), multi_platform=True)
    with pytest.raises(UsageError, match="one platform") as caught:
        output_specs(outputs, tags, options)
    assert "type=oci" in str(caught.value.hint)


def test_standard_output_is_for_one() -> None:
    with pytest.raises(UsageError, match="several outputs want standard output"):
        output_specs(["type=oci", "-"], [], BuildOptions())


@pytest.mark.parametrize("value", ["network", "security.insecure=1", "buildx.local.delete=x", "fs.read=/"])
def test_an_unknown_entitlement_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="is not known") as caught:
        parse_entitlements([value], "default")
    assert "network.host" in str(caught.value.hint)


def test_entitlements() -> None:
    assert parse_entitlements(["device=x", "", "security.insecure"], "host") == {
        "device=x",
        "security.insecure",
        "network.host",
    }


def test_deleting_needs_a_grant_outside_of_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/link").symlink_to(tmp_path)
    for dest in (".", "..", "../other", "/", "link/other", str(tmp_path / "here")):
        specs = output_specs([f"type=local,mode=delete,dest={dest}"], [], BuildOptions())
        with pytest.raises(UsageError, match="is not allowed"):
            check_deletes(specs, frozenset(), str(tmp_path / "here"))
        check_deletes(specs, frozenset({"buildx.local.delete"}), str(tmp_path / "here"))
    for dest in ("out", "a/b", str(tmp_path / "here/c"), "..d"):
        specs = output_specs([f"type=local,mode=delete,dest={dest}"], [], BuildOptions())
        check_deletes(specs, frozenset(), str(tmp_path / "here"))


def test_build_args_that_are_for_the_builder() -> None:
    for syntax in ("docker/dockerfile:1", "registry:5000/x/dockerfile-upstream:master@sha256:" + "a" * 64):
        check_known_args({"BUILDKIT_SYNTAX": syntax})
    with pytest.raises(UsageError, match="is not a Dockerfile frontend"):
        check_known_args({"BUILDKIT_SYNTAX": "tonistiigi/llb:1"})
    assert [wants_inline_cache({"BUILDKIT_INLINE_CACHE": value}) for value in ("0", "1", "true")] == [False, True, True]
    assert not wants_inline_cache({})


def test_an_agent_is_a_socket(tmp_path: Path) -> None:
    env = Environment(io.StringIO(), io.BytesIO(), io.StringIO(), {}, str(tmp_path), "/store", lambda: 0)
    (tmp_path / "key").write_text("-----BEGIN OPENSSH PRIVATE KEY-----")
    with pytest.raises(UsageError, match="is not the socket of an agent") as caught:
        agent("default=key", env)
    assert "ssh-add" in str(caught.value.hint)
    with pytest.raises(UsageError, match="no such file"):
        agent("default=nothing", env)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "agent"))
        assert agent("x=agent", env) == ("x", str(tmp_path / "agent"))
