"""`pybuild images`: what images share, the tree of their layers, filters."""

from __future__ import annotations

import json

import pytest

from builder.errors import BuildError, UsageError
from builder.image.filters import matches
from tests.builder.commandline import Shell
from tests.builder.image_factory import Image, layer_tar, layout_files, make_image, write_tar

BASE, ONE, TWO, THREE = (layer_tar({name: name * 5000}) for name in ("base", "one", "two", "three"))


def load(shell: Shell, name: str, *layers: bytes, created: str = "2020-01-02T03:04:05Z", **config: object) -> Image:
    made = make_image(*layers, created=created, config=config, compress=False)
    write_tar(
        shell.directory / "x.tar", dict(layout_files([made.named(name) if name else made.descriptor], made.blobs))
    )
    shell("load", "-q", "-i", "x.tar")
    return made


@pytest.fixture
def shelf(shell: Shell) -> Shell:
    """A base, two images on it, and one of its own; their layers are plain, so that sizes are those of the tars."""
    load(shell, "base:1", BASE, created="2020-01-01T00:00:00Z")
    load(shell, "app:1", BASE, ONE, TWO, created="2020-01-02T00:00:00Z", Labels={"tier": "web"})
    load(shell, "example.org/team/app:2", BASE, THREE, created="2020-01-03T00:00:00Z", Labels={"tier": "db"})
    load(shell, "own:1", ONE, created="2020-01-04T00:00:00Z")
    shell("tag", "own:1", "own:2")
    return shell


def listed(shell: Shell, *words: str) -> list[str]:
    rows = [json.loads(line) for line in shell("images", "--format", "json", *words).splitlines()]
    return [f"{row['Repository']}:{row['Tag']}" for row in rows]


def test_shared_and_unique_sizes_add_up(shelf: Shell) -> None:
    rows = {
        f"{row['Repository']}:{row['Tag']}": (row["Size"], row["SharedSize"], row["UniqueSize"])
        for row in map(json.loads, shelf("images", "--format", "json").splitlines())
    }
    base, one, two, three = map(len, (BASE, ONE, TWO, THREE))
    assert rows["base:1"] == (base, base, 0)
    assert rows["app:1"] == (base + one + two, base + one, two)
    assert rows["example.org/team/app:2"] == (base + three, base, three)
    assert rows["own:1"] == rows["own:2"] == (one, one, 0)
    only = json.loads(shelf("images", "--format", "json", "app:1"))
    assert only["UniqueSize"] == two  # what others have counts, whether or not they are listed
    header, *lines = shelf.lines("images")
    assert header[-3:] == ["SIZE", "SHARED", "UNIQUE"]
    assert {line[0]: line[-1] for line in lines}["base"] == "0B"


def test_the_tree_joins_layers_that_come_together(shelf: Shell) -> None:
    load(shelf, "empty:1")
    lines = shelf("images", "--tree").splitlines()
    cells = [line.split("   ") for line in lines]
    assert [cell.strip() for cell in lines[0].split("  ") if cell.strip()] == ["LAYER", "LAYERS", "SIZE", "IMAGES"]
    ends = [row[-1].strip() for row in cells[1:]]
    assert ends == ["empty:1", "own:1, own:2", "base:1", "example.org/team/app:2", "app:1"]
    assert lines[4].startswith("├─ ") and lines[5].startswith("└─ ")
    assert lines[5].split()[2] == "2"  # two layers that only app:1 has on the base
    tree = json.loads(shelf("images", "--tree", "--format", "json"))
    assert tree["Images"] == ["empty:1"]
    base = next(child for child in tree["Children"] if child["Images"] == ["base:1"])
    assert [len(child["Layers"]) for child in base["Children"]] == [1, 2]
    assert base["Children"][1]["Size"] == len(ONE) + len(TWO)


def test_the_tree_of_one_image(shelf: Shell) -> None:
    lines = shelf("images", "--tree", "app:1").splitlines()
    assert len(lines) == 2 and lines[1].split()[1] == "3"
    with pytest.raises(UsageError, match="--tree"):
        shelf("images", "--tree", "-q")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["reference=app"], ["app:1"]),
        (["reference=app:*"], ["app:1"]),
        (["reference=*:1"], ["own:1", "app:1", "base:1"]),
        (["reference=example.org/*/app"], ["example.org/team/app:2"]),
        (["reference=example.org/*"], []),
        (["reference=docker.io/library/base:[0-9]"], ["base:1"]),
        (["reference=base", "reference=own:2"], ["own:2", "base:1"]),
        (["label=tier"], ["example.org/team/app:2", "app:1"]),
        (["label=tier=web"], ["app:1"]),
        (["label=tier=none"], []),
        (["before=app:1"], ["base:1"]),
        (["since=app:1"], ["own:1", "own:2", "example.org/team/app:2"]),
        (["since=base:1", "label=tier=web"], ["app:1"]),
        (["dangling=true"], []),
        (["dangling=false", "reference=base"], ["base:1"]),
    ],
)
def test_filters(shelf: Shell, words: list[str], found: list[str]) -> None:
    assert listed(shelf, *[word for text in words for word in ("--filter", text)]) == found


def test_images_without_a_name_dangle(shell: Shell) -> None:
    load(shell, "", ONE)
    load(shell, "app:1", TWO)
    assert listed(shell, "--filter", "dangling=true") == ["<none>:<none>"]
    assert listed(shell, "--filter", "dangling=0") == ["app:1"]
    assert listed(shell, "--filter", "reference=*") == ["app:1"]


@pytest.mark.parametrize("text", ["nothing=1", "reference", "reference=", "dangling=perhaps"])
def test_a_filter_that_does_not_exist_is_an_error(shell: Shell, text: str) -> None:
    with pytest.raises(UsageError, match="--filter"):
        shell("images", "--filter", text)


def test_a_filter_by_an_image_that_is_not_there_is_an_error(shell: Shell) -> None:
    with pytest.raises(BuildError, match="no such image: 'nothing'"):
        shell("images", "--filter", "before=nothing")


def test_patterns_stop_at_slashes() -> None:
    assert matches("docker.io/library/app:1", "a?p:[^2]")
    assert not matches("example.org/app:1", "*")
