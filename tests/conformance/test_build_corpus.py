"""The shared build cases: what BuildKit made of each Dockerfile this builder makes too, cold and from its cache."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT, require
from tests.ordinary import ordinary_user
from tests.shared import shared_dir


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus") / "store"


@pytest.mark.xdist_group("build-corpus")
@pytest.mark.parametrize("temperature", ["cold", "warm"])
def test_build_corpus(store: Path, temperature: str) -> None:
    shared = shared_dir()
    if shared is None:
        pytest.skip("the shared conformance cases are not there")
    require(os.geteuid() == 0, "building needs root")
    builder = shlex.join([sys.executable, "-m", "builder", "build"])
    check = shared / "conformance" / "build" / "check.py"
    done = subprocess.run(
        [sys.executable, check, "--builder", builder, "-j", str(os.cpu_count() or 1), "--level", "history"],
        env={**os.environ, "PYBUILD_ROOT": str(store), "PYTHONPATH": str(PROJECT)},
        cwd=store.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    print(temperature, done.stdout[-20000:])
    assert done.returncode == 0, done.stdout[-20000:]
    passed = int(done.stdout.splitlines()[-1].split()[0])
    assert passed > 0


IMPOSSIBLE = {
    "copy-special-files": "no device can be made",
    "layer-special-nodes": "no device can be made",
    "run-mtime-and-large-ids": "users up to 65536 are mapped",
}
"""What an ordinary user cannot build, and why: RUN makes device nodes, or gives files to ids that nobody has."""


@pytest.mark.xdist_group("build-corpus-user")
def test_build_corpus_as_a_user() -> None:
    shared = shared_dir()
    if shared is None:
        pytest.skip("the shared conformance cases are not there")
    with ordinary_user("corpus") as user:
        builder = shlex.join([sys.executable, str(PROJECT / "tests/handover.py"), user.name, user.python])
        (user.home / "cases").mkdir()
        done = subprocess.run(
            [
                *(sys.executable, shared / "conformance" / "build" / "check.py", "--level", "history"),
                *("--builder", f"{builder} -m builder build", "-j", str(os.cpu_count() or 1)),
                *("--tmp", user.home / "cases"),
            ],
            env={**user.environment(), "PYTHONPATH": user.path},
            cwd=user.home,
            capture_output=True,
            text=True,
            check=False,
        )
    print(done.stdout[-20000:])
    failed = {line.split()[1].rstrip(":") for line in done.stdout.splitlines() if line.startswith("FAIL ")}
    assert failed == set(IMPOSSIBLE), done.stdout[-20000:]
    for name, reason in IMPOSSIBLE.items():
        told = done.stdout.partition(f"FAIL  {name}")[2].partition("\nFAIL ")[0]
        assert reason in told, told
    assert int(done.stdout.splitlines()[-1].split()[0]) > 200
