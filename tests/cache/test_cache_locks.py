"""Locks hold between threads and between processes, and go with their holder."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cache import removal
from cache.locks import Locks
from cache.removal import remove_tree


@pytest.fixture
def locks(tmp_path: Path) -> Locks:
    for name in ("locks", "leases", "tmp"):
        (tmp_path / "run" / name).mkdir(parents=True)
    return Locks(str(tmp_path))


def test_an_exclusive_lock_is_exclusive_between_threads(locks, tmp_path):
    inside, overlaps, waited = [], [], []

    def work() -> None:
        for _ in range(50):
            with locks.exclusive("one", waited.append):
                inside.append(1)
                overlaps.append(len(inside) > 1)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(overlaps)
    assert len(overlaps) == 200
    assert set(waited) <= {"one"}
    assert os.listdir(tmp_path / "run/locks") == []


def test_a_waiter_is_told_once_and_gets_the_lock(locks):
    waiting, done = threading.Event(), threading.Event()

    def wait() -> None:
        with locks.exclusive("name", lambda name: waiting.set()):
            done.set()

    thread = threading.Thread(target=wait)
    with locks.exclusive("name"):
        thread.start()
        assert waiting.wait(10)
        assert not done.is_set()
    thread.join()
    assert done.is_set()


def test_different_names_do_not_wait_for_each_other(locks):
    with locks.exclusive("a"), locks.exclusive("b"):
        pass


def test_sharers_share_and_keep_others_out(locks):
    told = threading.Event()

    def wait() -> None:
        with locks.exclusive("name", lambda name: told.set()):
            pass

    thread = threading.Thread(target=wait)
    with locks.shared("name"), locks.shared("name"):
        thread.start()
        assert told.wait(10)
    thread.join()


def test_a_lease_lives_as_long_as_its_process(locks, tmp_path):
    lease = locks.lease()
    assert locks.lease() == lease
    (tmp_path / "run/tmp" / f"{lease}.1").write_text("mine")
    (tmp_path / "run/tmp" / "0123456789abcdef.1").write_text("nobody's")
    (tmp_path / "run/leases/0123456789abcdef").write_text("")
    locks.sweep_temporary()
    assert os.listdir(tmp_path / "run/tmp") == [f"{lease}.1"]
    assert os.listdir(tmp_path / "run/leases") == [lease]
    locks.close()
    locks.sweep_temporary()
    assert os.listdir(tmp_path / "run/tmp") == []


def test_trees_of_any_depth_and_mode_are_removed(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").write_text("x")
    top = tmp_path / "top"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d" * 20, 0o700, dir_fd=fd)
        os.symlink("/", "link", dir_fd=fd)
        below = os.open("d" * 20, os.O_RDONLY, dir_fd=fd)
        os.fchmod(fd, 0)
        os.close(fd)
        fd = below
    os.close(fd)
    (top / "l").symlink_to(tmp_path / "outside")
    remove_tree(str(top))
    remove_tree(str(top))
    assert not top.exists()
    assert (tmp_path / "outside/kept").exists()


@pytest.mark.parametrize("call", ["open", "scandir", "unlink", "rmdir"])
def test_a_tree_that_another_removes_meanwhile(tmp_path, monkeypatch, call):
    """A step that drops its directory meets a process that sweeps, which may be ahead at any moment."""
    for moment in range(8):
        top = tmp_path / f"top{moment}"
        (top / "a/b").mkdir(parents=True)
        for name in ("f", "a/f", "a/b/f"):
            (top / name).write_text("x")
        real, calls = getattr(os, call), itertools.count()

        def other_is_ahead(*args, real=real, calls=calls, top=top, moment=moment, **options):
            if next(calls) == moment:
                monkeypatch.undo()
                shutil.rmtree(top, ignore_errors=True)
                monkeypatch.setattr(removal.os, call, real)
            return real(*args, **options)

        monkeypatch.setattr(removal.os, call, other_is_ahead)
        remove_tree(str(top))
        monkeypatch.undo()
        assert not top.exists()


def test_a_tree_that_many_remove_at_once(tmp_path):
    for number in range(10):
        top = tmp_path / str(number)
        for name in range(30):
            (top / f"{name}/x/y").mkdir(parents=True)
            (top / f"{name}/x/f").write_text("x")
        with ThreadPoolExecutor(6) as pool:
            for done in [pool.submit(remove_tree, str(top)) for _ in range(6)]:
                done.result()
        assert not top.exists()
