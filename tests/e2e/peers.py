"""Other programs that read our images: how they are found, and how they run on a bare machine.

The flags are for machines without bridges and with hybrid cgroups. Everything lies in pytest's temporary directories,
and what was started is stopped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

STARTUP_SECONDS = 60.0


def require(*programs: str) -> None:
    """Skip the test when a program is missing; in CI (CI=true) that is a failure."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        reason = f"not installed: {', '.join(missing)}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def run(*command: str | Path, stdin: Path | None = None, environ: dict[str, str] | None = None) -> str:
    """Return what a command prints; when it fails, the test fails with what it said."""
    with open(stdin or os.devnull, "rb") as file:
        done = subprocess.run(
            [str(word) for word in command],
            stdin=file,
            capture_output=True,
            check=False,
            env={**os.environ, **(environ or {})},
            timeout=120,
        )
    if done.returncode:
        pytest.fail(f"{command}: exit {done.returncode}\n{done.stdout.decode()}{done.stderr.decode()}")
    return done.stdout.decode()


class Docker:
    """The docker command line against one daemon."""

    def __init__(self, host: str) -> None:
        self.environ = {"DOCKER_HOST": host}

    def __call__(self, *arguments: str | Path, stdin: Path | None = None) -> str:
        return run("docker", *arguments, stdin=stdin, environ=self.environ)

    def run_image(self, image: str, *command: str) -> str:
        """Return what a container of the image prints."""
        return self("run", "--rm", "--network", "none", image, *command)


class Podman:
    """The podman command line with a storage of its own."""

    def __init__(self, directory: Path) -> None:
        self._base = [
            *("podman", "--root", str(directory / "root"), "--runroot", str(directory / "run")),
            *("--runtime", "runc", "--cgroup-manager", "cgroupfs", "--tmpdir", str(directory / "tmp")),
        ]

    def __call__(self, *arguments: str | Path, stdin: Path | None = None) -> str:
        return run(*self._base, *arguments, stdin=stdin)

    def run_image(self, image: str, *command: str) -> str:
        """Return what a container of the image prints."""
        limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")
        return self("run", "--rm", "--network", "none", *limits, image, *command)


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """A docker daemon: the one of $DOCKER_HOST, else one that lives as long as the tests."""
    require("docker")
    if os.environ.get("DOCKER_HOST"):
        yield Docker(os.environ["DOCKER_HOST"])
        return
    require("dockerd")
    yield from docker_daemon(tmp_path_factory.mktemp("dockerd"))


def docker_daemon(directory: Path) -> Iterator[Docker]:
    """A docker daemon with everything in a directory, stopped at the end; its process id is in the file `pid`."""
    host = f"unix://{directory}/docker.sock"
    state = ("--data-root", str(directory / "data"), "--exec-root", str(directory / "exec"))
    network = ("--bridge=none", "--iptables=false", "--ip-forward=false")
    command = ["dockerd", "--host", host, *state, "--pidfile", str(directory / "pid"), *network]
    with open(directory / "log", "wb") as log:
        daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        _await(daemon, host, directory / "log")
        yield Docker(host)
    finally:
        daemon.terminate()
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _await(daemon: subprocess.Popen[bytes], host: str, log: Path) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while daemon.poll() is None and time.monotonic() < deadline:
        environ = {**os.environ, "DOCKER_HOST": host}
        asked = subprocess.run(["docker", "version"], env=environ, capture_output=True, check=False)
        if asked.returncode == 0:
            return
        time.sleep(0.2)
    pytest.fail("dockerd does not start:\n" + "\n".join(log.read_text().splitlines()[-20:]))


@pytest.fixture
def podman() -> Iterator[Podman]:
    """Podman with an empty storage; its directory has a short name because podman allows 50 characters."""
    require("podman", "runc")
    with tempfile.TemporaryDirectory(prefix="podman-", ignore_cleanup_errors=True) as directory:
        client = Podman(Path(directory))
        yield client
        client("system", "reset", "--force")
