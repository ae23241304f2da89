"""A real store, and steps that write through a real overlay mount (needs root and overlayfs)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from layertools import overlay

from cache.snapshots import EMPTY, Snapshot
from cache.store import Store

Step = Callable[[Path], object]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture
def build(store: Store, tmp_path: Path) -> Callable[..., Snapshot]:
    """Run a step on a snapshot, through overlayfs, and commit it."""

    def build_step(step: Step, parent: Snapshot = EMPTY) -> Snapshot:
        active = store.snapshots.prepare(parent)
        lower_dirs = store.snapshots.lower_dirs(parent)
        with overlay(tmp_path / "mnt", lower_dirs, active.upper_dir, active.work_dir) as root:
            step(root)
        return store.snapshots.commit(active)

    return build_step


@pytest.fixture
def view(store: Store, tmp_path: Path) -> Callable[[Snapshot], contextlib.AbstractContextManager[Path]]:
    """Mount a snapshot and look at it."""

    def mounted(snapshot: Snapshot) -> contextlib.AbstractContextManager[Path]:
        return overlay(tmp_path / "view", store.snapshots.lower_dirs(snapshot))

    return mounted
