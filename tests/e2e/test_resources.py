"""--resource and --cgroup-parent: what a RUN can see of its limits, and what happens when it meets one."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from builder.errors import SandboxError, UsageError
from builder.resources import parse_limits
from builder.sandbox import cgroup
from builder.sandbox.cgroup import GUARDED, Hierarchy
from builder.sandbox.limited import LimitedGroups
from builder.sandbox.limits import killed_for_memory, settings
from builder.sandbox.spec import Limits, ProcessSpec
from builder.sandbox.usage import usage
from tests.conftest import Pybuild, require
from tests.leftovers import kill_all

FILES = {
    "memory": ("memory.limit_in_bytes", "memory.max"),
    "quota": ("cpu/cpu.cfs_quota_us", "cpu.max"),
}


def has(controller: str) -> bool:
    """Whether some hierarchy of this machine keeps such limits; controllers go by their names in v1."""
    name = "io" if controller == "blkio" else controller
    for hierarchy in cgroup.find_hierarchies():
        if controller in hierarchy.controllers:
            return os.access(hierarchy.own_dir, os.W_OK)
        if hierarchy.is_v2 and name in cgroup.read(f"{hierarchy.root_dir}/cgroup.controllers").split():
            return os.access(hierarchy.root_dir, os.W_OK)
    return False


def has_swap_limit() -> bool:
    """Whether the kernel can keep a build from swap; in v2 it does, unless it was started to do otherwise."""
    found = [each for each in cgroup.find_hierarchies() if "memory" in each.controllers]
    return all(os.path.exists(f"{each.own_dir}/memory.memsw.limit_in_bytes") for each in found)


@pytest.fixture
def limiting() -> None:
    require(has("memory") and has("cpu"), "needs control groups for memory and cpu")


def leftovers() -> list[str]:
    return [
        name
        for hierarchy in cgroup.find_hierarchies()
        for directory in {hierarchy.own_dir, hierarchy.root_dir}
        for name in os.listdir(directory)
        if name.endswith("-limited") and name.split("-")[1] == str(os.getpid())
    ]


def test_limits_are_read() -> None:
    limits = parse_limits(["memory=512m,memory-swap=1g", "cpu-quota=50000", 'cpu-period=100000,"cpuset-cpus=0,2-3"'])
    assert limits == Limits(512 << 20, 1 << 30, None, 100000, 50000, "0,2-3")
    assert parse_limits(["memory=1m", "memory=2m,memory-swap=-1"]) == Limits(2 << 20, -1)


@pytest.mark.parametrize(
    "text",
    ["memory", "memory=", "memory=x", "memory=0", "ram=1g", "cpu-shares=1", "cpu-period=1", "cpu-quota=-2",
     "cpus=0", "cpus=x", "cpus=.", "cpus=", "cpus=1,cpu-quota=5000", "pids-limit=0", "pids-limit=-2", "blkio-weight=9",
     "blkio-weight=1001", "device-read-bps=1mb", "device-read-bps=/dev/null:1mb", "device-read-bps=/nowhere:1mb",
     "device-read-iops=/dev/null:",
     "cpuset-cpus=a", "cpuset-mems=0-", "memory-swap=1g", "memory=2g,memory-swap=1g"],
)  # fmt: skip
def test_malformed_limits(text: str) -> None:
    with pytest.raises(UsageError):
        parse_limits([text])


def test_settings_of_both_versions() -> None:
    limits = Limits(64 << 20, 96 << 20, 512, 50000, 20000, "0", "0")
    assert [(each.file, each.value) for each in settings(limits, is_v2=False)] == [
        ("memory.limit_in_bytes", str(64 << 20)),
        ("memory.memsw.limit_in_bytes", str(96 << 20)),
        ("cpu.shares", "512"),
        ("cpu.cfs_period_us", "50000"),
        ("cpu.cfs_quota_us", "20000"),
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
    ]
    assert [(each.file, each.value) for each in settings(limits, is_v2=True)] == [
        ("memory.max", str(64 << 20)),
        ("memory.swap.max", str(32 << 20)),
        ("cpu.weight", "20"),
        ("cpu.max", "20000 50000"),
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
    ]
    more = Limits(pids=20, io_weight=500, io_rates=(("8:0", "rbps", 1 << 20), ("8:0", "wiops", 30)))
    assert [(each.file, each.value, each.others) for each in settings(more, is_v2=False)] == [
        ("pids.max", "20", ()),
        ("blkio.weight", "500", (("blkio.bfq.weight", "500"),)),
        ("blkio.throttle.read_bps_device", "8:0 1048576", ()),
        ("blkio.throttle.write_iops_device", "8:0 30", ()),
    ]
    assert [(each.file, each.value, each.others) for each in settings(more, is_v2=True)] == [
        ("pids.max", "20", ()),
        ("io.bfq.weight", "500", (("io.weight", "default 4950"),)),
        ("io.max", "8:0 rbps=1048576", ()),
        ("io.max", "8:0 wiops=30", ()),
    ]
    assert [each.value for each in settings(Limits(pids=-1), is_v2=True)] == ["max"]
    assert [each.value for each in settings(Limits(cpu_quota=-1), is_v2=True)] == ["max 100000"]
    assert [each.value for each in settings(Limits(1 << 20, -1), is_v2=True)] == [str(1 << 20), "max"]
    assert [each.value for each in settings(Limits(1 << 20), is_v2=True)] == [str(1 << 20), str(1 << 20)]
    assert [each.value for each in settings(Limits(1 << 20), is_v2=False)] == [str(1 << 20), str(2 << 20)]


def test_a_missing_controller_is_an_error(tmp_path: Path) -> None:
    groups = LimitedGroups(os.getpid(), (Hierarchy(False, "cpu", ("cpu",), str(tmp_path), str(tmp_path)),))
    with pytest.raises(SandboxError, match="memory"):
        groups.create(1, GUARDED, ProcessSpec(("x",), limits=Limits(memory=1 << 20)))
    groups.close()
    assert os.listdir(tmp_path) == []


def test_killed_for_memory_is_read_from_either_version(tmp_path: Path) -> None:
    assert not killed_for_memory((str(tmp_path),))
    (tmp_path / "memory.events").write_text("low 0\noom 1\noom_kill 0\n")
    assert not killed_for_memory((str(tmp_path),))
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert killed_for_memory((str(tmp_path),))


def test_processors_as_a_number() -> None:
    assert parse_limits(["cpus=1.5,pids-limit=-1"]) == Limits(cpu_period=100000, cpu_quota=150000, pids=-1)
    assert parse_limits(["cpus=.5"]) == parse_limits(["cpus=0.50"]) == Limits(cpu_period=100000, cpu_quota=50000)
    assert parse_limits(["cpus=2."]) == Limits(cpu_period=100000, cpu_quota=200000)


def test_what_a_step_used_is_read_from_v2(tmp_path: Path) -> None:
    import resource

    nothing = resource.struct_rusage((0,) * 16)
    assert not usage((str(tmp_path),), nothing).is_whole_memory
    (tmp_path / "cpu.stat").write_text("usage_usec 3000000\nuser_usec 2000000\nsystem_usec 1000000\n")
    (tmp_path / "memory.peak").write_text("4096\n")
    (tmp_path / "io.stat").write_text("8:0 rbytes=1 wbytes=2 rios=1\n8:16 rbytes=10 wbytes=20\n")
    assert usage((str(tmp_path),), nothing) == (2.0, 1.0, 4096, 11, 22, True)
    # Not written back yet: in blocks of 512 bytes.
    assert usage((str(tmp_path),), resource.struct_rusage((0,) * 10 + (1,) + (0,) * 5)).written == 512


@pytest.mark.usefixtures("limiting")
def test_limits_of_processes_and_io_hold(pybuild: Pybuild, based: list[str]) -> None:
    """Of eight processes beside the shell three do not start; a file is written no faster than it may be."""
    require(has("pids") and has("blkio"), "needs control groups for processes and I/O")
    pybuild.write(Dockerfile="FROM base\nRUN for n in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait\n")
    done = pybuild("build", *based, "--pids-limit", "6", ".")
    assert done.returncode != 0
    assert "can't fork" in done.stderr
    device = os.stat(pybuild.root.parent).st_dev
    path = f"/dev/block/{os.major(device)}:{os.minor(device)}"
    disk = os.path.realpath(path) if os.path.exists(path) else _disk(device)
    require(disk is not None, "needs a disk below the store")
    pybuild.write(Dockerfile="FROM base\nRUN dd if=/dev/zero of=/f bs=1M count=4 oflag=direct 2>&1 && rm /f\n")
    began = time.monotonic()
    pybuild.ok("build", *based, "--device-write-bps", f"{disk}:2mb", ".")
    assert time.monotonic() - began > 1.5


def _disk(device: int) -> str | None:
    found = [entry.path for entry in os.scandir("/dev") if os.stat(entry.path, follow_symlinks=False).st_rdev == device]
    return found[0] if found else None


@pytest.mark.usefixtures("limiting")
def test_a_limit_of_the_build_is_for_all_steps_together(pybuild: Pybuild, based: list[str]) -> None:
    """Two stages at once that each keep 40 MiB in memory for a while: one at least is too much for 60 MiB."""
    require(has_swap_limit(), "needs a kernel that counts swap")
    stage = "FROM base AS {0}\nRUN --mount=type=tmpfs,target=/t head -c 40m /dev/zero >/t/{0} && sleep 2\n"
    copies = "FROM base\nCOPY --from=one /bin/sh /1\nCOPY --from=two /bin/sh /2\n"
    pybuild.write(Dockerfile=stage.format("one") + stage.format("two") + copies)
    words = ("build", *based, "--no-cache", "-m", "60m", "--jobs", "2", ".")
    pybuild.ok(*words)
    done = pybuild(*words, "--build-resource", "memory=60m,memory-swap=60m")
    assert done.returncode == 1
    assert "out of memory, the limit is 60 MiB, the limit of the build is 60 MiB" in done.stderr


def test_what_steps_used_is_reported(pybuild: Pybuild, based: list[str]) -> None:
    program = "head -c 40m /dev/zero | tail -c 30m | md5sum >/sum; dd if=/dev/zero of=/f bs=1M count=8 2>/dev/null"
    pybuild.write(Dockerfile=f"FROM base\nRUN {program}\nRUN true\n")
    limits = ("-m", "256m") if has("memory") else ()
    words = ("build", *based, *limits, "--progress", "json", "--metadata-file", "meta.json", ".")
    events = [json.loads(line) for line in pybuild.ok(*words).stderr.splitlines()]
    first, second = [event for event in events if event["event"] == "usage"]
    assert first["peak_memory"] > 30 << 20 > second["peak_memory"] > 0
    assert first["peak_memory_of"] == ("step" if limits else "process")
    assert first["user_seconds"] + first["system_seconds"] > 0.01
    assert first["written"] >= 8 << 20
    steps = json.loads((pybuild.cwd / "meta.json").read_text())["pybuild.steps"]
    assert [step["name"].split("] ")[1] for step in steps] == [f"RUN {program}", "RUN true"]
    assert {key: first[key] for key in steps[0] if key != "name"} == {k: v for k, v in steps[0].items() if k != "name"}
    (pybuild.cwd / "meta.json").unlink()
    pybuild.ok(*words)
    assert "pybuild.steps" not in json.loads((pybuild.cwd / "meta.json").read_text())


@pytest.mark.usefixtures("limiting")
def test_a_run_has_its_limits(pybuild: Pybuild, based: list[str]) -> None:
    show = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us"
    show += " /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max 2>/dev/null"
    pybuild.write(Dockerfile=f"FROM base\nRUN echo $({show})\n")
    done = pybuild.ok("build", *based, "--resource", "memory=64m", "--cpu-quota", "50000", ".")
    assert f" {64 << 20} 50000" in done.stderr
    assert leftovers() == []


@pytest.mark.usefixtures("limiting")
def test_out_of_memory_names_the_limit(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN head -c 200m /dev/zero | tail -c 150m >/dev/null; exit $?\n")
    done = pybuild("build", *based, "-m", "32m", ".")
    assert done.returncode == 1
    assert "out of memory, the limit is 32 MiB" in done.stderr
    assert "Dockerfile:2" in done.stderr
    assert "hint: give it more with --resource memory=" in done.stderr


@pytest.mark.usefixtures("limiting")
def test_limits_are_not_in_the_key(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN true\n")
    pybuild.ok("build", *based, "-m", "64m", ".")
    assert "DONE" not in pybuild.ok("build", *based, "--cpu-quota", "50000", ".").stderr


def test_what_the_kernel_refuses_is_an_error(pybuild: Pybuild, based: list[str]) -> None:
    require(has("cpuset"), "needs control groups for processors")
    pybuild.write(Dockerfile="FROM base\nRUN true\n")
    done = pybuild("build", *based, "--cpuset-cpus", "4000", ".")
    assert done.returncode == 125
    assert "cpuset-cpus=4000 cannot be set" in done.stderr


@pytest.mark.usefixtures("limiting")
def test_steps_are_below_the_parent_that_was_chosen(pybuild: Pybuild, based: list[str]) -> None:
    parent = f"pybuild_test_{os.getpid()}"
    pybuild.write(Dockerfile="FROM base\nRUN echo started && sleep 30\n")
    import subprocess

    words = pybuild.argv("build", *based, "--cgroup-parent", parent, ".")
    running = subprocess.Popen(words, cwd=pybuild.cwd, env=pybuild.environment(), stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    for line in running.stderr:
        if line.rstrip().endswith("started"):
            break
    found = [
        directory
        for hierarchy in cgroup.find_hierarchies()
        for directory, _, files in os.walk(f"{hierarchy.root_dir}/{parent}")
        if "cgroup.procs" in files and cgroup.read(f"{directory}/cgroup.procs")
    ]
    running.terminate()
    running.communicate(timeout=30)
    assert found
    assert not any(os.path.exists(f"{hierarchy.root_dir}/{parent}") for hierarchy in cgroup.find_hierarchies())


@pytest.mark.usefixtures("limiting")
def test_groups_of_a_killed_build_are_swept_by_the_next_one(pybuild: Pybuild, based: list[str]) -> None:
    import subprocess

    pybuild.write(Dockerfile="FROM base\nRUN echo started && sleep 60\n")
    words = pybuild.argv("build", *based, "-m", "64m", ".")
    running = subprocess.Popen(words, cwd=pybuild.cwd, env=pybuild.environment(), stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    while not running.stderr.readline().rstrip().endswith("started"):
        pass
    killed = kill_all(running.pid)
    running.communicate(timeout=30)
    assert groups_of(killed)
    pybuild.write(Dockerfile="FROM base\nRUN echo another\n")
    pybuild.ok("build", *based, "-m", "64m", "--cpus", "1", "--pids-limit", "99", "--blkio-weight", "99", ".")
    assert groups_of(killed) == set()


def groups_of(pids: list[int]) -> set[str]:
    """Groups that launchers with these pids have made."""
    return {
        f"{directory}/{name}"
        for hierarchy in cgroup.find_hierarchies()
        for directory in {hierarchy.own_dir, hierarchy.root_dir}
        for name in os.listdir(directory)
        if name.startswith("pybuild-") and int(name.split("-")[1]) in pids
    }


def test_a_parent_cannot_lead_upwards(pybuild: Pybuild) -> None:
    pybuild.write(Dockerfile="FROM scratch\n")
    done = pybuild("build", "--cgroup-parent", "a/../../b", ".")
    assert done.returncode == 2
