"""What names meant before: listing, going back and forward, and how long it is kept."""

from __future__ import annotations

import json

import pytest

from builder.errors import BuildError, UsageError
from cache.store import Store
from cache.versions import REMEMBERED
from tests.builder.commandline import Shell
from tests.builder.image_factory import Image, layer_tar, layout_files, make_image, write_tar

DAY = 24 * 3600 * 10**9


def load(shell: Shell, content: str, name: str = "app:1") -> Image:
    """An image with one layer of its own under a name."""
    made = make_image(layer_tar({"file": content}))
    path = write_tar(shell.directory / "x.tar", dict(layout_files([made.named(name)], made.blobs)))
    shell("load", "-q", "-i", path)
    return made


def meant(shell: Shell, name: str = "app:1") -> str:
    return shell("inspect", "-f", ".Id", name).strip()


def versions(shell: Shell, name: str = "app:1") -> list[tuple[int, str, str]]:
    rows = [json.loads(line) for line in shell("images", "--versions", "--format", "json", name).splitlines()]
    return [(row["Version"], row["ID"], row["State"]) for row in rows]


def test_a_name_that_never_moved_has_one_version(shell: Shell) -> None:
    one = load(shell, "1")
    assert versions(shell) == [(1, one.config_digest, "current")]
    with pytest.raises(BuildError, match="app:1 has no version before 1"):
        shell("rollback", "app:1")
    with Store.open(str(shell.directory / "store")) as store:
        assert list(store.images.versions.walk()) == []


def test_back_and_forward(shell: Shell) -> None:
    made = [load(shell, str(number)) for number in range(3)]
    ids = [image.config_digest for image in made]
    assert [row[1:] for row in versions(shell)] == [(ids[2], "current"), (ids[1], "kept"), (ids[0], "kept")]
    assert shell("rollback", "app:1") == f"app:1 is version 2 again: {ids[1][7:19]}\n"
    assert meant(shell) == ids[1]
    assert shell("rollback", "-q", "app:1") == f"{ids[0]}\n"
    with pytest.raises(BuildError, match="no version before 1"):
        shell("rollback", "app:1")
    shell("rollback", "app:1", "3")
    assert meant(shell) == ids[2]
    shell("rollback", "app:1", ids[0][7:15])
    assert meant(shell) == ids[0]
    shell("rollback", "app:1", made[1].descriptor["digest"])
    assert meant(shell) == ids[1]
    assert [row[0] for row in versions(shell)] == [3, 2, 1]


def test_what_comes_after_going_back_replaces_what_it_went_back_to(shell: Shell) -> None:
    ids = [load(shell, str(number)).config_digest for number in range(3)]
    shell("rollback", "app:1", "1")
    ids.append(load(shell, "3").config_digest)
    assert versions(shell)[0] == (4, ids[3], "current")
    shell("rollback", "app:1")
    assert meant(shell) == ids[0]


def test_what_cannot_be_gone_back_to_is_said(shell: Shell) -> None:
    one = load(shell, "1")
    two = load(shell, "2")
    with pytest.raises(BuildError, match="app:1 has no version '7'"):
        shell("rollback", "app:1", "7")
    with pytest.raises(BuildError, match="app:1 means version 2 already"):
        shell("rollback", "app:1", two.config_digest)
    with pytest.raises(BuildError, match="no such image: 'other:latest'"):
        shell("rollback", "other")
    with pytest.raises(BuildError, match="has no version 'zzz'"):
        shell("rollback", "app:1", "zzz")
    with pytest.raises(BuildError, match="may be several versions"):
        shell("rollback", "app:1", "sha256:")
    with pytest.raises(UsageError, match="one name"):
        shell("images", "--versions")
    assert meant(shell) == two.config_digest
    assert one.config_digest != two.config_digest


def test_a_former_version_is_found_by_its_id(shell: Shell) -> None:
    one = load(shell, "1")
    load(shell, "2")
    assert json.loads(shell("inspect", one.config_digest[7:19]))[0]["RepoTags"] == []
    assert shell("rmi", one.config_digest[7:19]) == f"Deleted: {one.config_digest}\n"
    assert [row[0] for row in versions(shell)] == [2]
    with pytest.raises(BuildError, match="no such image"):
        shell("inspect", one.config_digest[7:19])


