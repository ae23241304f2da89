"""The image that attacks start from, and the two who try them: root, and an ordinary user."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.scene import Scene, compile_program
from tests.conftest import PROJECT, Pybuild, require
from tests.ordinary import OrdinaryUser, ordinary_user


@pytest.fixture(scope="session")
def armed(tmp_path_factory: pytest.TempPathFactory, base_layout: Path) -> Path:
    """The base image with /probe, as a layout that everybody can read."""
    require(shutil.which("gcc") is not None, "gcc is not installed")
    scratch = tmp_path_factory.mktemp("armed")
    compile_program("probe", scratch, "-static")
    (scratch / "Dockerfile").write_text("FROM base\nCOPY probe /probe\n")
    base = f"base=oci-layout://{base_layout}"
    output = f"type=oci,tar=false,dest={scratch}/layout"
    Pybuild(scratch / "store", PROJECT).ok("build", "--build-context", base, "-o", output, str(scratch))
    return scratch / "layout"


@pytest.fixture(scope="session")
def attacker(armed: Path) -> Iterator[OrdinaryUser]:
    """An ordinary user with a range of ids, and the armed image in his home."""
    with ordinary_user("attacker") as user:
        shutil.copytree(armed, user.home / "armed")
        user.give(user.home)
        yield user


@pytest.fixture
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The machine's settings, which one attack changes: it waits for those of other workers, and they for it."""
    run_dir = tmp_path_factory.getbasetemp().parent
    with open(run_dir / "machine.lock", "w") as lock:
        is_alone = request.node.callspec.params["attack"].is_alone
        fcntl.flock(lock, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH)
        yield


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path: Path, armed: Path, machine: None) -> Iterator[Scene]:
    """The surroundings of one attack by one user; looked at when the attack has been made."""
    who = request.param[1]
    if who == "root":
        (tmp_path / "context").mkdir()
        scene = Scene(Pybuild(tmp_path / "store", tmp_path / "context"), armed, tmp_path / "scratch")
    else:
        user: OrdinaryUser = request.getfixturevalue("attacker")
        for directory in (user.root, user.cwd):
            shutil.rmtree(directory, ignore_errors=True)
        user.cwd.mkdir()
        user.give(user.cwd)
        user.prefix = []
        scene = Scene(user, user.home / "armed", user.home / f"scratch{os.getpid()}")
    try:
        yield scene
        scene.check()
    finally:
        scene.clean()
