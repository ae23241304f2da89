"""Cache mounts on their way to other machines: with a cache, and as tars."""

from __future__ import annotations

import json
import random
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cache.mountparts import parts_of
from tests.conftest import Pybuild
from tests.e2e.cachetools import Layout, machine, messages, ran
from tests.faultproxy import FaultProxy

STEP = "RUN --mount=type=cache,id=things,target=/c {command}\n"


@pytest.fixture
def cache(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "cache")


def words(based: list[str], *more: str) -> list[str]:
    return ["build", "--progress", "json", *based, *more, "."]


def mount_dir(pybuild: Pybuild) -> Path:
    (found,) = (pybuild.root / "cache-mounts").glob("*/0")
    return found


def fill(directory: Path, count: int = 3000, seed: int = 1) -> None:
    """Files as a package manager leaves them, in directories."""
    rng = random.Random(seed)
    for number in range(count):
        path = directory / f"{number % 37:02}" / f"file{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(rng.randbytes(rng.randrange(6000)))


def tree(directory: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(directory)): (path.lstat().st_mode, path.lstat().st_uid, int(path.lstat().st_mtime))
        + ((path.read_bytes(),) if path.is_file() and not path.is_symlink() else ())
        for path in directory.rglob("*")
        if not path.is_dir()
    }


def prepared(pybuild: Pybuild, based: list[str], cache: Layout) -> str:
    """A machine with a cache mount that it has given away; the --cache-to."""
    pybuild.write(Dockerfile="FROM base\n" + STEP.format(command="echo first > /c/first; ln -s first /c/link"))
    pybuild.ok(*words(based, "-o", "type=cacheonly"))
    fill(mount_dir(pybuild))
    target = f"type=local,dest={cache.directory},mode=max,mounts=true"
    pybuild.ok(*words(based, "-o", "type=cacheonly", "--cache-to", target))
    return target


