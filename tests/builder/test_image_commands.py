from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from builder.errors import BuildError, UsageError
from builder.image.describe import human_age, human_size
from cache.store import Store
from tests.builder.commandline import NOW, Shell
from tests.builder.image_factory import Image, layer_tar, layout_files, make_image, write_layout, write_tar

ONE, TWO = layer_tar({"one": "1" * 3000}), layer_tar({"two": "2"})


@pytest.fixture
def image(shell: Shell) -> Image:
    """Two layers, loaded as app:1 and example.org/team/app:2."""
    made = make_image(ONE, TWO, author="me", config={"Cmd": ["sh"], "Env": ["A=ü"]})
    entries = [made.named("app:1"), made.named("example.org/team/app:2")]
    write_tar(shell.directory / "x.tar", dict(layout_files(entries, made.blobs)))
    output = shell("load", "-i", "x.tar")
    assert output == "Loaded image: docker.io/library/app:1\nLoaded image: example.org/team/app:2\n"
    return made


def test_load_says_what_it_loaded(shell: Shell) -> None:
    made = make_image(ONE)
    write_layout(shell.directory / "layout", layout_files([made.descriptor], made.blobs))
    assert shell("load", "layout") == f"Loaded image ID: {made.config_digest}\n"
    assert shell("load", "-q", "layout") == f"{made.config_digest}\n"
    with pytest.raises(UsageError, match="twice"):
        shell("load", "-i", "a", "b")
    with pytest.raises(BuildError, match=r"layout/index.json' is not an image archive: "):
        shell("load", "layout/index.json")


