"""What builds must not leave behind on the machine, and how to kill one with all that it has started.

Other builds may run on the machine meanwhile: what belongs to a live process is not a leftover.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time

from builder.sandbox import cgroup

_GROUP = re.compile(r"pybuild-(\d+)-")
_TEST_NAMESPACES = "/run/netns"
_LAUNCHER = b"launcher_main.py"


def leftovers(scratch_dir: str = "") -> list[str]:
    """Processes, control groups, interfaces, tables, named namespaces, and mounts below `scratch_dir`.

    Control groups of killed builds are swept first, as the next build would.
    """
    return [*_processes(), *_groups(), *_interfaces(), *_tables(), *_namespaces(), *_mounts(scratch_dir)]


def wait_until_clean(scratch_dir: str = "", seconds: float = 10) -> list[str]:
    """What is still there after a moment: the kernel takes some of it back in the background."""
    deadline = time.monotonic() + seconds
    while (left := leftovers(scratch_dir)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def kill_all(pid: int) -> list[int]:
    """kill -9 of a process and of everything that it has started, all at once; returns who was killed."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [line.split() for line in listed.splitlines()]
    doomed = [pid]
    for each in doomed:
        doomed += [int(child) for child, parent in pairs if int(parent) == each]
    for each in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    return doomed


def _processes() -> list[str]:
    """Launchers whose pybuild has gone: each is the child of one, or of another launcher."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as cmdline, open(f"/proc/{pid}/stat", encoding="latin-1") as status:
                command, parent = cmdline.read(), status.read().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if _LAUNCHER in command and parent == "1":
            found.append(f"process {pid}")
    return found


def _groups() -> list[str]:
    found = []
    for hierarchy in cgroup.find_hierarchies():
        for directory in {hierarchy.own_dir, hierarchy.root_dir}:
            if os.access(directory, os.W_OK):
                cgroup.sweep(directory)
            for name in os.listdir(directory):
                match = _GROUP.match(name)
                if match and not os.path.exists(f"/proc/{match[1]}"):
                    found.append(f"{directory}/{name}")
    return found


def _interfaces() -> list[str]:
    """Interfaces while nobody is there who could have made them."""
    found = [f"interface {name}" for name in os.listdir("/sys/class/net") if re.fullmatch("pyb[0-9a-f]{8}", name)]
    return found if found and not _is_building() else []


def _tables() -> list[str]:
    try:
        listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return []
    interfaces = os.listdir("/sys/class/net")
    names = [line.split()[-1] for line in listed.splitlines() if "pybuild-" in line]
    return [f"table {name}" for name in names if name.removeprefix("pybuild-") not in interfaces]


def _namespaces() -> list[str]:
    """Network namespaces of tests whose process has ended."""
    names = os.listdir(_TEST_NAMESPACES) if os.path.isdir(_TEST_NAMESPACES) else []
    matches = (re.match(r"pybuild-test-(\d+)-", name) for name in names)
    return [match.string for match in matches if match and not os.path.exists(f"/proc/{match[1]}")]


def _mounts(scratch_dir: str) -> list[str]:
    if not scratch_dir:
        return []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        return [line.split()[4] for line in mounts if line.split()[4].startswith(scratch_dir)]


def _is_building() -> bool:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as cmdline:
                if _LAUNCHER in cmdline.read():
                    return True
        except OSError:
            continue
    return False
