"""Steps through overlayfs become layers; layers become directories again."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from layertools import overlay, tree

from cache.descriptor import MEDIA_LAYER_TAR, Descriptor
from cache.digest import Digest, sha256_bytes
from cache.errors import CacheError, LayerError, LayerLostError
from cache.snapshots import EMPTY, EMPTY_LAYER, Snapshot, chain_id
from cache.store import Store


def names(store: Store, snapshot: Snapshot) -> list[str]:
    """The names in the tar of the top layer, in order."""
    content = b"".join(store.layers.tar_stream(snapshot.layers[-1]))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return [member.name for member in archive]


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_step_becomes_a_layer_with_its_parents_but_without_the_root(store, build):
    snapshot = build(lambda root: write(root / "a/b/c"))
    assert names(store, snapshot) == ["a", "a/b", "a/b/c"]
    layer = snapshot.layers[0]
    assert snapshot.chain_id == layer.diff_id
    assert layer.entries == 3
    assert layer.size == 5 * 512 + 512


def test_chain_ids_follow_the_image_specification(store, build):
    first = build(lambda root: write(root / "a"))
    second = build(lambda root: write(root / "b"), first)
    assert second.chain_id == sha256_bytes(f"{first.chain_id} {second.layers[1].diff_id}".encode())
    assert second.layers[0] == first.layers[0]


def test_a_step_without_changes_is_an_empty_layer_that_is_not_mounted(store, build):
    first = build(lambda root: write(root / "a"))
    second = build(lambda root: None, first)
    assert second.layers[1].diff_id == EMPTY_LAYER
    assert second.layers[1].entries == 0
    assert store.snapshots.lower_dirs(second) == store.snapshots.lower_dirs(first)
    assert second.content_digest == first.content_digest
    assert build(lambda root: None).content_digest == EMPTY.content_digest == ""


def test_a_layer_that_comes_twice_is_mounted_once(store, build, view):
    first = build(lambda root: write(root / "a", "1"))
    second = build(lambda root: (root / "a").unlink(), first)
    third = store.snapshots.stack(second, first.layers[0])
    assert len(third.layers) == 3
    assert len(store.snapshots.lower_dirs(third)) == 2
    with view(third) as root:
        assert (root / "a").read_text() == "1"


def test_deletions_are_whiteouts_and_only_of_what_was_there(store, build):
    def first_step(root: Path) -> None:
        write(root / "d/e/f")
        write(root / "d/1")

    def second_step(root: Path) -> None:
        shutil.rmtree(root / "d/e")
        write(root / "new").unlink()

    first = build(first_step)
    assert names(store, build(second_step, first)) == ["d", "d/.wh.e"]


def test_a_directory_made_again_lists_its_old_members_as_deleted(store, build):
    def first_step(root: Path) -> None:
        write(root / "o/1")
        write(root / "o/sub/2")
        write(root / "o/same/3")

    def second_step(root: Path) -> None:
        shutil.rmtree(root / "o")
        (root / "o").mkdir()
        (root / "o/sub").mkdir()
        write(root / "o/new")

    second = build(second_step, build(first_step))
    assert names(store, second) == ["o", "o/.wh.1", "o/.wh.same", "o/new", "o/sub", "o/sub/.wh.2"]
    with overlay(Path(store.root) / "look", store.snapshots.lower_dirs(second)) as root:
        assert sorted(tree(root)) == ["o", "o/new", "o/sub"]


def test_paths_that_change_their_type_are_just_new(store, build):
    def first_step(root: Path) -> None:
        write(root / "d2f/x")
        write(root / "d2l/y")
        write(root / "f2d")
        (root / "l2d").symlink_to("d2l")

    def second_step(root: Path) -> None:
        shutil.rmtree(root / "d2f")
        write(root / "d2f")
        (root / "f2d").unlink()
        write(root / "f2d/in")
        (root / "l2d").unlink()
        (root / "l2d").mkdir()
        shutil.rmtree(root / "d2l")
        (root / "d2l").symlink_to("f2d")

    second = build(second_step, build(first_step))
    assert names(store, second) == ["d2f", "d2l", "f2d", "f2d/in", "l2d"]
    with overlay(Path(store.root) / "look", store.snapshots.lower_dirs(second)) as root:
        assert sorted(tree(root)) == ["d2f", "d2l", "f2d", "f2d/in", "l2d"]


def test_a_touched_directory_is_no_change_but_one_above_a_change_is_listed(store, build):
    def first_step(root: Path) -> None:
        for name in ("d/a", "d/b", "e/f", "g/h"):
            write(root / name)

    def second_step(root: Path) -> None:
        os.utime(root / "d", (10**9, 10**9))
        os.chmod(root / "g", 0o750)
        os.chown(root / "e/f", 5, 6)

    assert names(store, build(second_step, build(first_step))) == ["e", "e/f", "g"]


def test_a_file_that_was_copied_up_and_set_back_is_no_change(store, build):
    def touch(root: Path) -> None:
        os.utime(root / "d/c", (10**9, 10**9))

    first = build(lambda root: write(root / "d/c"))
    second = build(touch, first)
    assert names(store, second) == ["d", "d/c"]
    third = build(touch, second)
    assert third.layers[-1].diff_id == EMPTY_LAYER


def test_equal_times_do_not_hide_a_changed_content(store, build):
    def step(text: str) -> Callable[[Path], None]:
        def change(root: Path) -> None:
            write(root / "f", text)
            os.utime(root / "f", ns=(123456789, 123456789))

        return change

    second = build(step("b"), build(step("a")))
    assert names(store, second) == ["f"]


def test_hard_links_of_one_step_stay_hard_links(store, build, view):
    def step(root: Path) -> None:
        write(root / "h/b")
        os.link(root / "h/b", root / "h/a")
        os.symlink("a", root / "h/s")
        os.link(root / "h/s", root / "h/t", follow_symlinks=False)

    snapshot = build(step)
    content = b"".join(store.layers.tar_stream(snapshot.layers[-1]))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        links = {member.name: member.linkname for member in archive if member.islnk()}
    assert links == {"h/b": "h/a", "h/t": "h/s"}


def test_special_files_and_large_numbers_survive_unpacking(store, build, tmp_path):
    def step(root: Path) -> None:
        os.mknod(root / "c", stat.S_IFCHR | 0o640, os.makedev(1, 3))
        os.mknod(root / "b", stat.S_IFBLK | 0o600, os.makedev(7, 1))
        os.mkfifo(root / "p", 0o622)
        os.chown(write(root / "big"), 3_000_000_000, 4_000_000)
        os.utime(root / "big", (2**34, 2**34))
        os.utime(write(root / "old"), (-5, -5))
        os.chmod(write(root / "setuid"), 0o4755)
        long = "n" * 255
        write(root / "l" / ("d" * 120) / ("e" * 120) / long)
        (root / "link").symlink_to("t" * 300)
        os.mkdir(os.fsencode(root) + b"/odd\xff\xc3\xa9")
        tool = write(root / "tool")
        os.setxattr(tool, "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
        os.setxattr(tool, "user.note", b"no")

    snapshot = build(step)
    with overlay(tmp_path / "one", store.snapshots.lower_dirs(snapshot)) as root:
        expected = tree(root)
    other = import_tar(store, b"".join(store.layers.tar_stream(snapshot.layers[0])), twin=tmp_path / "twin")
    with overlay(tmp_path / "two", other) as root:
        assert tree(root) == expected


def import_tar(store: Store, content: bytes, twin: Path) -> tuple[str, ...]:
    """Unpack a tar in a store of its own; its lower directories."""
    with Store.open(str(twin)) as fresh:
        digest, size = fresh.blobs.put([content])
        snapshot = fresh.snapshots.add_layer_blob(EMPTY, digest, Descriptor(MEDIA_LAYER_TAR, digest, size))
        return fresh.snapshots.lower_dirs(snapshot)


def test_the_same_result_is_kept_once(store, build):
    def step(root: Path) -> None:
        write(root / "a")
        for path in (root / "a", root):
            os.utime(path, (1, 1))

    first, second = build(step), build(step)
    assert first == second
    assert len([name for name in os.listdir(os.path.join(store.root, "snapshots")) if name.isdecimal()]) == 1
    base = build(lambda root: write(root / "base"))
    assert build(step, base).layers[1] == first.layers[0]


def test_content_digests_ignore_times_and_nothing_else(build):
    def step(seconds: int, mode: int = 0o644) -> Callable[[Path], None]:
        def make(root: Path) -> None:
            os.chmod(write(root / "a"), mode)
            os.utime(root / "a", (seconds, seconds))

        return make

    assert build(step(1)).content_digest == build(step(2**34)).content_digest
    assert build(step(1)).chain_id != build(step(2)).chain_id
    assert build(step(1)).content_digest != build(step(1, 0o600)).content_digest


def test_a_layer_of_nothing_can_be_stacked_on_any_base(store, build, view):
    """New directories are opaque in an upper directory; as a layer they must not hide what another base has there."""
    base = build(lambda root: write(root / "usr/bin/old"))
    added = build(lambda root: write(root / "usr/bin/new"))
    with view(store.snapshots.stack(base, added.layers[0])) as root:
        assert sorted(os.listdir(root / "usr/bin")) == ["new", "old"]


def test_sockets_are_left_out(store, build):
    import socket

    def step(root: Path) -> None:
        os.chdir(root)
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind("socket")
        finally:
            os.chdir("/")

    assert build(step).layers[0].diff_id == EMPTY_LAYER


def test_a_name_that_would_mean_a_deletion_is_refused(store, build):
    with pytest.raises(LayerError, match=r"/a/\.wh\.b") as caught:
        build(lambda root: write(root / "a/.wh.b"))
    assert caught.value.hint


def test_what_cannot_be_discarded_is_swept_later(store, monkeypatch):
    active = store.snapshots.prepare(EMPTY)
    write(Path(active.upper_dir) / "f")

    def refuse(path: str) -> None:
        raise OSError(16, "device or resource busy", path)

    monkeypatch.setattr("cache.trees.remove_tree", refuse)
    store.snapshots.discard(active)
    monkeypatch.undo()
    assert Path(active.upper_dir).exists()
    with Store.open(store.root) as other:
        other.snapshots.discard(other.snapshots.prepare(EMPTY))
    assert not Path(active.upper_dir).exists()


def test_discarded_snapshots_leave_nothing(store):
    active = store.snapshots.prepare(EMPTY)
    write(Path(active.upper_dir) / "a")
    os.chmod(active.upper_dir, 0)
    store.snapshots.discard(active)
    store.snapshots.discard(active)
    assert os.listdir(os.path.join(store.root, "snapshots")) == ["empty"]


def test_removed_snapshots_take_their_unshared_layers_with_them(store, build):
    first = build(lambda root: write(root / "a"))
    second = build(lambda root: write(root / "b"), first)
    other = store.snapshots.stack(EMPTY, second.layers[1])
    store.snapshots.remove(second.chain_id)
    assert store.snapshots.get(second.chain_id) is None
    assert store.snapshots.lower_dirs(other)
    store.snapshots.remove(other.chain_id)
    assert {snapshot.chain_id for snapshot in store.snapshots.walk()} == {first.chain_id}


def test_a_snapshot_with_a_vanished_layer_is_not_there(store, build):
    first = build(lambda root: write(root / "a"))
    second = build(lambda root: write(root / "b"), first)
    shutil.rmtree(os.path.dirname(store.snapshots.lower_dirs(first)[0]))
    with Store.open(store.root) as later:
        assert later.snapshots.get_many([first.chain_id, second.chain_id]) == {}
        with pytest.raises(LayerLostError):
            later.snapshots.lower_dirs(second)


def test_many_chains_are_found_at_once(store, build):
    snapshot, chains = EMPTY, []
    layer = build(lambda root: write(root / "a")).layers[0]
    for _ in range(1200):
        snapshot = store.snapshots.stack(snapshot, layer)
        chains.append(snapshot.chain_id)
    with Store.open(store.root) as later:
        found = later.snapshots.get_many([*chains, "sha256:" + "0" * 64])
        assert list(found) == chains
        assert found[chains[-1]] == snapshot
        assert later.snapshots.get("") == EMPTY


def test_after_a_reboot_an_intact_layer_is_checked_once_and_a_damaged_one_is_forgotten(tmp_path):
    with Store.open(str(tmp_path / "store"), boot_id="one") as store:
        good, bad = (store.snapshots.prepare(EMPTY) for _ in range(2))
        write(Path(good.upper_dir) / "good")
        write(Path(bad.upper_dir) / "bad")
        intact, damaged = store.snapshots.commit(good), store.snapshots.commit(bad)
        paths = store.snapshots.lower_dirs(damaged)
    with Store.open(str(tmp_path / "store"), boot_id="two") as store:
        write(Path(paths[0]) / "bad", "")
        assert store.snapshots.get(damaged.chain_id) == damaged
        with pytest.raises(LayerLostError) as caught:
            store.snapshots.lower_dirs(damaged)
        assert caught.value.hint
        assert store.snapshots.get(damaged.chain_id) is None
        assert not os.path.exists(paths[0])
        trees = store.snapshots.lower_dirs(intact)
    with Store.open(str(tmp_path / "store"), boot_id="three") as store:
        write(Path(trees[0]) / "good", "not looked at any more")
        assert store.snapshots.lower_dirs(intact) == trees


def test_after_a_reboot_an_imported_layer_is_unpacked_again(tmp_path, layer_tar):
    with Store.open(str(tmp_path / "store"), boot_id="one") as store:
        digest, size = store.blobs.put([layer_tar])
        snapshot = store.snapshots.add_layer_blob(EMPTY, digest, Descriptor(MEDIA_LAYER_TAR, digest, size))
        (tree_dir,) = store.snapshots.lower_dirs(snapshot)
        os.unlink(os.path.join(tree_dir, "etc/motd"))
    with Store.open(str(tmp_path / "store"), boot_id="two") as store:
        assert store.snapshots.lower_dirs(snapshot) == (tree_dir,)
        assert Path(tree_dir, "etc/motd").read_text() == "hello"


@pytest.fixture
def layer_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("etc/motd")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"hello"))
    return buffer.getvalue()


def test_an_imported_layer_is_unpacked_when_it_is_needed(store, layer_tar):
    digest, size = store.blobs.put([layer_tar])
    blob = Descriptor(MEDIA_LAYER_TAR, digest, size)
    snapshot = store.snapshots.add_layer_blob(EMPTY, digest, blob)
    assert store.snapshots.add_layer_blob(EMPTY, digest, blob) == snapshot
    assert store.snapshots.get(snapshot.chain_id) == snapshot
    assert os.listdir(os.path.join(store.root, "snapshots")) == ["empty"]
    (tree_dir,) = store.snapshots.lower_dirs(snapshot)
    assert Path(tree_dir, "etc/motd").read_text() == "hello"
    assert store.snapshots.get(snapshot.chain_id).content_digest == snapshot.content_digest


def test_an_imported_layer_must_be_the_tar_that_it_is_named_by(store, layer_tar):
    digest, size = store.blobs.put([layer_tar])
    wrong = Digest("sha256:" + "1" * 64)
    snapshot = store.snapshots.add_layer_blob(EMPTY, wrong, Descriptor(MEDIA_LAYER_TAR, digest, size))
    with pytest.raises(LayerError, match="does not match its diff_id"):
        store.snapshots.lower_dirs(snapshot)
    assert chain_id("", wrong) == snapshot.chain_id


def test_a_broken_layer_blob_is_an_error_and_leaves_no_tree(store):
    digest, size = store.blobs.put([b"x"])
    snapshot = store.snapshots.add_layer_blob(EMPTY, digest, Descriptor(MEDIA_LAYER_TAR, digest, size))
    with pytest.raises(CacheError):
        store.snapshots.lower_dirs(snapshot)
    assert not os.path.exists(os.path.join(store.root, "snapshots", str(snapshot.layers[0].layer_id), "unpacking"))


def test_an_upper_directory_has_the_owner_of_the_root_below_and_a_mode_of_its_own(store, build):
    base = build(lambda root: write(root / "a"))
    below = store.snapshots.lower_dirs(base)[0]
    os.chmod(below, 0o1777)
    os.chown(below, 5, 6)
    status = os.stat(store.snapshots.prepare(base).upper_dir)
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o755, 5, 6)


def test_directories_may_be_nested_deeply(store, build):
    def step(root: Path) -> None:
        fd = os.open(root, os.O_RDONLY)
        for _ in range(700):
            os.mkdir("d", dir_fd=fd)
            below = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        os.close(fd)

    snapshot = build(step)
    assert names(store, snapshot)[-1] == "d/" * 700 + "f"
    content = b"".join(store.layers.tar_stream(snapshot.layers[0]))
    digest, size = store.blobs.put([content])
    base = build(lambda root: write(root / "base"))
    again = store.snapshots.add_layer_blob(base, digest, Descriptor(MEDIA_LAYER_TAR, digest, size))
    assert store.snapshots.lower_dirs(again)
    second = build(lambda root: shutil.rmtree(root / "d/d/d/d"), snapshot)
    assert names(store, second) == ["d", "d/d", "d/d/d", "d/d/d/.wh.d"]
