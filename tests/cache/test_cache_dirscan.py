"""Looking at a directory: what is kept, in which order, and the same from several processes as from one."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.sandbox.cgroup import is_running
from cache import dirscan, share
from cache.dirlist import Keep
from cache.dirscan import KIND_OF_TYPE, FileEntry, scan
from cache.errors import CacheError


@pytest.fixture
def context(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    for path in ("b/c", "b.x", "a", "node/deep/file", "node/keep/it"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    (root / "link").symlink_to("b")
    (root / "gone").symlink_to("/nowhere")
    os.mkfifo(root / "pipe")
    os.mkdir(os.fsencode(root) + b"/\xff")
    return root


def test_entries_come_in_walk_order_with_their_metadata(context):
    os.chmod(context / "a", 0o4711)
    found = scan(str(context)).entries()
    assert list(found) == [
        *("a", "b", "b/c", "b.x", "gone", "link", "node"),
        *("node/deep", "node/deep/file", "node/keep", "node/keep/it", "pipe", "\udcff"),
    ]
    assert "".join(entry.kind for entry in found.values()) == "fdffllddfdfpd"
    status = os.stat(context / "a")
    assert found["a"] == FileEntry(
        "a", "f", 0o4711, 0, 0, 1, status.st_mtime_ns, status.st_ino, status.st_ctime_ns, "", 0
    )
    assert found["link"].linkname == "b"
    assert found["gone"].linkname == "/nowhere"


def test_names_are_sorted_by_their_bytes(tmp_path):
    names = [b"a", b"B", b"\xff", "é".encode(), "\U0001f600".encode(), "\uffee".encode(), b"a.b", b"a-b"]
    for name in names:
        os.mkdir(os.fsencode(tmp_path) + b"/" + name)
    assert [os.fsencode(path) for path in scan(str(tmp_path)).entries()] == sorted(names)


def test_what_is_not_kept_is_not_there_and_may_not_even_be_walked(context):
    asked: list[str] = []

    def keep(path: str, is_dir: bool) -> bool | None:
        asked.append(path)
        assert is_dir == (context / path).is_dir() or path == "link"
        if path == "b":
            return None
        if path.startswith("node"):
            return path.startswith("node/keep") and (path != "node/keep" or False)
        return path != "a"

    found = scan(str(context), keep).entries()
    assert "b/c" not in asked
    assert list(found) == ["b.x", "gone", "link", "node", "node/keep", "node/keep/it", "pipe", "\udcff"]
    assert found["node"].kind == "d"


def test_a_context_may_be_named_through_a_symlink(context, tmp_path):
    (tmp_path / "alias").symlink_to(context)
    assert scan(str(tmp_path / "alias")).entries() == scan(str(context)).entries()


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(CacheError, match="missing"):
        scan(str(tmp_path / "missing"))


def entry(root: str, path: str) -> FileEntry:
    """What the scan should say of a path, asked for alone."""
    full = f"{root}/{path}"
    status = os.lstat(full)
    kind = KIND_OF_TYPE[stat.S_IFMT(status.st_mode)]
    owner = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
    numbers = status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns
    return FileEntry(
        path, kind, *owner, *numbers, os.readlink(full) if kind == "l" else "", status.st_rdev if kind in "cb" else 0
    )


def expected(root: str, keep: Keep | None, prefix: str = "") -> Iterator[FileEntry]:
    """What the scan should find, by the words of Keep alone."""
    for name in sorted(os.listdir(f"{root}/{prefix}"), key=os.fsencode):
        path = prefix + name
        found = entry(root, path)
        verdict = True if keep is None else keep(path, found.kind == "d")
        if verdict is None or (verdict is False and found.kind != "d"):
            continue
        below = list(expected(root, keep, path + "/")) if found.kind == "d" else []
        if verdict or below:
            yield found
            yield from below


def grow(directory: Path, chance: random.Random, depth: int) -> None:
    for number in range(chance.randrange(9)):
        name = directory / chance.choice(["a{}", "é{}", "{}.b", "\udcff{}", "\U0001f600{}"]).format(number)
        kind = chance.randrange(8)
        if kind < 3 and depth:
            name.mkdir()
            grow(name, chance, depth - 1)
        elif kind == 3:
            name.symlink_to(chance.choice(["a0", "/nowhere", "."]))
        elif kind == 4:
            os.mkfifo(name)
        elif kind == 5:
            os.mknod(name, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        else:
            name.write_text("x" * number)


def kept(seed: int) -> Keep:
    """Some arbitrary judgement."""

    def keep(path: str, is_dir: bool) -> bool | None:
        return random.Random(f"{seed}{os.fsencode(path)!r}").choice([True, True, True, False, None])

    return keep


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Trees of any size are shared with as many helpers as there may be; their numbers of parts, each time."""
    shared: list[int] = []

    def counted(work: Callable[..., bytes], parts: int, helpers: int) -> list[bytes]:
        shared.append(parts)
        return original(work, parts, helpers)

    original = share.share
    monkeypatch.setattr(dirscan, "_MANY", 0)
    monkeypatch.setattr(dirscan, "_FEWEST", 2)
    monkeypatch.setattr(dirscan, "_helpers", lambda: 3)
    monkeypatch.setattr(share, "share", counted)
    yield shared


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that are started meanwhile."""
    pids: list[int] = []
    original = os.fork

    def fork() -> int:
        if pid := original():
            pids.append(pid)
        return pid

    monkeypatch.setattr(os, "fork", fork)
    return pids


def same(root: str, keep: Keep | None) -> str:
    """Scan, compare with what is expected, and give the fingerprint."""
    found = scan(root, keep)
    wanted = {entry.path: entry for entry in expected(root, keep)}
    assert found.entries() == wanted
    assert list(found.entries()) == list(wanted)
    return found.fingerprint()


@pytest.mark.parametrize("seed", range(40))
def test_any_tree_is_seen_alike_by_one_process_and_by_several(tmp_path, request, seed):
    chance = random.Random(seed)
    grow(tmp_path, chance, 4)
    root = str(tmp_path)
    alone = [same(root, keep) for keep in (None, kept(seed), kept(-seed - 1))]
    request.getfixturevalue("eager")
    assert [same(root, keep) for keep in (None, kept(seed), kept(-seed - 1))] == alone


def wide(root: Path) -> None:
    for number in range(300):
        (root / f"d{number}/deeper").mkdir(parents=True)
        (root / f"d{number}/deeper/file").write_text("x")


def test_helpers_take_parts_and_leave_no_process(tmp_path, eager, forked):
    wide(tmp_path)
    assert len(scan(str(tmp_path)).entries()) == 900
    assert eager == [share.MOST_PARTS]
    assert forked and not [pid for pid in forked if os.path.exists(f"/proc/{pid}")]


@pytest.mark.parametrize("failure", ["raise", "kill"])
def test_what_a_helper_could_not_do_is_done_here(tmp_path, eager, forked, monkeypatch, failure):
    wide(tmp_path)
    whole, here, original = scan(str(tmp_path)).entries(), os.getpid(), dirscan._see
    forked.clear()

    def see(*args: object) -> None:
        if os.getpid() != here:
            if failure == "kill":
                os.kill(os.getpid(), 9)
            raise OSError(5, "broken")
        while [pid for pid in forked if is_running(str(pid))]:
            time.sleep(0.01)  # so that each of them had a part
        original(*args)

    monkeypatch.setattr(dirscan, "_see", see)
    assert scan(str(tmp_path)).entries() == whole
    assert forked and not [pid for pid in forked if os.path.exists(f"/proc/{pid}")]


def test_it_goes_without_helpers(tmp_path, eager, monkeypatch):
    wide(tmp_path)

    def fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    assert len(scan(str(tmp_path)).entries()) == 900


def test_an_error_ends_the_helpers(tmp_path, eager, forked, monkeypatch):
    wide(tmp_path)
    here = os.getpid()

    def see(*args: object) -> None:
        if os.getpid() == here:
            raise OSError(5, "Input/output error", str(tmp_path / "d7"))
        time.sleep(600)

    monkeypatch.setattr(dirscan, "_see", see)
    with pytest.raises(CacheError, match="d7: input/output error"):
        scan(str(tmp_path))
    assert forked and not [pid for pid in forked if os.path.exists(f"/proc/{pid}")]


def test_a_process_with_threads_does_not_fork():
    program = """
