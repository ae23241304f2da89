"""What every test may use: the command as a process of its own, a static busybox, and a base image made of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from tests.leftovers import wait_until_clean

if TYPE_CHECKING:
    from tests.builder.world import World
    from tests.faultproxy import FaultProxy
    from tests.registries import Registry

Completed: TypeAlias = "subprocess.CompletedProcess[str]"
PROJECT = Path(__file__).resolve().parents[1]


def require(condition: bool, reason: str) -> None:
    """Skip where something of the machine is missing; in continuous integration that is a failure."""
    if condition:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"continuous integration lacks something: {reason}")
    pytest.skip(reason)


class Pybuild:
    """Runs the command line on a store of its own, in a directory of its own."""

    def __init__(self, root: Path, cwd: Path) -> None:
        self.root = root
        self.cwd = cwd

    def environment(self, **extra: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
        return {**kept, "PYBUILD_ROOT": str(self.root), "PYTHONPATH": str(PROJECT), **extra}

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "builder", *words]

    def __call__(
        self, *words: str, env: dict[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(
            self.argv(*words),
            cwd=options.pop("cwd", self.cwd),
            env=self.environment(**(env or {})),
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=options.pop("timeout", 120),
            check=False,
            **options,
        )

    def ok(self, *words: str, **options: Any) -> Completed:
        """Run it and insist on success."""
        done = self(*words, **options)
        assert done.returncode == 0, f"pybuild {' '.join(words)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def write(self, **files: str) -> Path:
        """Write files into the working directory; `a__b` is `a/b`."""
        for name, text in files.items():
            path = self.cwd / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return self.cwd


@pytest.fixture(scope="session")
def busybox() -> Path:
    """A statically linked busybox of this machine."""
    found = shutil.which("busybox") or str(PROJECT / "scratch/busybox-static/bin/busybox")
    require(Path(found).is_file(), "Debian's busybox-static is not installed")
    return Path(found)


@pytest.fixture(scope="session")
def base_layout(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Path:
    """testdata/base as an OCI layout directory, built by the command itself."""
    require(os.geteuid() == 0, "building needs root")
    scratch = tmp_path_factory.mktemp("base")
    shutil.copy(busybox, scratch / "busybox")
    command = Pybuild(scratch / "store", PROJECT)
    layout = scratch / "layout"
    context = f"busybox={scratch}"
    command.ok("build", "--build-context", context, "-o", f"type=oci,tar=false,dest={layout}", "testdata/base")
    return layout


@pytest.fixture
def pybuild(tmp_path: Path) -> Pybuild:
    """The command on an empty store."""
    (tmp_path / "context").mkdir()
    return Pybuild(tmp_path / "store", tmp_path / "context")


@pytest.fixture
def based(pybuild: Pybuild, base_layout: Path) -> list[str]:
    """The words that give `FROM base` its meaning."""
    return ["--build-context", f"base=oci-layout://{base_layout}"]


@pytest.fixture
def world() -> Iterator[World]:
    """A machine with a network of its own, and an internet behind it."""
    from tests.builder.world import make_world

    require(os.geteuid() == 0, "a network of one's own needs root")
    require(all(shutil.which(name) for name in ("ip", "nft", "iptables")), "needs iproute2, nftables and iptables")
    with make_world() as made:
        yield made


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry for the tests of a module, without TLS and passwords."""
    from tests.registries import registry

    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def proxy(plain: Registry) -> Iterator[FaultProxy]:
    """A network to that registry, at its worst if asked."""
    from tests.faultproxy import fault_proxy

    with fault_proxy(plain) as running:
        yield running


LEFT = pytest.StashKey[list[str]]()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """After all tests nothing of any build is left on the machine; checked once, when every worker has ended."""
    if hasattr(session.config, "workerinput") or os.geteuid() != 0:
        return
    factory = getattr(session.config, "_tmp_path_factory", None)
    left = wait_until_clean(str(factory.getbasetemp()) if factory is not None else "")
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.config.stash[LEFT] = left


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What was left behind, said after the failures and before pytest's own closing line."""
    for line in config.stash.get(LEFT, []):
        terminalreporter.write_line(f"left behind by builds: {line}", red=True)
