"""`pybuild run -it` on a real terminal: what a person sees, types and resizes."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Pybuild, require

PATIENCE_SECONDS = 60.0


class Screen:
    """A terminal of tmux(1) with a shell of the host in it."""

    def __init__(self, socket: Path, columns: int, rows: int) -> None:
        self._base = ["tmux", "-f", "/dev/null", "-S", str(socket)]
        size = ["-x", str(columns), "-y", str(rows)]
        self._tmux("new-session", "-d", *size, "env", "PS1=host> ", "ENV=", "sh")
        self._tmux("set-option", "window-size", "manual")

    def _tmux(self, *words: str) -> str:
        return subprocess.run([*self._base, *words], check=True, capture_output=True, text=True, timeout=60).stdout

    def enter(self, line: str) -> None:
        """Type a line, and the enter key."""
        self._tmux("send-keys", "-l", line)
        self.press("Enter")

    def press(self, key: str) -> None:
        """Press a key by its name in tmux."""
        self._tmux("send-keys", key)

    def resize(self, columns: int, rows: int) -> None:
        """Make the window another size."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def lines(self) -> list[str]:
        """What the screen shows, empty lines left out."""
        return [line.rstrip() for line in self._tmux("capture-pane", "-p").splitlines() if line.strip()]

    def wait(self, *wanted: str) -> list[str]:
        """Wait until the last lines on the screen are these; returns all lines."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            lines = self.lines()
            if lines[-len(wanted) :] == list(wanted):
                return lines
            time.sleep(0.02)
        pytest.fail(f"the screen never ended in {wanted}:\n" + "\n".join(self.lines()))

    def clear(self) -> None:
        """Forget what is on the screen."""
        self._tmux("send-keys", "-R")
        self._tmux("clear-history")

    def close(self) -> None:
        """End the terminal and all in it."""
        subprocess.run([*self._base, "kill-server"], check=False, capture_output=True, timeout=60)


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Screen]:
    require(shutil.which("tmux") is not None, "tmux is not installed")
    terminal = Screen(tmp_path / "tmux", 100, 30)
    terminal.wait("host>")
    yield terminal
    terminal.close()


@pytest.fixture
def box(screen: Screen, pybuild: Pybuild, base_layout: Path) -> str:
    """The words, typed on the host, that start a program in a container; the prompt there is `box>`."""
    words = pybuild.argv("run", "--rm", "-it", "-e", "PS1=box> ", str(base_layout))
    settings = [f"{name}={pybuild.environment()[name]}" for name in ("PYBUILD_ROOT", "PYTHONPATH")]
    script = pybuild.cwd / "box"
    script.write_text(f'echo $$ > {pybuild.cwd}/pid; exec {shlex.join(["env", *settings, *words])} "$@"\n')
    return f"sh {script}"


def assert_sane(screen: Screen, directory: Path) -> None:
    """The host's terminal is in the mode that a shell expects."""
    screen.enter(f"stty -a > {directory}/modes; echo saved")
    screen.wait("saved", "host>")
    modes = (directory / "modes").read_text().split()
    assert {"icanon", "echo", "icrnl", "opost", "isig"} <= {mode.rstrip(";") for mode in modes}


def test_a_shell_with_editing_and_an_end_by_ctrl_d(screen: Screen, box: str, tmp_path: Path) -> None:
    screen.enter(f"{box} sh")
    screen.wait("box>")
    screen.enter("echo $((6*7)) $TERM; tty; test -t 0 && test -t 1 && test -t 2 && echo terminals")
    screen.wait("42 xterm", "/dev/pts/0", "terminals", "box>")
    screen.press("C-d")
    screen.wait("host>")
    assert_sane(screen, tmp_path)


def test_the_exit_code_of_the_shell(screen: Screen, box: str, tmp_path: Path) -> None:
    screen.enter(f"{box} sh; echo code $?")
    screen.wait("box>")
    screen.enter("exit 7")
    screen.wait("code 7", "host>")
    assert_sane(screen, tmp_path)


def test_the_size_follows_the_window(screen: Screen, box: str) -> None:
    screen.enter(f"{box} sh")
    screen.wait("box>")
    screen.enter("stty size")
    screen.wait("30 100", "box>")
    screen.enter("sh -c 'trap \"stty size\" WINCH; echo begin; while :; do sleep 0.1; done'")
    screen.wait("begin")
    screen.resize(90, 20)
    screen.wait("20 90")


def test_ctrl_c_interrupts_the_program_but_not_the_shell(screen: Screen, box: str) -> None:
    screen.enter(f"{box} sh")
    screen.wait("box>")
    screen.enter("sh -c 'echo begin; exec sleep 1000'")
    screen.wait("begin")
    screen.press("C-c")
    screen.wait("^C", "box>")
    screen.enter("echo code $?")
    screen.wait("code 130", "box>")


def test_a_job_is_stopped_and_continued(screen: Screen, box: str) -> None:
    screen.enter(f"{box} sh")
    screen.wait("box>")
    screen.enter("sh -c 'echo begin; sleep 1000; echo never'")
    screen.wait("begin")
    screen.press("C-z")
    lines = screen.wait("box>")
    assert lines[-2].startswith("^Z[1]+  Stopped")
    screen.enter("echo begin; fg")
    screen.wait("begin", 'sh -c "echo begin; sleep 1000; echo never"')
    screen.press("C-c")
    screen.wait("^C", "box>")
    assert "never" not in screen.lines()


@pytest.mark.parametrize("program", ["nothing", "sh -c 'stty raw -echo; exit 5'", "sh -c 'sleep 1000 & exit 5'"])
def test_the_terminal_is_sane_however_the_program_ends(program: str, screen: Screen, box: str, tmp_path: Path) -> None:
    screen.enter(f"{box} {program}; echo code $?")
    lines = screen.wait(f"code {127 if program == 'nothing' else 5}", "host>")
    assert ("not found" in lines[-3]) == (program == "nothing")
    assert_sane(screen, tmp_path)


@pytest.mark.parametrize("name", ["TERM", "HUP"])
def test_the_terminal_is_sane_after_a_signal(name: str, screen: Screen, box: str, tmp_path: Path) -> None:
    screen.enter(f"{box} sh -c 'trap \"exit 6\" {name}; echo begin; while :; do sleep 0.1; done'; echo code $?")
    screen.wait("begin")
    os.kill(int((tmp_path / "context/pid").read_text()), getattr(signal, f"SIG{name}"))
    screen.wait("code 6", "host>")
    assert_sane(screen, tmp_path)