import os, threading
from cache import dirscan
assert dirscan._helpers() == min(len(os.sched_getaffinity(0)), 4) - 1
over = threading.Event()
thread = threading.Thread(target=over.wait)
thread.start()
assert dirscan._helpers() == 0
over.set()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_fingerprints_tell_changes_apart(tmp_path):
    wide(tmp_path)
    names = {scan(str(tmp_path)).fingerprint()}
    for change in (
        lambda: os.utime(tmp_path / "d7/deeper/file", ns=(5, 5)),
        lambda: (tmp_path / "d8/deeper/file").rename(tmp_path / "d8/deeper/other"),
        lambda: (tmp_path / "d9/link").symlink_to("a"),
        lambda: ((tmp_path / "d9/link").unlink(), (tmp_path / "d9/link").symlink_to("b")),
        lambda: os.chmod(tmp_path / "d10", 0o700),
        lambda: (tmp_path / "d11/deeper/file").rename(tmp_path / "d12/file"),
        lambda: os.mkdir(tmp_path / "empty"),
    ):
        change()
        names.add(scan(str(tmp_path)).fingerprint())
    assert len(names) == 8


def test_nesting_has_no_limit_but_the_kernels(tmp_path):
    top = deep = str(tmp_path / "top")
    os.mkdir(top)
    while len(deep) < 3900:
        deep += "/d"
        os.mkdir(deep)
    assert len(scan(top).entries()) > 1800
    subprocess.run(["rm", "-r", top], check=True)
