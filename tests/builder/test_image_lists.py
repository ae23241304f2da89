"""`pybuild manifest`: indexes that are put together by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from builder.errors import BuildError, UsageError
from tests.builder.commandline import Shell
from tests.builder.image_factory import Image, layer_tar, layout_files, make_image, write_tar

AMD, ARM = layer_tar({"amd": "1"}), layer_tar({"arm": "2"})


def load(shell: Shell, name: str, *layers: bytes, architecture: str = "amd64", **config: Any) -> Image:
    made = make_image(*layers, architecture=architecture, **config)
    write_tar(shell.directory / "x.tar", dict(layout_files([made.named(name)], made.blobs)))
    shell("load", "-q", "--platform", f"linux/{architecture}", "-i", "x.tar")
    return made


@pytest.fixture
def two(shell: Shell) -> tuple[Image, Image]:
    return load(shell, "app:amd", AMD), load(shell, "app:arm", ARM, architecture="arm64")


def listed(shell: Shell, name: str = "app:all") -> dict[str, Any]:
    document = json.loads(shell("manifest", "inspect", name))
    assert isinstance(document, dict)
    return document


def test_an_index_is_what_its_images_are_for(shell: Shell, two: tuple[Image, Image]) -> None:
    digest = shell("manifest", "create", "--annotation", "a=b", "app:all", "app:amd", "app:arm").strip()
    document = listed(shell)
    assert document["annotations"] == {"a": "b"}
    assert [entry["digest"] for entry in document["manifests"]] == [image.descriptor["digest"] for image in two]
    assert [entry["size"] for entry in document["manifests"]] == [image.descriptor["size"] for image in two]
    assert [entry["platform"]["architecture"] for entry in document["manifests"]] == ["amd64", "arm64"]
    [row] = [json.loads(line) for line in shell("images", "--format", "json", "app:all").splitlines()]
    assert (row["Digest"], row["Platforms"]) == (digest, ["linux/amd64", "linux/arm64"])
    for platform, image in zip(("linux/amd64", "linux/arm64"), two, strict=True):
        assert shell("inspect", "-f", ".Id", "--platform", platform, "app:all").strip() == image.config_digest
    tree = shell("images", "--tree", "app:all")
    assert "app:all (linux/amd64)" in tree and "app:all (linux/arm64)" in tree


def test_amend_adds_each_image_once(shell: Shell, two: tuple[Image, Image]) -> None:
    shell("manifest", "create", "--amend", "app:all", "app:amd")
    with pytest.raises(BuildError, match="app:all is there already") as caught:
        shell("manifest", "create", "app:all", "app:arm")
    assert "--amend" in str(caught.value.hint)
    shell("manifest", "create", "-a", "app:all", "app:arm", "app:amd", two[0].config_digest[7:19])
    assert len(listed(shell)["manifests"]) == 2
    shell("manifest", "create", "app:more", "app:all")
    assert listed(shell, "app:more")["manifests"] == listed(shell)["manifests"]
    with pytest.raises(BuildError, match=r"'.*app:amd' is an image, expected an index"):
        shell("manifest", "create", "--amend", "app:amd", "app:arm")


def test_annotate_says_more_of_one_image(shell: Shell, two: tuple[Image, Image]) -> None:
    shell("manifest", "create", "app:all", "app:amd", "app:arm")
    words = ("--arch", "arm", "--variant", "v7", "--os-version", "1.2", "--os-features", "x", "--annotation", "k=v=w")
    shell("manifest", "annotate", *words, "app:all", "app:arm")
    assert listed(shell)["manifests"][1] == {
        **two[1].descriptor,
        "annotations": {"k": "v=w"},
        "platform": {"architecture": "arm", "os": "linux", "variant": "v7", "os.version": "1.2", "os.features": ["x"]},
    }
    assert shell("inspect", "-f", ".Id", "--platform", "linux/arm/v7", "app:all").strip() == two[1].config_digest
    with pytest.raises(BuildError, match="is not for linux/s390x") as caught:
        shell("inspect", "--platform", "linux/s390x", "app:all")
    assert "linux/arm/v7" in str(caught.value.hint)
    shell("manifest", "annotate", "--variant", "v2", "app:all", two[0].descriptor["digest"][7:20])
    assert listed(shell)["manifests"][0]["platform"]["variant"] == "v2"
    shell("manifest", "annotate", "--index", "--annotation", "of=all", "app:all")
    assert listed(shell)["annotations"] == {"of": "all"}
    assert len(shell("images", "--versions", "app:all").splitlines()) == 5


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("create", "app:all", "nothing"), BuildError, "no such image: 'nothing'"),
        (("annotate", "app:all", "app:amd"), UsageError, "nothing is said"),
        (("annotate", "--os", "x", "app:all"), UsageError, "IMAGE is missing"),
        (("annotate", "--index", "--os", "x", "app:all"), UsageError, "no platform"),
        (("annotate", "--os", "x", "app:all", "other"), BuildError, "'other' is not in the index"),
        (("annotate", "--annotation", "x", "app:all", "app:amd"), UsageError, "is not KEY=VALUE"),
        (("annotate", "--os", "x", "app:amd", "app:amd"), BuildError, "expected an index"),
        (("rm", "app:all", "app:amd"), BuildError, "expected an index"),
        (("rm", "nothing"), BuildError, "no such image"),
    ],
)
def test_what_cannot_be_done_is_said(
    shell: Shell, two: tuple[Image, Image], words: tuple[str, ...], error: type[BuildError], message: str
) -> None:
    if "nothing" not in words:
        shell("manifest", "create", "app:all", "app:amd")
    with pytest.raises(error, match=message):
        shell("manifest", *words)


def test_rm_leaves_the_images(shell: Shell, two: tuple[Image, Image]) -> None:
    shell("manifest", "create", "app:all", "app:amd", "app:arm")
    assert shell("manifest", "rm", "app:all") == "Untagged: app:all\n"
    assert sorted(row[1] for row in shell.lines("images")[1:]) == ["amd", "arm"]
    assert len(two) == 2


def test_an_index_keeps_its_images_from_being_pruned(shell: Shell, two: tuple[Image, Image]) -> None:
    shell("manifest", "create", "app:all", "app:amd", "app:arm")
    shell("rmi", "app:amd", "app:arm")
    shell("prune", "-f", "--all")
    for platform, image in zip(("linux/amd64", "linux/arm64"), two, strict=True):
        assert shell("inspect", "-f", ".Id", "--platform", platform, "app:all").strip() == image.config_digest


def test_a_saved_index_says_what_was_annotated(shell: Shell, two: tuple[Image, Image]) -> None:
    shell("manifest", "create", "app:all", "app:amd", "app:arm")
    digest = shell("manifest", "annotate", "--variant", "v9", "app:all", "app:arm").strip()
    shell("save", "--format", "oci", "-o", "all.tar", "app:all")
    assert two[1].descriptor["digest"] in str(listed(shell))
    assert digest.encode() in (shell.directory / "all.tar").read_bytes()