def test_load_reads_standard_input(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_image(ONE)
    path = write_tar(shell.directory / "x.tar", dict(layout_files([made.named("app:1")], made.blobs)))
    with open(path) as file:
        monkeypatch.setattr("sys.stdin", file)
        assert shell("load") == "Loaded image: docker.io/library/app:1\n"


def test_images_are_listed(shell: Shell, image: Image) -> None:
    header, *rows = shell.lines("images")
    assert header == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE", "SHARED", "UNIQUE"]
    short = image.config_digest[7:19]
    assert [row[:3] for row in rows] == [["app", "1", short], ["example.org/team/app", "2", short]]
    assert rows[0][3:6] == ["8", "months", "ago"]
    assert shell.lines("images", "--digests", "--no-trunc", "app:1")[1][2:4] == [
        image.descriptor["digest"],
        image.config_digest,
    ]
    assert shell("images", "-q") == f"{short}\n"
    for name in ("app", "app:1", "docker.io/library/app"):
        assert [row[0] for row in shell.lines("images", name)[1:]] == ["app"], name
    for pattern, names in {"a*": ["app"], "*/team/*": ["example.org/team/app"], "app:?": ["app"], "team/*": []}.items():
        assert [row[0] for row in shell.lines("images", pattern)[1:]] == names, pattern
    documents = [json.loads(line) for line in shell("images", "--format", "json").splitlines()]
    assert documents[0]["ID"] == image.config_digest
    assert documents[0]["Size"] > 0


def test_an_image_without_a_name_is_listed_unless_it_has_got_one(shell: Shell) -> None:
    made = make_image(ONE)
    write_layout(shell.directory / "layout", layout_files([made.descriptor], made.blobs))
    shell("load", "layout")
    assert shell.lines("images")[1][:2] == ["<none>", "<none>"]
    shell("tag", made.config_digest[7:19], "named")
    assert [row[:2] for row in shell.lines("images")[1:]] == [["named", "latest"]]


def test_a_damaged_image_is_listed_as_such(shell: Shell, image: Image) -> None:
    with Store.open(str(shell.directory / "store")) as store:
        Path(store.blobs.path(image.config_digest)).unlink()  # type: ignore[arg-type]
    assert [row[-1] for row in shell.lines("images")[1:]] == ["damaged", "damaged"]
    with pytest.raises(BuildError, match="image 'app:1' is damaged"):
        shell("inspect", "app:1")


def test_an_image_is_inspected(shell: Shell, image: Image) -> None:
    [document] = json.loads(shell("inspect", "app:1"))
    assert document["Id"] == image.config_digest
    assert document["RepoTags"] == ["app:1", "example.org/team/app:2"]
    assert document["RepoDigests"] == [
        f"{name}@{image.descriptor['digest']}" for name in ("app", "example.org/team/app")
    ]
    assert (document["Author"], document["Os"], document["Architecture"]) == ("me", "linux", "amd64")
    assert document["Config"] == {"Cmd": ["sh"], "Env": ["A=ü"]}
    assert len(document["RootFS"]["Layers"]) == 2
    assert shell("inspect", "--format", "json", "app:1", image.config_digest).count("\n") == 1
    with pytest.raises(BuildError, match="no such image: 'nothing'"):
        shell("inspect", "app:1", "nothing")


def test_history_is_shown_newest_first(shell: Shell, image: Image) -> None:
    header, newest, oldest = shell.lines("history", "app:1")
    assert header == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert (newest[0], newest[4:6]) == (image.config_digest[7:19], ["layer", "1"])
    assert (oldest[0], oldest[4:6]) == ("<missing>", ["layer", "0"])
    rows = [json.loads(line) for line in shell("history", "--format", "json", "app:1").splitlines()]
    assert [row["CreatedBy"] for row in rows] == ["layer 1", "layer 0"]
    assert all(row["Size"] > 0 for row in rows)


def test_long_instructions_are_cut(shell: Shell) -> None:
    text = "RUN\tmake " + "x" * 100
    made = make_image(history=[{"created_by": text, "empty_layer": True}])
    write_layout(shell.directory / "layout", layout_files([made.named("a:1")], made.blobs))
    shell("load", "layout")
    assert shell.lines("history", "a:1")[1][2:5] == ["RUN", "make", "x" * 35 + "…"]
    assert "x" * 100 in shell("history", "--no-trunc", "a:1")


@pytest.mark.parametrize("kind", ["docker", "oci"])
def test_save_writes_what_load_reads(shell: Shell, image: Image, tmp_path: Path, kind: str) -> None:
    shell("save", "-o", "saved.tar", "--format", kind, "app:1")
    with tarfile.open(tmp_path / "saved.tar") as tar:
        assert ("manifest.json" in tar.getnames()) == (kind == "docker")
    shell("save", "--format", kind, "app:1")
    assert shell.binary == (tmp_path / "saved.tar").read_bytes()
    other = Shell(tmp_path / "other")
    assert other("load", str(tmp_path / "saved.tar")) == "Loaded image: docker.io/library/app:1\n"
    assert json.loads(other("inspect", "app:1"))[0]["Digest"] == image.descriptor["digest"]


@pytest.mark.parametrize("kind", ["docker", "oci"])
def test_save_writes_several_images(shell: Shell, image: Image, tmp_path: Path, kind: str) -> None:
    other = make_image(TWO)
    write_layout(shell.directory / "layout", layout_files([other.named("other:1")], other.blobs))
    shell("load", "layout")
    shell("save", "-o", "saved.tar", "--format", kind, "app:1", "other:1", "example.org/team/app:2")
    loaded = Shell(tmp_path / "loaded")
    names = ["docker.io/library/app:1", "example.org/team/app:2", "docker.io/library/other:1"]
    assert loaded("load", str(tmp_path / "saved.tar")) == "".join(f"Loaded image: {name}\n" for name in names)
    ids = [loaded("inspect", "-f", ".Id", name).strip() for name in names]
    assert ids == [image.config_digest, image.config_digest, other.config_digest]


def test_rmi_takes_names_away_one_by_one_or_all_by_id(shell: Shell, image: Image) -> None:
    assert shell("rmi", "app:1") == "Untagged: app:1\n"
    with pytest.raises(BuildError, match="no such image: 'app:1'"):
        shell("rmi", "app:1")
    assert shell("rmi", "-f", "app:1") == ""
    shell("tag", "example.org/team/app:2", "app:3", "app")
    assert len(shell.lines("images")) == 4
    gone = shell("rmi", image.config_digest[7:19])
    assert gone.splitlines()[-1] == f"Deleted: {image.config_digest}"
    assert gone.count("Untagged: ") == 3
    assert len(shell.lines("images")) == 1


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (1234, "1.23kB"),
        (4_260_000, "4.26MB"),
        (999_999, "1MB"),
        (10**12, "1TB"),
    ],
)
def test_sizes_have_three_digits(size: int, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("created", "text"),
    [
        ("2020-09-13T12:26:30Z", "10 seconds ago"),
        ("2020-09-13T12:25:30Z", "About a minute ago"),
        ("2020-09-13T11:26:40Z", "60 minutes ago"),
        ("2020-09-12T12:26:40Z", "24 hours ago"),
        ("2020-09-01T00:00:00Z", "12 days ago"),
        ("2010-01-01T00:00:00Z", "10 years ago"),
        ("2999-01-01T00:00:00Z", "0 seconds ago"),
        ("", "N/A"),
    ],
)
def test_ages_are_rounded(created: str, text: str) -> None:
    assert human_age(created, NOW) == text
