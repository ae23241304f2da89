"""A tree of control groups of v2 as far as builds notice, made of plain files: it limits nothing.

What it answers was seen on Linux 6.1 and 6.12, for machines that have no controllers in v2: only a group without
processes hands controllers down, only those that it has, and takes none back that a group below hands down.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from builder.sandbox import cgroup, delegation, limited, limits
from builder.sandbox.cgroup import Hierarchy

FILES = {
    "cpu": ("cpu.max", "cpu.weight"),
    "cpuset": ("cpuset.cpus", "cpuset.cpus.effective"),
    "io": ("io.max", "io.weight"),
    "memory": ("memory.max", "memory.swap.max"),
    "pids": ("pids.max",),
}


class SimulatedV2:
    """Stands in for the kernel while `monkeypatch` lasts: `root_dir` is a mounted root, below the machine's own."""

    def __init__(self, root_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root_dir = root_dir
        self.processors = "0-1"
        """Those that there are, whatever is asked for."""
        self.partitions: set[str] = set()
        self.lacking: set[str] = set()
        """Files that this kernel does not have."""
        self._mkdir, self._rmdir = os.mkdir, os.rmdir
        monkeypatch.setattr(os, "mkdir", self.mkdir)
        monkeypatch.setattr(os, "rmdir", self.rmdir)
        for module in (cgroup, delegation, limited, limits):
            monkeypatch.setattr(module, "write", self.write)
        self._fill(root_dir, set(FILES))

    def hierarchy(self, own_dir: Path) -> Hierarchy:
        return Hierarchy(True, "", (), str(own_dir), str(self.root_dir))

    def group(self, path: str, *, pids: tuple[int, ...] = ()) -> Path:
        """A new group below the root, which gets all that the one above hands down; with processes in it."""
        made = self.root_dir / path
        os.mkdir(made)
        made.joinpath("cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
        return made

    def mkdir(self, path: str | Path, mode: int = 0o777) -> None:
        self._mkdir(path, mode)
        self._fill(Path(path), words(Path(path).parent, "cgroup.subtree_control"))

    def rmdir(self, path: str | Path) -> None:
        group = Path(path)
        if not group.is_dir():
            raise FileNotFoundError(errno.ENOENT, path)
        if group.joinpath("cgroup.procs").read_text() or groups_in(group):
            raise OSError(errno.EBUSY, path)
        for file in group.iterdir():
            file.unlink()
        self._rmdir(group)

    def write(self, path: str, text: str) -> None:
        """Write to a control file in one go. Raises OSError."""
        group, file = Path(path).parent, Path(path).name
        if not os.path.exists(path):
            raise FileNotFoundError(errno.ENOENT, path)
        if file == "cgroup.subtree_control":
            self._hand_down(group, text.split())
        elif file == "cgroup.procs":
            self._move(text, group)
        elif file == "io.max" and text.split(maxsplit=1)[0] in self.partitions:
            raise OSError(errno.ENODEV, path)
        else:
            Path(path).write_text(text)
            if file == "cpuset.cpus":
                group.joinpath("cpuset.cpus.effective").write_text(self.processors)

    def _fill(self, group: Path, controllers: set[str]) -> None:
        group.joinpath("cgroup.controllers").write_text(" ".join(sorted(controllers)))
        common = ("cgroup.procs", "cgroup.subtree_control", "cgroup.type")
        for file in (*common, *(file for name in controllers for file in FILES[name])):
            if file not in self.lacking and not group.joinpath(file).exists():
                group.joinpath(file).write_text("")

    def _hand_down(self, group: Path, changes: list[str]) -> None:
        names = {change[1:] for change in changes if change[0] == "+"}
        taken = {change[1:] for change in changes if change[0] == "-"}
        if names - words(group, "cgroup.controllers"):
            raise FileNotFoundError(errno.ENOENT, str(group))
        if any(taken & words(each, "cgroup.subtree_control") for each in groups_in(group)):
            raise OSError(errno.EBUSY, str(group))
        after = (words(group, "cgroup.subtree_control") | names) - taken
        if after and group.joinpath("cgroup.procs").read_text():
            raise OSError(errno.EBUSY, str(group))
        group.joinpath("cgroup.subtree_control").write_text(" ".join(sorted(after)))
        for each in groups_in(group):
            self._fill(each, after)

    def _move(self, pid: str, group: Path) -> None:
        if words(group, "cgroup.subtree_control"):
            raise OSError(errno.EBUSY, str(group))
        for procs in self.root_dir.rglob("cgroup.procs"):
            procs.write_text("".join(f"{each}\n" for each in procs.read_text().split() if each != pid))
        with group.joinpath("cgroup.procs").open("a") as file:
            file.write(f"{pid}\n")


def groups_in(group: Path) -> list[Path]:
    return [each for each in group.iterdir() if each.is_dir()]


def words(group: Path, file: str) -> set[str]:
    return set(group.joinpath(file).read_text().split())
