"""`du` says what the disk says, `prune` gives it back, and neither harms what is in use."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import Completed, Pybuild
from tests.e2e.test_build import names
from tests.e2e.test_failures import assert_error
from tests.e2e.test_sharing import start
from tests.remotes import GitRepository, serving

BIG = "FROM base\nRUN head -c 3000000 /dev/urandom > /a\nRUN head -c 500000 /dev/urandom > /b\n"


def disk_use(path: Path) -> int:
    done = subprocess.run(["du", "-sx", "--block-size=1", str(path)], capture_output=True, check=True)
    return int(done.stdout.split()[0])


def entries(pybuild: Pybuild, *words: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in pybuild.ok("du", "--format", "json", *words).stdout.splitlines()]


def total(found: list[dict[str, object]]) -> int:
    return sum(int(str(each["Size"])) for each in found)


def test_all_kinds_add_up_to_what_the_disk_says(pybuild: Pybuild, based: list[str], tmp_path: Path) -> None:
    repository = GitRepository(tmp_path / "repository")
    repository.commit(file="from git\n")
    mount = "--mount=type=cache,target=/c,id=my-cache"
    text = f"{BIG}RUN {mount} head -c 700000 /dev/urandom > /c/x; ln /c/x /c/y\nCOPY --from=git . /git\n"
    pybuild.write(Dockerfile=text)
    with serving(tmp_path / "served") as server:
        words = [*based, "--build-context", f"git={server.smart(repository)}"]
        pybuild.ok("build", *words, "-o", "type=image,name=x", "-o", f"type=oci,dest={tmp_path}/x.tar", ".")
    pybuild.ok("run", "--name", "kept", "x", "sh", "-c", "head -c 400000 /dev/urandom > /mine")
    found = entries(pybuild)
    kinds = {str(each["Type"]): each for each in found}
    assert {"regular", "blob", "exec.cachemount", "container", "database", "source.git.checkout"} <= kinds.keys()
    said, there = total(found), disk_use(pybuild.root)
    # While du runs, the database has its journal and du itself a lease; both are gone when the disk is asked.
    assert there <= said <= there + 200_000
    assert 700_000 <= int(str(kinds["exec.cachemount"]["Size"])) < 800_000
    assert kinds["exec.cachemount"]["Description"] == "/my-cache"
    assert kinds["container"]["InUse"]
    assert str(kinds["source.git.checkout"]["Description"]).startswith("http://127.0.0.1:")
    assert "container kept" in str([each["UsedBy"] for each in found if each["Type"] == "regular"])
    assert any("head -c 3000000" in str(each["Description"]) for each in found)


def assert_accurate(pybuild: Pybuild) -> int:
    """What `du` says is what the disk says, but for what only is while it runs; what the disk says."""
    said, there = total(entries(pybuild)), disk_use(pybuild.root)
    assert there <= said <= there + 200_000
    return there


def test_sizes_are_right_after_imports_and_every_policy(pybuild: Pybuild, based: list[str], tmp_path: Path) -> None:
    mount = "RUN --mount=type=cache,id=m,target=/c"
    text = f"{BIG}{mount} head -c 900000 /dev/urandom > /c/x; ln /c/x /c/y\n"
    text += "RUN truncate -s 20M /sparse; ln /a /hard\n"
    pybuild.write(Dockerfile=f"{text}FROM scratch\nCOPY --from=0 /b /b\n", f="f")
    place = f"{tmp_path}/cache,mounts=true"
    pybuild.ok("build", *based, "--cache-to", f"type=local,mode=max,dest={place}", ".")
    other = Pybuild(tmp_path / "other", pybuild.cwd)
    words = ["build", *based, "--cache-from", f"type=local,src={place}"]
    other.ok(*words, "-o", "type=cacheonly", ".")
    lazy = assert_accurate(other)
    other.ok(*words, "-t", "x", ".")
    assert assert_accurate(other) > lazy + 400_000
    other.ok("cache", "mounts", "clear", "--all")
    pybuild.write(Dockerfile=f"{text}{mount} cp /c/x /x\n")
    other.ok(*words, "-o", f"type=oci,dest={tmp_path}/x.tar,compression=zstd,force-compression=true", ".")
    pybuild.write(Dockerfile="FROM scratch\nCOPY f /\n")
    other.ok("build", "--platform", "linux/amd64,linux/arm64", "-t", "several", ".")
    before = assert_accurate(other)
    for policy in (
        ["--keep-duration", "1h"],
        ["--filter", "type=exec.cachemount"],
        ["--min-free-space", "1"],
        ["--keep-storage", str(before - 2_000_000)],
        ["--max-used-space", str(before - 3_000_000), "--all"],
        [],
        ["--all"],
    ):
        reclaimed = other.ok("prune", "-f", "--format", "json", *policy).stdout.splitlines()
        freed = sum(json.loads(line)["Size"] for line in reclaimed)
        after = assert_accurate(other)
        assert abs(before - after - freed) < 200_000, policy
        before = after
    other.ok("rmi", "x", "several")
    other.ok("prune", "-af")
    assert assert_accurate(other) < 2_000_000
    assert other.ok("store", "check").stdout.splitlines()[-1].startswith("0 damaged")


def test_removed_image_is_given_back(pybuild: Pybuild, based: list[str], tmp_path: Path) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN echo kept > /kept\n", other=BIG)
    pybuild.ok("build", *based, "-t", "kept", ".")
    before = disk_use(pybuild.root)
    words = ["-f", "other", "-t", "gone", "-o", "type=image,name=gone", "-o", f"type=oci,dest={tmp_path}/x.tar", "."]
    pybuild.ok("build", *based, *words)
    assert disk_use(pybuild.root) > before + 6_000_000
    pybuild.ok("prune", "-f", "--filter", "type=regular")
    assert pybuild.ok("run", "--rm", "gone", "wc", "-c", "/a").stdout.startswith("3000000")
    pybuild.ok("rmi", "gone")
    done = pybuild.ok("prune", "-f")
    assert "Total reclaimed space:" in done.stdout
    assert disk_use(pybuild.root) <= before + 50_000
    assert pybuild.ok("run", "--rm", "kept", "cat", "/kept").stdout == "kept\n"
    again = pybuild.ok("build", *based, "-t", "kept", ".")
    assert not names(again, "DONE")
    assert pybuild.ok("store", "check").returncode == 0
    rebuilt = pybuild.ok("build", *based, "-f", "other", "-t", "gone", ".")
    assert len(names(rebuilt, "DONE")) >= 2


def test_everything_goes_when_nothing_is_needed(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile=BIG)
    pybuild.ok("build", *based, "-t", "x", ".")
    pybuild.ok("rmi", "x")
    pybuild.ok("prune", "-af")
    assert [each["Type"] for each in entries(pybuild)] == ["database", "other"]
    assert os.listdir(pybuild.root / "blobs/sha256") == []
    pybuild.ok("build", *based, "-t", "x", ".")


def test_images_for_several_platforms_under_one_name_stay(pybuild: Pybuild) -> None:
    pybuild.write(
        Dockerfile="FROM scratch\nARG TARGETARCH\nCOPY f-$TARGETARCH /f\n", **{"f-amd64": "1", "f-arm64": "2"}
    )
    words = ["build", "--platform", "linux/amd64,linux/arm64", "-t", "x", "."]
    pybuild.ok(*words)
    pybuild.ok("prune", "-af")
    assert len([each for each in entries(pybuild) if each["Type"] == "regular"]) == 2
    assert pybuild.ok("store", "check").stdout.splitlines()[-1].startswith("0 damaged")
    pybuild.ok("save", "x", "-o", str(pybuild.cwd.parent / "x.tar"))
    pybuild.ok("rmi", "x")
    pybuild.ok("prune", "-af")
    assert [each["Type"] for each in entries(pybuild)] == ["database", "other"]


def test_filters_and_limits(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN --mount=type=cache,target=/c,id=one true > /c/x\n", other=BIG)
    pybuild.ok("build", *based, ".", "-t", "x")
    pybuild.ok("build", *based, "-f", "other", "-o", "type=cacheonly", ".")
    assert [each["Description"] for each in entries(pybuild, "--filter", "type=exec.cachemount")] == ["/one"]
    assert {each["InUse"] for each in entries(pybuild, "--filter", "inuse")} == {True}
    assert entries(pybuild, "--filter", "until=1h") == []
    pybuild.ok("prune", "-f", "--filter", "until=1h")
    pybuild.ok("prune", "-f", "--filter", "type=exec.cachemount,id=two")
    assert len(entries(pybuild, "--filter", "type=exec.cachemount")) == 1
    pybuild.ok("prune", "-f", "--filter", "type=exec.cachemount,id=one")
    assert entries(pybuild, "--filter", "type=exec.cachemount") == []
    used = total(entries(pybuild))
    pybuild.ok("prune", "-f", "--keep-storage", f"{used - 400_000}")
    after = total(entries(pybuild))
    assert used - 1_500_000 < after <= used - 400_000
    pybuild.ok("prune", "-f", "--max-used-space", "3MB", "--reserved-space", f"{after}")
    assert total(entries(pybuild)) > after - 100_000
    gone = pybuild.ok("prune", "-f", "--min-free-space", "100%", "--format", "json").stdout
    assert len(gone.splitlines()) >= 1


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["prune", "--filter", "type=nope"], ["nope", "regular"]),
        (["prune", "--filter", "type=container"], ["container", "never pruned"]),
        (["prune", "--filter", "inuse"], ["only type, id and until"]),
        (["prune", "--max-used-space", "much"], ["--max-used-space", "much"]),
        (["prune", "--filter", "until=yesterday"], ["until", "yesterday"]),
        (["prune", "--policy", "--all"], ["--policy"]),
        (["du", "--filter", "colour=red"], ["colour=red"]),
    ],
)
def test_usage(pybuild: Pybuild, words: list[str], parts: list[str]) -> None:
    pybuild.ok("images")
    assert_error(pybuild(*words), 2, *parts)


def test_what_a_running_build_found_stays(pybuild: Pybuild, based: list[str]) -> None:
    """All of its steps but the last were found in the cache, and nothing but the build itself needs them."""
    steps = "FROM base\nRUN echo one > /one\nRUN echo two > /two\n"
    pybuild.write(Dockerfile=steps)
    pybuild.ok("build", *based, "-o", "type=cacheonly", ".")
    pybuild.write(Dockerfile=f"{steps}RUN sleep 2; cat /one /two > /both\n")
    process = start(pybuild, *based, "-t", "x", ".")
    assert process.stderr is not None
    for line in process.stderr:
        if "sleep 2" in line:
            break
    pybuild.ok("prune", "-af")
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert pybuild.ok("run", "--rm", "x", "cat", "/both").stdout == "one\ntwo\n"


def test_what_a_container_holds_stays(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN echo one > /one\n")
    pybuild.ok("build", *based, "-t", "x", ".")
    command = pybuild.argv("run", "--rm", "x", "sh", "-c", "echo begun; read line; cat /one; echo $line")
    process = subprocess.Popen(
        [*command[:4], "-i", *command[4:]],
        env=pybuild.environment(),
        cwd=pybuild.cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    pybuild.ok("rmi", "x")
    pybuild.ok("prune", "-af")
    output, _ = process.communicate("end\n", timeout=30)
    assert output == "one\nend\n"
    pybuild.ok("prune", "-af")
    assert [each for each in entries(pybuild) if each["Type"] == "regular"] == []


def build_again_and_again(pybuild: Pybuild, words: list[str], stop: threading.Event, found: list[Completed]) -> None:
    while not stop.is_set():
        found.append(pybuild("build", "-q", *words, env={"SOURCE_DATE_EPOCH": "1"}))


def test_builds_and_prunes_at_once(pybuild: Pybuild, based: list[str], tmp_path: Path) -> None:
    """Several processes build, export, run, remove and prune for some time: every image is the right one."""
    text = "FROM base AS a\nARG N\nRUN echo $N > /n\nCOPY . /all\nFROM base\nCOPY --from=a /all /n /\nRUN cat /n > /m\n"
    pybuild.write(Dockerfile=text, **{f"f{number}": "x" * 999 for number in range(20)})
    right = {}
    for number in range(3):
        other = Pybuild(tmp_path / f"cold{number}", pybuild.cwd)
        words = [*based, "--build-arg", f"N={number}", "-t", f"x{number}", "."]
        right[number] = other.ok("build", "-q", *words, env={"SOURCE_DATE_EPOCH": "1"}).stdout
    stop = threading.Event()
    built: dict[int, list[Completed]] = {number: [] for number in range(3)}
    threads = []
    for number, found in built.items():
        image = ["-o", f"type=image,name=x{number}", "-o", f"type=oci,dest={tmp_path}/x{number}.tar"]
        words = [*based, "--build-arg", f"N={number}", *image, "."]
        threads.append(threading.Thread(target=build_again_and_again, args=(pybuild, words, stop, found)))
    for thread in threads:
        thread.start()
    until = time.monotonic() + 4
    for turn in range(1000):
        pybuild("rmi", f"x{turn % 3}")
        pybuild.ok("prune", "-af")
        if turn >= 3 and time.monotonic() > until:
            break
    stop.set()
    for thread in threads:
        thread.join()
    for number, found in built.items():
        assert {done.stderr for done in found if done.returncode} == set()
        assert {done.stdout for done in found} == {right[number]}
    assert sum(map(len, built.values())) > 2
    done = pybuild("store", "check", "--format", "json")
    assert (done.returncode, "damage" in done.stdout) == (0, False), done.stdout


def test_policies_are_carried_out_after_a_build(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile=BIG)
    pybuild.ok("build", *based, "-o", "type=cacheonly", ".", env={"PYBUILD_GC": "off"})
    before = disk_use(pybuild.root)
    (pybuild.root / "config.toml").write_text('[[gc.policy]]\nall = true\nmaxUsedSpace = "1MB"\n')
    pybuild.write(Dockerfile="FROM base\nRUN echo hello > /hello\n")
    young = pybuild.ok("build", *based, "-t", "y", ".")
    assert "pruned" not in young.stderr
    os.utime(pybuild.root / "run/gc", (1, 1))
    pybuild.write(Dockerfile="FROM base\nRUN echo hello > /hi\n")
    off = pybuild.ok("build", *based, "-t", "y", ".", env={"PYBUILD_GC": "off"})
    assert "pruned" not in off.stderr
    pybuild.write(Dockerfile="FROM base\nRUN echo hello > /hi; true\n")
    done = pybuild.ok("build", *based, "-t", "x", ".")
    assert "pruned 3.5" in done.stderr or "pruned 4" in done.stderr, done.stderr
    assert disk_use(pybuild.root) < before - 3_000_000
    assert pybuild.ok("run", "--rm", "x", "cat", "/hi").stdout == "hello\n"
    pybuild.write(Dockerfile=BIG)
    soon = pybuild.ok("build", *based, "-o", "type=cacheonly", ".")
    assert "pruned" not in soon.stderr
    os.utime(pybuild.root / "run/gc", (1, 1))
    cached = pybuild.ok("build", *based, "-o", "type=cacheonly", ".")
    assert "pruned" not in cached.stderr
    assert "Total reclaimed" in pybuild.ok("prune", "-f", "--policy").stdout
    assert disk_use(pybuild.root) < before - 3_000_000


def test_a_wrong_config_does_not_fail_the_build(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN true\n")
    pybuild.ok("images")
    (pybuild.root / "config.toml").write_text("[gc]\ncolour = 1\n")
    os.utime(pybuild.root / "run/gc", (1, 1))
    done = pybuild.ok("build", *based, ".")
    assert "warning: the store was not pruned: config.toml: gc has no 'colour'" in done.stderr
    assert_error(pybuild("prune", "--policy"), 2, "colour")


def test_an_idle_collector_looks_at_one_file(pybuild: Pybuild, monkeypatch: pytest.MonkeyPatch) -> None:
    from builder import gc
    from cache.store import Store

    with Store.open(str(pybuild.root)) as store:
        gc.mark_done(store.root, time.time_ns())
        monkeypatch.setattr(gc, "settings", None)
        monkeypatch.setattr(store, "database", None)
        began = time.perf_counter()
        for _ in range(1000):
            assert gc.after_build(store, {}, time.time_ns) is None
        assert time.perf_counter() - began < 0.5
        monkeypatch.undo()
