"""The shared build cases: what BuildKit made of each Dockerfile this builder makes too, cold and from its cache."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT, require
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
