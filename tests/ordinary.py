"""Ordinary users for tests that root runs: made with useradd, with a range of ids or without, removed afterwards."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from builder.sandbox.net import userspace
from tests.conftest import PROJECT, Pybuild, require

PACKAGES = ("builder", "cache", "grammar")
PREFIX = "pybtest-"
FIRST_ID, IDS = 1_000_000_000, 65536
CHECK = "import builder.cli, xxhash, isal, zstandard, lark, networkx, tqdm"


class OrdinaryUser(Pybuild):
    """The command as a user who is not root. `prefix` is what starts it, as root."""

    def __init__(self, name: str, home: Path) -> None:
        found = pwd.getpwnam(name)
        self.name, self.uid, self.gid, self.home = name, found.pw_uid, found.pw_gid, home
        (home / "context").mkdir(exist_ok=True)
        super().__init__(home / "store", home / "context")
        self.give(home)
        self.prefix: list[str] = []
        self.python, self.path = self._find_python()

    def argv(self, *words: str) -> list[str]:
        return [*self.dropping(), self.python, "-m", "builder", *words]

    def dropping(self) -> list[str]:
        """The words that give up root."""
        ids = [f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        # A second program, because setpriv starts its own with the capabilities that it gives up.
        return [*self.prefix, "setpriv", *ids, "--", "env"]

    def environment(self, **extra: str) -> dict[str, str]:
        own = {"HOME": str(self.home), "USER": self.name, "PYTHONPATH": self.path, "PYTHONDONTWRITEBYTECODE": "1"}
        return {**super().environment(), **own, **extra}

    def give(self, path: Path) -> None:
        """Let the user have a file, or a directory with all in it."""
        for where, directories, files in os.walk(path):
            for each in [where, *(os.path.join(where, entry) for entry in directories + files)]:
                os.lchown(each, self.uid, self.gid)
        if path.is_file():
            os.lchown(path, self.uid, self.gid)

    def write(self, **files: str) -> Path:
        super().write(**files)
        self.give(self.cwd)
        return self.cwd

    def borrow_fuse(self) -> None:
        """Let the user open /dev/fuse."""
        require(shutil.which("fuse-overlayfs") is not None, "fuse-overlayfs is not installed")
        self._borrow("/dev/fuse")

    def borrow_tun(self, program: str) -> None:
        """Let the user open /dev/net/tun, and have only one of the programs that make networks of it."""
        others = [shutil.which(name) for name in userspace.PROGRAMS if name != program]
        require(shutil.which(program) is not None, f"{program} is not installed")
        self._borrow("/dev/net/tun", *(f"mount --bind /dev/null {other} &&" for other in others if other))

    def _borrow(self, path: str, *more: str) -> None:
        """Let the user open a device, in a mount namespace that only his processes see."""
        require(os.path.exists(path), f"this kernel has no {path}")
        device = self.home / os.path.basename(path)
        if not device.exists():
            os.mknod(device, stat.S_IFCHR | 0o666, os.stat(path).st_rdev)
            device.chmod(0o666)
        script = f'{" ".join(more)} mount --bind {device} {path} && exec "$@"'
        self.prefix = ["unshare", "--mount", "sh", "-c", script, "sh"]

    def run(self, *argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run another program as the user."""
        words = [*self.dropping(), *argv]
        given = {"env": self.environment(), "cwd": self.cwd, "capture_output": True, "text": True, **options}
        return subprocess.run(words, check=given.pop("check", False), **given)

    def _find_python(self) -> tuple[str, str]:
        """An interpreter, and a PYTHONPATH, that the user can read; copied to his home if nobody else can."""
        libraries = sysconfig.get_paths()["purelib"]
        for python in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
            for path in (f"{PROJECT}:{libraries}", self._copied(libraries)):
                self.python, self.path = python, path
                if os.path.exists(python) and not self.run(python, "-c", CHECK, check=False).returncode:
                    return python, path
        require(False, "no Python that an ordinary user can run: install python3")
        raise AssertionError

    def _copied(self, libraries: str) -> str:
        copy = self.home / "python"
        if not copy.exists():
            ignored = shutil.ignore_patterns("__pycache__", "pip", "mypy*", "ruff*", "hypothesis", "pytest*")
            shutil.copytree(libraries, copy, ignore=ignored)
            for package in PACKAGES:
                shutil.copytree(PROJECT / package, copy / package, ignore=ignored)
            self.give(copy)
        return str(copy)


@contextmanager
def ordinary_user(label: str, *, with_ids: bool = True) -> Iterator[OrdinaryUser]:
    """A new user with a home of his own; both are gone afterwards, and so are those of tests that were killed."""
    require(os.geteuid() == 0, "making users needs root")
    require(shutil.which("useradd") is not None, "useradd is not installed")
    name = f"{PREFIX}{label}-{os.getpid()}"
    _remove_dead_users()
    home = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    home.chmod(0o755)
    try:
        _change_users(["useradd", "--no-create-home", "--home-dir", str(home), "--shell", "/bin/sh", name], name)
        if with_ids:
            require(shutil.which("newuidmap") is not None, "uidmap is not installed")
            first = FIRST_ID + IDS * (pwd.getpwnam(name).pw_uid % 10_000)
            ranges = f"{first}-{first + IDS - 1}"
            _change_users(["usermod", "--add-subuids", ranges, "--add-subgids", ranges, name], name)
        yield OrdinaryUser(name, home)
    finally:
        _change_users(["userdel", "--force", name], name, check=False)
        shutil.rmtree(home, ignore_errors=True)


def _remove_dead_users() -> None:
    for user in pwd.getpwall():
        pid = user.pw_name.rpartition("-")[2]
        if user.pw_name.startswith(PREFIX) and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            _change_users(["userdel", "--force", user.pw_name], user.pw_name, check=False)
            shutil.rmtree(user.pw_dir, ignore_errors=True)


def _change_users(words: Sequence[str], name: str, *, check: bool = True) -> None:
    """Run a program of passwd(1)'s family, one at a time; useradd's own idea of ranges is dropped."""
    with open("/tmp/pybuild-users.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(words, check=check, capture_output=True)
        if words[0] == "usermod":
            return
        for path in ("/etc/subuid", "/etc/subgid"):
            if os.path.exists(path):
                kept = [line for line in Path(path).read_text().splitlines(True) if not line.startswith(f"{name}:")]
                # At once: a build of another user may be reading it.
                Path(f"{path}.pybuild").write_text("".join(kept))
                os.rename(f"{path}.pybuild", path)
