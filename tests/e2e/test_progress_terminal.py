"""Progress on a terminal: a real pseudo-terminal on stderr."""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import termios
from fcntl import ioctl

from tests.conftest import Pybuild


def on_terminal(pybuild: Pybuild, *words: str) -> tuple[int, str]:
    """Run with stderr on a terminal of 80 columns; returns the exit code and what the terminal got."""
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        pybuild.argv(*words),
        cwd=pybuild.cwd,
        env=pybuild.environment(TERM="xterm"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(master)
    return process.wait(), shown.decode("utf-8", "replace")


def test_bar_and_running_vertices(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN echo working hard; sleep 0.5\nRUN true\n")
    code, shown = on_terminal(pybuild, "build", *based, ".")
    assert code == 0
    assert "building" in shown
    assert re.search(r"\| working hard +0\.\d", shown)
    assert re.search(r"\[2/3\] RUN echo working hard; sleep 0.5 +0\.\ds", shown)
    assert max(len(line) for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", shown))) <= 80


def test_everything_cached_draws_no_bar(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN true\n")
    pybuild.ok("build", *based, ".")
    code, shown = on_terminal(pybuild, "build", *based, ".")
    assert code == 0
    assert "CACHED [2/2] RUN true" in shown
    assert "building" not in shown


def test_error_comes_after_the_bar(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN echo the cause; exit 9\n")
    code, shown = on_terminal(pybuild, "build", *based, ".")
    assert code == 1
    assert shown.rindex("exit code: 9") > shown.rindex("building")
    assert " > the cause" in shown


def test_container_ends_when_its_terminal_goes(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\n")
    pybuild.ok("build", *based, "-t", "x", ".")
    master, slave = pty.openpty()
    process = subprocess.Popen(
        pybuild.argv("run", "--rm", "-it", "x", "sh"),
        env=pybuild.environment(),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    shown = b""
    while b"# " not in shown:
        shown += os.read(master, 4096)
    os.close(master)
    process.wait(timeout=15)
    assert not [path for path in (pybuild.root / "containers").iterdir() if path.name != "names"]
