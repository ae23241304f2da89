"""Many processes on one store: each step is run once, locks are given in turn, a dead holder holds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cache.locks import Locks
from tests.conftest import PROJECT, Pybuild, require
from tests.e2e.test_build import names
from tests.e2e.test_failures import assert_error
from tests.e2e.test_sharing import finish, start


def test_every_vertex_is_built_once(pybuild: Pybuild, based: list[str]) -> None:
    stages = "".join(
        f"FROM base AS s{n}\nRUN sleep 0.{n}; cat /proc/sys/kernel/random/uuid > /u{n}\n" for n in range(1, 4)
    )
    copies = "".join(f"COPY --from=s{n} /u{n} /\n" for n in range(1, 4))
    pybuild.write(Dockerfile=f"{stages}FROM base\n{copies}RUN cat /u1 /u2 /u3 > /all\n")
    shown = finish([start(pybuild, *based, "-t", f"x{number}", ".") for number in range(5)])
    ran = [line for text in shown for line in text.splitlines() if " DONE " in line]
    assert len(ran) == 7  # three RUN, three COPY and the last RUN, whoever ran them
    assert sum("waiting for another build of the same step" in text for text in shown) >= 1
    found = {pybuild.ok("run", "--rm", f"x{number}", "cat", "/all").stdout for number in range(5)}
    assert len(found) == 1


def test_steps_that_take_two_cache_mounts_in_either_order_do_not_wait_for_each_other(
    pybuild: Pybuild, based: list[str]
) -> None:
    mounts = [f"--mount=type=cache,id={name},target=/{name},sharing=locked" for name in "ab"]
    for number, order in enumerate((mounts, mounts[::-1])):
        runs = "".join(f"RUN {' '.join(order)} echo {turn}-{number} >> /a/log; sleep 0.1\n" for turn in range(4))
        pybuild.write(**{f"D{number}": f"FROM base\n{runs}RUN {mounts[0]} cp /a/log /log\n"})
    finish([start(pybuild, *based, "-f", f"D{number}", "-t", f"x{number}", ".") for number in (0, 1)])
    logs = [pybuild.ok("run", "--rm", f"x{number}", "cat", "/log").stdout.split() for number in (0, 1)]
    assert len(max(logs, key=len)) == 8


def test_one_step_may_mount_a_cache_twice(pybuild: Pybuild, based: list[str]) -> None:
    one = "--mount=type=cache,id=same,target=/{},sharing={}"
    for number, modes in enumerate((("locked", "locked"), ("shared", "locked"), ("private", "private"))):
        words = " ".join(one.format(target, mode) for target, mode in zip("ab", modes, strict=True))
        pybuild.write(**{f"D{number}": f"FROM base\nRUN {words} echo {number} > /a/f && cp /b/f /copy\n"})
        pybuild.ok("build", *based, "-f", f"D{number}", "-t", f"x{number}", ".")
        assert pybuild.ok("run", "--rm", f"x{number}", "cat", "/copy").stdout == f"{number}\n"


def test_who_waits_for_a_cache_mount_is_told_and_a_killed_holder_lets_go(pybuild: Pybuild, based: list[str]) -> None:
    mount = "--mount=type=cache,id=busy,target=/c,sharing=locked"
    pybuild.write(
        long=f"FROM base\nRUN {mount} touch /c/begun; sleep 600\n", short=f"FROM base\nRUN {mount} ls /c > /l\n"
    )
    holder = start(pybuild, *based, "-f", "long", ".")
    begun = time.monotonic()
    while not list(pybuild.root.glob("cache-mounts/*/0/begun")):
        assert time.monotonic() < begun + 60
        time.sleep(0.05)
    waiter = start(pybuild, *based, "-f", "short", "-t", "x", ".")
    assert waiter.stderr is not None
    for line in waiter.stderr:
        if 'waiting for another step that uses the cache mount "/busy"' in line:
            break
    assert waiter.poll() is None
    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=30)
    _, stderr = waiter.communicate(timeout=60)
    assert waiter.returncode == 0, stderr
    assert pybuild.ok("run", "--rm", "x", "cat", "/l").stdout == "begun\n"


SHARER = """
import sys, time
from cache.locks import Locks
locks = Locks(sys.argv[1])
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    with locks.fair("mount", alone=False):
        time.sleep(0.05)