def blob_is_there(shell: Shell, image: Image) -> bool:
    with Store.open(str(shell.directory / "store")) as store:
        return store.blobs.peek(image.layers[0]) is not None  # type: ignore[arg-type]


def test_the_last_versions_outlive_a_prune_but_not_with_all(shell: Shell) -> None:
    made = [load(shell, str(number)) for number in range(8)]
    shell("prune", "-f")
    assert [row[2] for row in versions(shell)] == ["current", *["kept"] * 5, "gone", "gone"]
    assert [blob_is_there(shell, image) for image in made] == [False] * 2 + [True] * 6
    with pytest.raises(BuildError, match="version 1 of app:1 was pruned") as caught:
        shell("rollback", "app:1", "1")
    assert "images --versions" in str(caught.value.hint)
    held = [json.loads(line) for line in shell("du", "--format", "json").splitlines()]
    assert any("version 7 of app:1" in json.dumps(entry) for entry in held)
    shell("prune", "-f", "--all")
    assert [row[2] for row in versions(shell)] == ["current", *["gone"] * 7]
    assert blob_is_there(shell, made[-1])
    assert meant(shell) == made[-1].config_digest


def test_a_policy_with_all_lets_go_of_versions_one_without_does_not(shell: Shell) -> None:
    one = load(shell, "1")
    load(shell, "2")
    config = shell.directory / "store" / "config.toml"
    config.write_text(
        "[[gc.policy]]\nall = false\n[[gc.policy]]\nall = true\nfilters = ['type==source.git.checkout']\n"
    )
    shell("prune", "-f", "--policy")
    assert blob_is_there(shell, one)
    config.write_text("[[gc.policy]]\nall = true\n[[gc.policy]]\nall = false\n")
    shell("prune", "-f", "--policy")
    assert not blob_is_there(shell, one)


def test_versions_that_were_replaced_long_ago_are_not_kept(shell: Shell) -> None:
    load(shell, "1")
    shell.now += 100 * DAY
    load(shell, "2")
    shell.now += 29 * DAY
    shell("prune", "-f")
    assert [row[2] for row in versions(shell)] == ["current", "kept"]
    shell.now += 2 * DAY
    shell("prune", "-f")
    assert [row[2] for row in versions(shell)] == ["current", "gone"]


def test_what_was_gone_back_from_is_kept(shell: Shell) -> None:
    load(shell, "1")
    load(shell, "2")
    shell("rollback", "app:1")
    shell("prune", "-f")
    assert [row[2] for row in versions(shell)] == ["kept", "current"]


@pytest.mark.parametrize("command", ["rmi", "untag"])
def test_a_name_takes_its_versions_with_it(shell: Shell, command: str) -> None:
    one = load(shell, "1")
    load(shell, "2")
    shell(command, "app:1")
    shell("prune", "-f")
    assert not blob_is_there(shell, one)
    load(shell, "3")
    assert [row[0] for row in versions(shell)] == [1]


def test_untag_leaves_the_image(shell: Shell) -> None:
    one = load(shell, "1")
    shell("tag", "app:1", "app:2")
    assert shell("untag", "app:1") == "Untagged: app:1\n"
    assert [row[:2] for row in shell.lines("images")[1:]] == [["app", "2"]]
    with pytest.raises(BuildError, match="no such image: 'app:1'"):
        shell("untag", "app:1", "app:2")
    assert [row[:3] for row in shell.lines("images")[1:]] == [["<none>", "<none>", one.config_digest[7:19]]]
    with pytest.raises(UsageError):
        shell("untag", f"app@{one.descriptor['digest']}")


def test_no_more_versions_are_remembered_than_said(shell: Shell) -> None:
    made = [make_image(layer_tar({"file": str(number)})).descriptor["digest"] for number in range(REMEMBERED + 5)]
    with Store.open(str(shell.directory / "store")) as store:
        for digest in made:
            store.images.tag("a", digest, digest)
        assert [each.number for each in store.images.versions.of("a")] == list(range(REMEMBERED + 5, 5, -1))


def test_the_same_image_again_is_no_new_version(shell: Shell) -> None:
    load(shell, "1")
    load(shell, "2")
    load(shell, "2")
    assert [row[0] for row in versions(shell)] == [2, 1]
    load(shell, "1")
    assert [(row[0], row[2]) for row in versions(shell)] == [(3, "current"), (2, "kept"), (1, "kept")]
    shell("rollback", "app:1")
    assert versions(shell)[1][2] == "current"