def test_an_empty_machine_gets_the_mount_when_a_step_uses_it(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    prepared(pybuild, based, cache)
    other, source = machine(pybuild, "other"), f"type=local,src={cache.directory},mounts=true"
    done = other.ok(*words(based, "-o", "type=cacheonly", "--cache-from", source))
    assert ran(done) == [] and not list((other.root).glob("cache-mounts/*/0"))
    pybuild.write(Dockerfile="FROM base\n" + STEP.format(command="cat /c/link; ls /c/00 | wc -l > /seen"))
    done = other.ok(*words(based, "-t", "x", "--cache-from", source))
    assert 'importing cache mount "/things"' in messages(done)
    assert other.ok("run", "--rm", "x", "cat", "/seen").stdout.strip() == "82"
    assert tree(mount_dir(other)) == tree(mount_dir(pybuild))
    assert other.ok("store", "check").returncode == 0


def test_without_the_option_nothing_travels(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    prepared(pybuild, based, cache)
    pybuild.write(Dockerfile="FROM base\n" + STEP.format(command="ls /c > /seen"))
    other = machine(pybuild, "other")
    other.ok(*words(based, "-t", "x", "--cache-from", f"type=local,src={cache.directory}"))
    assert other.ok("run", "--rm", "x", "cat", "/seen").stdout == ""
    other.ok(*words(based, "--cache-to", f"type=local,dest={cache.directory},mode=max"))
    assert cache.config["mounts"] == []


def test_only_parts_that_changed_are_sent(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    target = prepared(pybuild, based, cache)
    before = {part["digest"]: part["size"] for part in cache.config["mounts"][0]["parts"]}
    assert len(before) >= 4
    directory = mount_dir(pybuild)
    (directory / "20/new").write_text("new")
    (directory / "11/file11").unlink()
    pybuild.ok(*words(based, "-o", "type=cacheonly", "--cache-to", target))
    after = {part["digest"]: part["size"] for part in cache.config["mounts"][0]["parts"]}
    assert 1 <= len(after.keys() - before.keys()) <= 4
    assert sum(after[digest] for digest in after.keys() - before.keys()) < sum(after.values())
    other = machine(pybuild, "other")
    pybuild.write(Dockerfile="FROM base\n" + STEP.format(command="true"))
    other.ok(*words(based, "-o", "type=cacheonly", "--cache-from", f"type=local,src={cache.directory},mounts=true"))
    assert tree(mount_dir(other)) == tree(directory)


def test_exported_parts_stay_in_no_store(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    prepared(pybuild, based, cache)
    parts = {part["digest"] for part in cache.config["mounts"][0]["parts"]}
    held = {f"sha256:{path.name}" for path in (pybuild.root / "blobs/sha256").iterdir()}
    assert not parts & held


def test_a_mount_that_a_machine_has_not_got_is_passed_on(
    pybuild: Pybuild, based: list[str], cache: Layout, tmp_path: Path
) -> None:
    prepared(pybuild, based, cache)
    copy, relay = Layout(tmp_path / "copy"), machine(pybuild, "relay")
    source = f"type=local,src={cache.directory},mounts=true"
    done = relay.ok(
        *words(based, "-o", "type=cacheonly", "--cache-from", source),
        *("--cache-to", f"type=local,dest={copy.directory},mode=max,mounts=true"),
    )
    assert ran(done) == [] and not list((relay.root).glob("cache-mounts/*/0"))
    assert copy.config["mounts"] == cache.config["mounts"]
    assert all(copy.path(part["digest"]).exists() for part in copy.config["mounts"][0]["parts"])


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_mount_that_cannot_be_had_starts_empty(
    pybuild: Pybuild, based: list[str], cache: Layout, damage: str
) -> None:
    prepared(pybuild, based, cache)
    path = cache.path(cache.config["mounts"][0]["parts"][-1]["digest"])
    raw = path.read_bytes()
    path.unlink()
    if damage == "changed":
        path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    pybuild.write(Dockerfile="FROM base\n" + STEP.format(command="ls -A /c > /seen"))
    other = machine(pybuild, "other")
    done = other.ok(*words(based, "-t", "x", "--cache-from", f"type=local,src={cache.directory},mounts=true"))
    assert "it starts empty" in messages(done)
    assert other.ok("run", "--rm", "x", "cat", "/seen").stdout == ""


def test_mounts_of_a_cache_that_is_not_trusted_are_refused(pybuild: Pybuild, based: list[str], cache: Layout) -> None:
    source = f"type=local,src={cache.directory},mounts=true,trust=read-only"
    done = pybuild(*words(based, "--cache-from", source))
    assert done.returncode == 2 and "mounts=true needs trust=full" in done.stderr


def test_parts_are_small_and_make_the_whole(tmp_path: Path) -> None:
    fill(tmp_path)
    parts = list(parts_of(str(tmp_path)))
    paths = [change.path for part in parts for change in part]
    assert paths == sorted(paths, key=lambda path: path.encode()) and len(paths) == len(set(paths))
    assert {path.lstrip("/") for path in paths} == {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert max(sum(change.stat.st_size for change in part if change.stat) for part in parts) < 40 << 20


@pytest.mark.parametrize(("count", "largest"), [(4000, 3000), (400, 200_000), (60, 2_000_000)])
def test_a_change_costs_what_is_near_it(tmp_path: Path, count: int, largest: int) -> None:
    """However large files are, one that changed takes about as much with it as it is large."""
    rng = random.Random(2)
    for _ in range(count):
        (tmp_path / f"{rng.getrandbits(40):x}").write_bytes(b"x" * rng.randrange(largest))
    sizes = [sum(1024 + change.stat.st_size for change in part if change.stat) for part in parts_of(str(tmp_path))]
    assert sum(size * size for size in sizes) / sum(sizes) < (6 << 20)  # what a random byte's part has on average


def test_a_registry_is_sent_what_changed_only(
    pybuild: Pybuild, based: list[str], proxy: FaultProxy, tmp_path: Path
) -> None:
    pybuild.write(Dockerfile="FROM base\n" + STEP.format(command="true"))
    pybuild.ok(*words(based, "-o", "type=cacheonly"))
    directory = mount_dir(pybuild)
    for number in range(60):
        (directory / f"archive{number:02}").write_bytes(random.Random(number).randbytes(300_000))
    target = f"type=registry,ref={proxy.name('mounts')},mode=max,mounts=true"
    pybuild.ok(*words(based, "-o", "type=cacheonly", "--cache-to", target))
    assert proxy.sent() > 60 * 300_000
    proxy.forget()
    pybuild.ok(*words(based, "-o", "type=cacheonly", "--cache-to", target))
    assert proxy.sent() == 0
    (directory / "archive30").write_bytes(b"other")
    pybuild.ok(*words(based, "-o", "type=cacheonly", "--cache-to", target))
    assert 0 < proxy.sent() < 60 * 300_000 / 3


# The command


def test_list_export_import_clear(pybuild: Pybuild, based: list[str], tmp_path: Path) -> None:
    pybuild.write(Dockerfile="FROM base\n" + STEP.format(command="mkdir /c/d; echo x > /c/d/x; ln -s x /c/d/y"))
    pybuild.ok(*words(based))
    assert "/things" in pybuild.ok("cache", "mounts", "list").stdout
    (entry,) = [
        json.loads(line) for line in pybuild.ok("cache", "mounts", "ls", "--format", "json").stdout.split("\n") if line
    ]
    assert entry["ID"] == "/things" and entry["Size"] > 0
    tar = tmp_path / "things.tar"
    pybuild.ok("cache", "mounts", "export", "things", "-o", str(tar))
    with tarfile.open(tar) as archive:
        assert archive.getnames() == ["d", "d/x", "d/y"]
    other = machine(pybuild, "other")
    for _ in range(2):  # the second time it is replaced
        other.ok("cache", "mounts", "import", "things", "-i", str(tar))
        assert tree(mount_dir(other)) == tree(mount_dir(pybuild))
    pybuild.write(Dockerfile="FROM base\n" + STEP.format(command="cat /c/d/y > /seen"))
    other.ok(*words(based, "-t", "x"))
    assert other.ok("run", "--rm", "x", "cat", "/seen").stdout == "x\n"
    assert other.ok("cache", "mounts", "clear", "things").stdout == "/things\n"
    assert other.ok("cache", "mounts", "list", "--format", "json").stdout == ""
    assert other("cache", "mounts", "clear", "things").returncode == 1
    assert other("cache", "mounts", "clear").returncode == 2
    assert other("cache", "mounts", "export", "nothing").returncode == 1


def test_an_import_keeps_the_owner_that_the_steps_count_on(pybuild: Pybuild, based: list[str], tmp_path: Path) -> None:
    mount = "--mount=type=cache,id=own,uid=7,gid=8,mode=0750,target=/c"
    pybuild.write(Dockerfile=f"FROM base\nRUN {mount} echo x > /c/x\n")
    pybuild.ok(*words(based))
    tar = str(tmp_path / "own.tar")
    pybuild.ok("cache", "mounts", "export", "own 0750 7:8", "-o", tar)
    pybuild.ok("cache", "mounts", "import", "own 0750 7:8", "-i", tar)
    status = mount_dir(pybuild).stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o750, 7, 8)
    assert pybuild("cache", "mounts", "import", "", "-i", tar).returncode == 2


def test_a_hostile_tar_is_no_way_out(pybuild: Pybuild, tmp_path: Path) -> None:
    from cache import tarwriter

    entry = tarwriter.TarEntry(b"../../../out", tarwriter.REGULAR, 0o644, 0, 0, 0, 0)
    (tmp_path / "evil.tar").write_bytes(tarwriter.encode(entry) + tarwriter.END)
    done = pybuild("cache", "mounts", "import", "x", "-i", str(tmp_path / "evil.tar"))
    assert done.returncode == 1 and "out" in done.stderr
    assert not list(pybuild.root.glob("cache-mounts/*/*")) and not list(pybuild.root.rglob("out"))


def test_a_broken_tar_costs_nothing_that_was_there(pybuild: Pybuild, based: list[str], tmp_path: Path) -> None:
    pybuild.write(Dockerfile="FROM base\n" + STEP.format(command="echo x > /c/x"))
    pybuild.ok(*words(based))
    (tmp_path / "broken.tar").write_bytes(b"no tar" * 1000)
    assert pybuild("cache", "mounts", "import", "things", "-i", str(tmp_path / "broken.tar")).returncode == 1
    assert (mount_dir(pybuild) / "x").read_text() == "x\n"
