"""Control groups of v2: where limits go, what is set apart for them, and what is said where there can be none."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import SandboxError
from builder.sandbox import cgroup, delegation
from builder.sandbox.cgroup import GUARDED, OPEN, Hierarchy, StepGroups
from builder.sandbox.delegation import Room
from builder.sandbox.limited import LimitedGroups
from builder.sandbox.spec import Limits, ProcessSpec
from tests.builder.simulated_v2 import SimulatedV2, groups_in, words
from tests.conftest import require

SPEC = ProcessSpec(("x",), limits=Limits(memory=1 << 20))
OURS = os.getpid()


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedV2:
    return SimulatedV2(tmp_path, monkeypatch)


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process that this one has not started: its parent has ended."""
    started = subprocess.run(
        ["sh", "-c", "sleep 60 >/dev/null & echo $!"], stdout=subprocess.PIPE, text=True, check=True
    )
    pid = int(started.stdout)
    yield pid
    os.kill(pid, 9)


def live_in(own: Hierarchy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delegation, "find_hierarchies", lambda: (own,))


def limited(own: Hierarchy, spec: ProcessSpec = SPEC) -> tuple[LimitedGroups, Path]:
    groups = LimitedGroups(OURS, (own,))
    return groups, Path(groups.create(1, OPEN, spec).groups[0])


def end(groups: LimitedGroups, step: Path) -> None:
    os.rmdir(step)
    groups.close()


def test_limits_of_a_step_and_of_the_build(kernel: SimulatedV2) -> None:
    spec = ProcessSpec(
        ("x",),
        limits=Limits(1 << 20, 1 << 20, pids=7, io_weight=10, io_rates=(("8:0", "rbps", 5),)),
        build_limits=Limits(4 << 20, cpu_quota=50000),
    )
    _, step = limited(kernel.hierarchy(kernel.root_dir), spec)
    build = step.parents[1]
    assert build.parent == kernel.root_dir
    found = {file: step.joinpath(file).read_text() for file in ("memory.max", "memory.swap.max", "pids.max", "io.max")}
    assert found == {"memory.max": str(1 << 20), "memory.swap.max": "0", "pids.max": "7", "io.max": "8:0 rbps=5"}
    assert step.joinpath("io.weight").read_text() == "default 1"
    assert build.joinpath("memory.max").read_text() == str(4 << 20)
    assert build.joinpath("cpu.max").read_text() == "50000 100000"
    for group in (kernel.root_dir, build, step.parent):
        assert words(group, "cgroup.subtree_control") == {"cpu", "io", "memory", "pids"}


