"""`pybuild import` from the command line: as root and as an ordinary user, and what comes of it runs."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.conftest import Pybuild, require
from tests.ordinary import OrdinaryUser


@pytest.fixture
def tarball(tmp_path: Path) -> bytes:
    """busybox, with a file of somebody else and a device."""
    busybox = shutil.which("busybox")
    require(busybox is not None, "busybox is not installed")
    assert busybox is not None
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", preset=0) as tar:
        content = Path(busybox).read_bytes()
        program = tarfile.TarInfo("./bin/sh")
        program.size, program.mode = len(content), 0o755
        tar.addfile(program, io.BytesIO(content))
        theirs = tarfile.TarInfo("./theirs")
        theirs.uid, theirs.gid, theirs.mode = 12, 34, 0o640
        tar.addfile(theirs)
        device = tarfile.TarInfo("./null")
        device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 3
        tar.addfile(device)
    return buffer.getvalue()


def import_and_run(command: Pybuild, tarball: bytes) -> str:
    (command.cwd / "root.tar.xz").write_bytes(tarball)
    (command.cwd / "root.tar.xz").chmod(0o644)
    command.ok("import", "-c", 'CMD ["sh", "-c", "stat -c %u:%g /theirs"]', "root.tar.xz", "root:1")
    return command.ok("run", "--rm", "root:1").stdout


def test_root(pybuild: Pybuild, tarball: bytes) -> None:
    assert import_and_run(pybuild, tarball) == "12:34\n"


def test_an_ordinary_user(user: OrdinaryUser, tarball: bytes) -> None:
    assert import_and_run(user, tarball) == "12:34\n"


def test_standard_input(pybuild: Pybuild, tarball: bytes) -> None:
    words = pybuild.argv("import", "-", "piped")
    done = subprocess.run(words, input=tarball, env=pybuild.environment(), capture_output=True, check=True)
    image_id = done.stdout.decode().strip()
    assert pybuild.ok("inspect", "-f", ".Id", "piped").stdout.strip() == image_id
    assert pybuild.ok("history", "piped").stdout.splitlines()[1].endswith("Imported from -")