"""


def test_who_wants_a_lock_alone_is_not_overtaken_by_sharers_without_end(tmp_path: Path) -> None:
    os.makedirs(tmp_path / "run/locks")
    words = [sys.executable, "-c", SHARER, str(tmp_path), "6"]
    sharers = [subprocess.Popen(words, cwd=PROJECT) for _ in range(4)]
    time.sleep(1)
    began = time.monotonic()
    with Locks(str(tmp_path)).fair("mount", alone=True):
        waited = time.monotonic() - began
        assert sharers[0].poll() is None
    assert [process.wait() for process in sharers] == [0] * 4
    assert waited < 3


def test_those_who_want_a_lock_alone_get_it_in_turn(tmp_path: Path) -> None:
    os.makedirs(tmp_path / "run/locks")
    order: list[int] = []

    def take(number: int) -> None:
        with Locks(str(tmp_path)).fair("mount", alone=True):
            order.append(number)
            time.sleep(0.02)

    with Locks(str(tmp_path)).fair("mount", alone=True):
        threads = [threading.Thread(target=take, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
            time.sleep(0.1)
    for thread in threads:
        thread.join()
    assert sorted(order) == list(range(6))
    assert all(abs(order.index(number) - number) <= 2 for number in range(6)), order


@contextmanager
def read_only(path: Path) -> Iterator[Path]:
    """`path` once more, where nothing can be written."""
    require(os.geteuid() == 0, "mounting needs root")
    place = path.parent / "read-only"
    place.mkdir()
    subprocess.run(["mount", "--bind", path, place], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_read_only_store_serves_what_it_has(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN echo hello > /hello\n", other="FROM base\nRUN echo other\n", f="f")
    first = pybuild.ok("build", *based, "-t", "x", ".").stdout
    before = sorted((str(path), path.lstat().st_mtime_ns) for path in pybuild.root.rglob("*"))
    with read_only(pybuild.root) as root:
        there = Pybuild(root, pybuild.cwd)
        again = there.ok("build", *based, "-t", "x", ".")
        assert (names(again, "DONE"), again.stdout) == ([], first)
        assert there.ok("run", "--rm", "x", "sh", "-c", "echo more >> /hello; cat /hello").stdout == "hello\nmore\n"
        assert there.ok("images", "-q").stdout.strip() in first
        assert "Total:" in there.ok("du").stdout
        assert there.ok("store", "check").returncode == 0
        there.ok("build", *based, "-o", f"type=tar,dest={pybuild.cwd.parent}/x.tar", ".")
        assert_error(there("build", *based, "-f", "other", "."), 1, "read-only", "hint: ")
        assert_error(there("run", "x", "true"), 125, "read-only", "--rm")
        assert_error(there("rmi", "x"), 1, "readonly", "PYBUILD_ROOT")
        assert_error(there("prune", "-f"), 1, "read-only", "PYBUILD_ROOT")
    assert sorted((str(path), path.lstat().st_mtime_ns) for path in pybuild.root.rglob("*")) == before


KILLED = """
import os, sys
from cache.store import Store
store = Store.open(sys.argv[1])
store.memo.put("key", b"value")
os.kill(os.getpid(), 9)
"""


def test_a_read_only_store_whose_last_user_was_killed_still_serves(pybuild: Pybuild, based: list[str]) -> None:
    """Its journal cannot be replayed, only read."""
    pybuild.write(Dockerfile="FROM base\nRUN echo hello > /hello\n")
    pybuild.ok("build", *based, "-t", "x", ".")
    subprocess.run([sys.executable, "-c", KILLED, pybuild.root], cwd=PROJECT, check=False)
    assert (pybuild.root / "index.db-wal").stat().st_size > 0
    with read_only(pybuild.root) as root:
        assert Pybuild(root, pybuild.cwd).ok("run", "--rm", "x", "cat", "/hello").stdout == "hello\n"


def test_a_full_disk_serves_what_is_there_and_can_be_pruned(pybuild: Pybuild, based: list[str], tmp_path: Path) -> None:
    require(os.geteuid() == 0, "mounting needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=90m", "tmpfs", disk], check=True)
    try:
        small = Pybuild(disk / "store", pybuild.cwd)
        pybuild.write(
            Dockerfile="FROM base\nRUN head -c 3000000 /dev/urandom > /a\n", other="FROM base\nRUN echo > /b\n"
        )
        small.ok("build", *based, "-t", "x", ".")
        with open(disk / "filler", "wb", buffering=0) as file, pytest.raises(OSError, match="space"):
            while True:
                file.write(bytes(1 << 20))
        assert not names(small.ok("build", *based, "-t", "x", "."), "DONE")
        assert small.ok("run", "--rm", "x", "wc", "-c", "/a").stdout.startswith("3000000")
        small.ok("rmi", "x")
        before = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        small.ok("prune", "-f")
        assert os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize >= before + 3_000_000
        small.ok("build", *based, "-f", "other", "-t", "y", ".")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
