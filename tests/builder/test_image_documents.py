from __future__ import annotations

import json
from typing import Any

import pytest

from builder.errors import BuildError
from builder.image.config import diff_ids, encode_config, parse_config
from builder.image.document import MAX_DOCUMENT_SIZE, encode_document, parse_document
from builder.image.manifest import Index, Manifest, encode_manifest, parse_manifest
from builder.image.platform import choose, platform_document, platform_of
from builder.image.timestamp import format_time, parse_time
from tests.shared import shared_dir

DIGEST = "sha256:" + "ab" * 32
DESCRIPTOR = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 3}


def manifest_bytes(**changes: Any) -> bytes:
    document = {"schemaVersion": 2, "config": DESCRIPTOR, "layers": [DESCRIPTOR], **changes}
    return json.dumps({key: value for key, value in document.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"[1]", "an array"),
        (b'"x"', "a string"),
        (b"null", "null"),
        (b"\xff", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a":' * 80 + b"1" + b"}" * 80, "nested more than 64"),
        (b" " * MAX_DOCUMENT_SIZE + b"{}", "too large"),
    ],
)
def test_a_document_has_limits(raw: bytes, problem: str) -> None:
    with pytest.raises(BuildError, match=problem):
        parse_document(raw, "x.json")


def test_text_is_escaped_as_go_does() -> None:
    assert encode_document({"a": "<&>\u2028é\x01\n\x7f\U0001f600"}) == (
        b'{"a":"\\u003c\\u0026\\u003e\\u2028\xc3\xa9\\u0001\\n\x7f\xf0\x9f\x98\x80"}'
    )
    assert encode_document({"a": "x\udcff"}) == b'{"a":"x\\ufffd"}'


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"manifests": []}, "ambiguous"),
        ({"layers": ..., "config": ...}, "neither"),
        ({"layers": ...}, "lacks layers"),
        ({"config": ...}, "lacks config"),
        ({"config": ..., "manifests": []}, "ambiguous"),
        ({"schemaVersion": 1}, "schemaVersion is 1"),
        ({"mediaType": "application/vnd.oci.image.index.v1+json"}, "mediaType is"),
        ({"mediaType": 5}, "'mediaType' is a number"),
        ({"config": {**DESCRIPTOR, "digest": "sha256:../../x"}}, "digest"),
        ({"config": {**DESCRIPTOR, "size": -1}}, "size"),
        ({"config": {**DESCRIPTOR, "annotations": {"a": 1}}}, "annotation is not text"),
        ({"layers": {}}, "'layers' is an object"),
        ({"layers": ["x"]}, "descriptor"),
        ({"annotations": {"a": None}}, "annotation is not text"),
    ],
)
def test_a_manifest_is_checked(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(BuildError, match=problem):
        parse_manifest(manifest_bytes(**changes))


def test_docker_media_types_are_read() -> None:
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = parse_manifest(manifest_bytes(mediaType=kind))
    assert isinstance(manifest, Manifest)
    assert manifest.media_type == kind
    index = parse_manifest(manifest_bytes(config=..., layers=..., manifests=[{**DESCRIPTOR, "platform": {"os": "x"}}]))
    assert isinstance(index, Index)
    assert index.manifests[0].platform == {"os": "x"}


def test_a_manifest_survives_its_encoding() -> None:
    manifest = parse_manifest(manifest_bytes(annotations={"b": "1", "a": "2"}))
    raw = encode_manifest(manifest)
    assert parse_manifest(raw) == manifest
    assert list(json.loads(raw)) == ["schemaVersion", "mediaType", "config", "layers", "annotations"]
    assert list(json.loads(raw)["annotations"]) == ["a", "b"]


def test_config_and_manifest_of_buildkit_are_reproduced_byte_for_byte() -> None:
    shared = shared_dir()
    if shared is None:
        pytest.skip("the shared busybox layout is not here")
    blobs = shared / "conformance" / "images" / "busybox" / "blobs" / "sha256"
    kinds = set()
    for blob in blobs.iterdir():
        raw = blob.read_bytes()
        if b"schemaVersion" in raw[:40]:
            assert encode_manifest(parse_manifest(raw)) == raw
            kinds.add("manifest")
        elif raw.startswith(b"{"):
            shuffled = dict(sorted(json.loads(raw).items(), reverse=True))
            assert encode_config(shuffled) == raw
            kinds.add("config")
    assert kinds == {"manifest", "config"}


@pytest.mark.parametrize(
    "document",
    [
        {"rootfs": {"diff_ids": ["sha256:abc"]}},
        {"rootfs": []},
        {"config": "x"},
        {"history": [1]},
        {"architecture": 1},
        {"rootfs": {"diff_ids": "x"}},
    ],
)
def test_a_config_of_the_wrong_shape_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(BuildError, match="image config"):
        parse_config(json.dumps(document).encode())


def test_a_config_without_layers_is_read() -> None:
    assert diff_ids(parse_config(b'{"rootfs":{"type":"layers","diff_ids":null},"history":null}')) == ()


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_400_000_000_000_000_000, "2014-05-13T16:53:20Z"),
        (1_700_000_000_120_000_000, "2023-11-14T22:13:20.12Z"),
        (1_709_164_800_000_000_001, "2024-02-29T00:00:00.000000001Z"),
        (-1_000_000_000, "1969-12-31T23:59:59Z"),
        (253_402_300_799_000_000_000, "9999-12-31T23:59:59Z"),
    ],
)
def test_times_are_written_as_go_does(time_ns: int, text: str) -> None:
    assert format_time(time_ns) == text
    assert parse_time(text) == time_ns


def test_times_with_an_offset_are_read() -> None:
    assert parse_time("2014-05-13T18:53:20.5+02:00") == 1_400_000_000_500_000_000
    assert parse_time("2014-05-13T11:23:20-05:30") == 1_400_000_000_000_000_000
    assert parse_time("yesterday") is None
    assert parse_time("2014-13-13T18:53:20Z") is None


@pytest.mark.parametrize(
    ("platforms", "wanted", "chosen"),
    [
        (["linux/arm64", "linux/amd64"], "linux/amd64", 1),
        (["linux/arm/v6", "linux/arm/v7"], "linux/arm/v7", 1),
        (["linux/arm/v7", "linux/arm/v6"], "linux/arm/v6", 1),
        (["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", 1),
        (["linux/arm/v7"], "linux/arm/v6", None),
        (["linux/arm64/v8"], "linux/arm64", 0),
        (["linux/amd64/v3", "linux/amd64"], "linux/amd64", 1),
        (["windows/amd64", ""], "linux/amd64", None),
        ([], "linux/amd64", None),
    ],
)
def test_the_closest_platform_is_chosen(platforms: list[str], wanted: str, chosen: int | None) -> None:
    assert choose(platforms, wanted) == chosen


def test_a_platform_goes_into_a_descriptor_and_back() -> None:
    for platform in ("linux/amd64", "linux/arm/v7"):
        assert platform_of(platform_document(platform)) == platform
    assert platform_of({"os": "linux"}) == ""