def test_processes_of_a_container_are_set_apart_while_a_build_has_limits(
    kernel: SimulatedV2, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its root is ours to divide, whoever else is in it."""
    own = kernel.hierarchy(kernel.root_dir)
    live_in(own, monkeypatch)
    (kernel.root_dir / "cgroup.procs").write_text(f"1\n{OURS}\n")
    room = Room()
    room.make(ProcessSpec(("x",)))
    assert groups_in(kernel.root_dir) == []
    room.make(SPEC)
    (apart,) = groups_in(kernel.root_dir)
    assert words(apart, "cgroup.procs") == {"1", str(OURS)}
    groups, step = limited(own)
    assert step.parents[2] == kernel.root_dir
    # What counts comes with what limits.
    assert words(kernel.root_dir, "cgroup.subtree_control") == {"io", "memory"}
    end(groups, step)
    room.give_back()
    assert groups_in(kernel.root_dir) == []
    assert words(kernel.root_dir, "cgroup.procs") == {"1", str(OURS)}
    assert words(kernel.root_dir, "cgroup.subtree_control") == set()


def test_of_two_builds_in_a_group_the_last_gives_back(kernel: SimulatedV2, monkeypatch: pytest.MonkeyPatch) -> None:
    own = kernel.hierarchy(kernel.root_dir)
    live_in(own, monkeypatch)
    (kernel.root_dir / "cgroup.procs").write_text(f"1\n{OURS}\n")
    first, second = Room(), Room()
    first.make(SPEC)
    groups, step = limited(own)
    second.make(SPEC)
    first.give_back()
    assert words(kernel.root_dir, "cgroup.procs") == set()
    end(groups, step)
    second.give_back()
    assert groups_in(kernel.root_dir) == []
    assert words(kernel.root_dir, "cgroup.procs") == {"1", str(OURS)}


def test_what_a_killed_build_set_apart_is_given_back_by_the_next(
    kernel: SimulatedV2, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = kernel.hierarchy(kernel.root_dir)
    live_in(own, monkeypatch)
    killed = os.fork()
    if not killed:
        os._exit(0)
    os.waitpid(killed, 0)
    kernel.group(f"pybuild-{killed}-0-apart", pids=(OURS,))
    kernel.write(f"{kernel.root_dir}/cgroup.subtree_control", "+memory")
    kernel.group(f"pybuild-{killed}-1-limited")
    room = Room()
    room.make(SPEC)
    groups, step = limited(own)
    end(groups, step)
    room.give_back()
    assert groups_in(kernel.root_dir) == []
    assert words(kernel.root_dir, "cgroup.procs") == {str(OURS)}


def test_groups_of_others_keep_their_controllers(kernel: SimulatedV2, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who made one meanwhile would lose its limits."""
    own = kernel.hierarchy(kernel.root_dir)
    live_in(own, monkeypatch)
    (kernel.root_dir / "cgroup.procs").write_text(f"{OURS}\n")
    room = Room()
    room.make(SPEC)
    end(*limited(own))
    kernel.group("other")
    room.give_back()
    assert words(kernel.root_dir, "cgroup.subtree_control") == {"io", "memory"}


def test_a_parent_elsewhere_needs_no_room(kernel: SimulatedV2, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.write(f"{kernel.root_dir}/cgroup.subtree_control", "+memory")
    scope = kernel.group("scope", pids=(OURS,))
    live_in(kernel.hierarchy(scope), monkeypatch)
    Room().make(SPEC._replace(cgroup_parent="elsewhere"))
    assert groups_in(scope) == []
    Room().make(SPEC._replace(cgroup_parent="scope"))
    assert len(groups_in(scope)) == 1


def test_strangers_stay_where_they_are(kernel: SimulatedV2, monkeypatch: pytest.MonkeyPatch, stranger: int) -> None:
    """A scope that nobody delegated may have a shell in it: the slice above divides what it has instead."""
    kernel.group("slice")
    kernel.write(f"{kernel.root_dir}/cgroup.subtree_control", "+memory")
    scope = kernel.group("slice/scope", pids=(OURS, stranger))
    own = kernel.hierarchy(scope)
    live_in(own, monkeypatch)
    room = Room()
    room.make(SPEC)
    assert words(scope, "cgroup.procs") == {str(OURS), str(stranger)}
    groups, step = limited(own)
    assert step.parents[3] == kernel.root_dir
    end(groups, step)
    room.give_back()
    assert groups_in(kernel.root_dir / "slice") == [scope]


@pytest.mark.parametrize("is_delegated", [False, True])
def test_a_group_is_divided_when_it_is_ours(
    kernel: SimulatedV2, monkeypatch: pytest.MonkeyPatch, stranger: int, is_delegated: bool
) -> None:
    """Because all in it is ours, or because it is marked so."""
    kernel.write(f"{kernel.root_dir}/cgroup.subtree_control", "+memory")
    scope = kernel.group("scope", pids=(OURS, stranger) if is_delegated else (OURS,))
    if is_delegated:
        os.setxattr(scope, "user.delegate", b"1")
    own = kernel.hierarchy(scope)
    live_in(own, monkeypatch)
    room = Room()
    room.make(SPEC)
    groups, step = limited(own)
    assert step.parents[2] == scope
    end(groups, step)
    room.give_back()
    assert groups_in(scope) == []


def test_a_controller_that_was_not_delegated_is_named(kernel: SimulatedV2, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.write(f"{kernel.root_dir}/cgroup.subtree_control", "+memory +pids")
    scope = kernel.group("scope", pids=(OURS,))
    own = kernel.hierarchy(scope)
    live_in(own, monkeypatch)
    kernel.root_dir.joinpath("cgroup.procs").write_text("1\n")
    spec = ProcessSpec(("x",), limits=Limits(memory=1 << 20, io_weight=100))
    room = Room()
    room.make(spec)
    assert words(scope, "cgroup.procs") == {str(OURS)}
    with pytest.raises(SandboxError, match=f"no limit on io can be set: control group {scope} does not have") as caught:
        LimitedGroups(OURS, (own,)).create(1, OPEN, spec)
    assert caught.value.hint is not None


def test_a_group_that_others_are_in_is_named(kernel: SimulatedV2) -> None:
    kernel.root_dir.joinpath("cgroup.procs").write_text("1\n")
    with pytest.raises(SandboxError, match=r"no limit on memory can be set: .* holds processes of others"):
        LimitedGroups(OURS, (kernel.hierarchy(kernel.root_dir),)).create(1, OPEN, SPEC)
    assert groups_in(kernel.root_dir) == []


def test_a_group_that_is_not_ours_is_named(kernel: SimulatedV2, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: str, text: str) -> None:
        raise PermissionError(13, path)

    monkeypatch.setattr("builder.sandbox.limited.write", write)
    with pytest.raises(SandboxError, match=r"nothing can be made in control group .*: permission denied") as caught:
        LimitedGroups(OURS, (kernel.hierarchy(kernel.root_dir),)).create(1, OPEN, SPEC)
    assert "leave out the limits" in str(caught.value.hint)


def test_a_group_that_cannot_be_left_gets_none_below_it(kernel: SimulatedV2) -> None:
    """Its directory alone is not enough; steps then share it."""
    os.unlink(kernel.root_dir / "cgroup.procs")
    own = kernel.hierarchy(kernel.root_dir)
    assert StepGroups(OURS, (own,)).create(1, OPEN) == ()
    with pytest.raises(SandboxError, match="nothing can be made in control group"):
        LimitedGroups(OURS, (own,)).create(1, OPEN, SPEC)
    assert groups_in(kernel.root_dir) == []


def test_swap_that_is_not_counted(kernel: SimulatedV2) -> None:
    """It is an error for whoever asked for a limit on it, and no matter for who did not."""
    kernel.lacking = {"memory.swap.max"}
    own = kernel.hierarchy(kernel.root_dir)
    _, step = limited(own)
    assert step.joinpath("memory.max").read_text() == str(1 << 20)
    with pytest.raises(SandboxError, match="memory-swap=1048576 cannot be set") as caught:
        limited(own, ProcessSpec(("x",), limits=Limits(memory=1 << 20, memory_swap=2 << 20)))
    assert "swapaccount" in str(caught.value.hint)


def test_a_partition_is_no_disk(kernel: SimulatedV2) -> None:
    kernel.partitions = {"259:0"}
    own = kernel.hierarchy(kernel.root_dir)
    limited(own, ProcessSpec(("x",), limits=Limits(io_rates=(("7:0", "wbps", 5),))))
    with pytest.raises(SandboxError, match=r"device-write-bps=259:0 .* io.max: no such device") as caught:
        limited(own, ProcessSpec(("x",), limits=Limits(io_rates=(("259:0", "wbps", 5),))))
    assert "whole disks" in str(caught.value.hint)


@pytest.mark.parametrize("asked", ["1", "0-1", "0,3"])
def test_processors_that_are_not_there(kernel: SimulatedV2, asked: str) -> None:
    """v2 takes the list, and gives what there is of it."""
    kernel.processors = "0"
    own = kernel.hierarchy(kernel.root_dir)
    limited(own, ProcessSpec(("x",), limits=Limits(cpuset_cpus="0")))
    with pytest.raises(SandboxError, match=f"cpuset-cpus={asked} cannot be set: of these there are 0 here"):
        limited(own, ProcessSpec(("x",), limits=Limits(cpuset_cpus=asked)))


def test_our_own_group_is_found(tmp_path: Path) -> None:
    def own_dirs(path: str, mount: str) -> list[str]:
        (tmp_path / "cgroup").write_text(f"0::{path}\n")
        (tmp_path / "mountinfo").write_text(f"61 59 0:29 {mount} rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n")
        return [hierarchy.own_dir for hierarchy in cgroup.find_hierarchies(str(tmp_path))]

    assert own_dirs("/a.slice/b.scope", "/ /sys/fs/cgroup") == ["/sys/fs/cgroup/a.slice/b.scope"]
    assert own_dirs("/", "/ /sys/fs/cgroup") == ["/sys/fs/cgroup"]
    # What this group is called there is not told.
    assert own_dirs("/", "/../.. /sys/fs/cgroup") == []
    # Set apart, by this build or by another.
    assert own_dirs("/b.scope/pybuild-1-2-apart", "/ /sys/fs/cgroup") == ["/sys/fs/cgroup/b.scope"]
    assert own_dirs("/pybuild-1-2-apart", "/ /sys/fs/cgroup") == ["/sys/fs/cgroup"]
    assert own_dirs("/pybuild-1-2-limited", "/ /sys/fs/cgroup") == ["/sys/fs/cgroup/pybuild-1-2-limited"]


def test_controllers_of_v2_are_handed_down_from_a_group_without_processes() -> None:
    """A group that holds a process hands nothing down, so that the root of the hierarchy has to."""
    found = [each for each in cgroup.find_hierarchies() if each.is_v2 and os.access(each.root_dir, os.W_OK)]
    offered = cgroup.read(f"{found[0].root_dir}/cgroup.controllers").split() if found else []
    require(bool(offered), "needs a writable cgroup v2 hierarchy with a controller")
    root_dir, controller = found[0].root_dir, offered[0]
    was_handed_down = controller in cgroup.read(f"{root_dir}/cgroup.subtree_control").split()
    own_dir = f"{root_dir}/pybuild_test_{os.getpid()}"
    os.mkdir(own_dir)
    process = os.fork()
    if not process:
        Path(own_dir, "cgroup.procs").write_text("0")
        os.execv("/bin/sleep", ["sleep", "60"])
    try:
        while not cgroup.read(f"{own_dir}/cgroup.procs"):
            pass
        groups = LimitedGroups(os.getpid(), (Hierarchy(True, "", (), own_dir, root_dir),))
        place = groups._place(groups._hierarchies[0], GUARDED, ProcessSpec(("x",)), {controller})
        assert os.path.dirname(os.path.dirname(place)) == root_dir
        assert controller in cgroup.read(f"{place}/cgroup.subtree_control").split()
        groups.close()
        assert not os.path.exists(place)
    finally:
        if not was_handed_down:
            Path(root_dir, "cgroup.subtree_control").write_text(f"-{controller}")
        os.kill(process, 9)
        os.waitpid(process, 0)
        for _ in range(500):
            if cgroup._remove_group(own_dir):
                break
