from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.sandbox import cgroup, device_rules
from builder.sandbox.cgroup import GUARDED, OPEN, Hierarchy, StepGroups


def guarding_hierarchies() -> list[Hierarchy]:
    return [h for h in cgroup.find_hierarchies() if h.is_v2 or "devices" in h.controllers]


@pytest.fixture(params=[True, False], ids=["v2", "v1"])
def hierarchy(request: pytest.FixtureRequest) -> Hierarchy:
    """A hierarchy of either version that this machine lets us use."""
    found = [h for h in guarding_hierarchies() if h.is_v2 == request.param and os.access(h.own_dir, os.W_OK)]
    if not found:
        pytest.skip("needs a writable cgroup hierarchy that can guard devices, v1 and v2")
    return found[0]


@pytest.fixture
def groups(hierarchy: Hierarchy) -> Iterator[StepGroups]:
    groups = StepGroups(os.getpid(), (hierarchy,))
    yield groups
    groups.close()


def opens(group: str, kind: str, major: int, minor: int, directory: Path) -> bool:
    """Whether a process in the group can open a device; it must be able to make its node."""
    pid = os.fork()
    if not pid:
        code = 9
        try:
            Path(group, "cgroup.procs").write_text("0")
            node = directory / f"{kind}{major}-{minor}"
            os.mknod(node, 0o600 | (0o020000 if kind == "c" else 0o060000), os.makedev(major, minor))
            try:
                os.close(os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY))
                code = 0
            except PermissionError:
                code = 1
            except OSError:
                code = 2
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 1, 2)
    return code != 1


def test_only_harmless_devices_can_be_opened(groups: StepGroups, tmp_path: Path) -> None:
    (group,) = groups.create(1, GUARDED)
    assert groups.guards_devices(GUARDED)
    (tmp_path / "dev").mkdir()
    allowed = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (136, 77)]
    denied = [("c", 1, 1), ("c", 1, 11), ("c", 5, 3), ("c", 10, 229), ("b", 1, 3), ("b", 7, 0), ("b", 136, 0)]
    assert [device for device in allowed if not opens(group, "c", *device, tmp_path / "dev")] == []
    assert [device for device in denied if opens(group, *device, tmp_path / "dev")] == []


def test_an_open_group_has_no_rules(groups: StepGroups, tmp_path: Path) -> None:
    (group,) = groups.create(1, OPEN)
    assert not groups.guards_devices(OPEN)
    assert opens(group, "c", 1, 11, tmp_path)


def test_groups_come_and_go(groups: StepGroups) -> None:
    first, second = groups.create(1, GUARDED), groups.create(2, GUARDED)
    assert all(os.path.isdir(group) for group in (*first, *second))
    groups.remove(first)
    assert not any(os.path.exists(group) for group in first)
    groups.remove(second)
    groups.close()
    assert not os.path.exists(os.path.dirname(first[0]))


def test_groups_of_a_dead_launcher_are_swept(hierarchy: Hierarchy) -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    dead = StepGroups(pid, (hierarchy,)).create(1, GUARDED)
    living = StepGroups(os.getpid(), (hierarchy,))
    kept = living.create(1, GUARDED)
    StepGroups(os.getpid(), (hierarchy,))
    assert not os.path.exists(os.path.dirname(dead[0]))
    assert os.path.exists(kept[0])
    living.remove(kept)
    living.close()


def test_where_no_group_can_be_made_nothing_is_guarded(tmp_path: Path) -> None:
    groups = StepGroups(1, (Hierarchy(is_v2=True, name="", controllers=(), own_dir=str(tmp_path / "missing")),))
    assert groups.create(1, GUARDED) == ()
    assert not groups.guards_devices(GUARDED)
    assert not device_rules.guard(str(tmp_path), is_v2=True)
    assert not device_rules.guard(str(tmp_path), is_v2=False)
