"""Containers on disk: names, locks, and what is left of dead ones."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from builder.errors import BuildError
from builder.runner.container import Container, Containers
from cache.locks import Locks
from cache.store import Store


@pytest.fixture
def root(tmp_path: Path) -> str:
    with Store.open(str(tmp_path / "store")) as store:
        return store.root


@pytest.fixture
def containers(root: str) -> Containers:
    return Containers(root, Locks(root))


def ids(root: str) -> set[str]:
    return set(os.listdir(f"{root}/containers")) - {"names"}


def abandon(container: Container) -> None:
    """What the kernel does for a process that is killed: its locks go, its files stay."""
    os.close(container._lock_fd)


def test_a_container_is_gone_after_its_block(root: str, containers: Containers) -> None:
    with containers.create("web", is_kept=False) as container:
        container.write_config({})
        assert ids(root) == {container.id}
        assert len(container.id) == 64
        assert container.short_id == container.id[:12]
    assert ids(root) == set()
    assert os.listdir(f"{root}/containers/names") == []
    assert os.listdir(f"{root}/run/containers") == []


def test_a_container_is_gone_after_an_error(root: str, containers: Containers) -> None:
    with pytest.raises(KeyboardInterrupt), containers.create("web", is_kept=False):
        raise KeyboardInterrupt
    assert ids(root) == set()


def test_a_kept_container_stays_with_its_config_and_name(root: str, containers: Containers) -> None:
    with containers.create("web", is_kept=True) as container:
        container.write_config({"image": "app"})
    config = json.loads(Path(container.directory, "config.json").read_bytes())
    assert config == {"id": container.id, "name": "web", "kept": True, "image": "app"}
    assert os.listdir(f"{root}/run/containers") == []
    with pytest.raises(BuildError, match=f'container name "web" is in use by container {container.short_id}') as caught:
        containers.create("web", is_kept=False)
    assert container.directory in str(caught.value.hint)
    assert ids(root) == {container.id}


def test_a_name_is_free_when_its_container_was_deleted_by_hand(root: str, containers: Containers) -> None:
    with containers.create("web", is_kept=True) as container:
        pass
    os.rmdir(container.directory)
    with containers.create("web", is_kept=False) as other:
        assert ids(root) == {other.id}


@pytest.mark.parametrize("name", ["x", "-web", "a b", "../web", "a/b", "\u00e4h", "web\n"])
def test_a_malformed_name_is_refused(name: str, containers: Containers) -> None:
    with pytest.raises(BuildError, match="container name"):
        containers.create(name, is_kept=False)


def test_a_dead_process_leaves_nothing_but_kept_containers(root: str, containers: Containers) -> None:
    gone = containers.create("gone", is_kept=False)
    gone.write_config({})
    Path(gone.directory, "upper").mkdir()
    kept = containers.create("kept", is_kept=True)
    kept.write_config({})
    unfinished = containers.create("unfinished", is_kept=True)
    for container in (gone, kept, unfinished):
        abandon(container)
    with containers.create("gone", is_kept=False) as new:
        assert ids(root) == {kept.id, new.id}
        assert os.listdir(f"{root}/run/containers") == [new.id]


def test_a_running_container_is_left_alone(root: str, containers: Containers) -> None:
    with (
        containers.create("one", is_kept=False) as one,
        Containers(root, Locks(root)).create("two", is_kept=False) as two,
    ):
        assert ids(root) == {one.id, two.id}


def test_the_layer_looks_like_the_root_below_it(tmp_path: Path, containers: Containers) -> None:
    below = tmp_path / "below"
    below.mkdir()
    below.chmod(0o1751)
    os.chown(below, 7, 8)
    with containers.create("", is_kept=False) as container:
        container.make_layer([str(below)])
        status = os.stat(container.upper_dir)
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o1751, 7, 8)
        assert os.listdir(container.work_dir) == []
