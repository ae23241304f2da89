"""The relay between two terminals, with a pseudo-terminal for the container's."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import termios
import threading
import tty
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from builder.runner.terminal import Relay, raw_mode, resizing


class Ends(NamedTuple):
    """A relay with what is on its four sides."""

    relay: Relay
    program_fd: int
    typing_fd: int
    screen_fd: int


@pytest.fixture
def ends() -> Iterator[Ends]:
    master, program = os.openpty()
    tty.setraw(program)
    stdin, typing = os.pipe()
    screen, stdout = os.pipe()
    relay = Relay(master, stdin_fd=stdin, stdout_fd=stdout)
    relay.start()
    yield Ends(relay, program, typing, screen)
    for fd in (stdin, screen, stdout):
        os.close(fd)


def read_all(fd: int, size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += os.read(fd, size - len(found))
    return found


def test_bytes_go_both_ways(ends: Ends) -> None:
    os.write(ends.typing_fd, b"ls\r\x03")
    assert read_all(ends.program_fd, 4) == b"ls\r\x03"
    os.write(ends.program_fd, b"out")
    assert read_all(ends.screen_fd, 3) == b"out"
    os.close(ends.program_fd)
    ends.relay.finish()
    os.close(ends.typing_fd)


def test_what_was_written_before_the_end_is_shown(ends: Ends) -> None:
    os.write(ends.program_fd, b"x" * 4000)
    os.close(ends.program_fd)
    ends.relay.finish()
    assert read_all(ends.screen_fd, 4000) == b"x" * 4000
    os.close(ends.typing_fd)


def test_nothing_that_is_typed_gets_lost_when_the_program_is_slow(ends: Ends) -> None:
    text = os.urandom(150_000).hex().encode()

    def type_all() -> None:
        rest = text
        while rest:
            rest = rest[os.write(ends.typing_fd, rest) :]

    typist = threading.Thread(target=type_all)
    typist.start()
    # The program writes while it does not read: neither side may wait for the other.
    os.write(ends.program_fd, b"busy")
    assert read_all(ends.screen_fd, 4) == b"busy"
    assert read_all(ends.program_fd, len(text)) == text
    typist.join()
    os.close(ends.program_fd)
    ends.relay.finish()
    os.close(ends.typing_fd)


def test_output_goes_on_after_the_end_of_the_input(ends: Ends) -> None:
    os.close(ends.typing_fd)
    os.write(ends.program_fd, b"still here")
    assert read_all(ends.screen_fd, 10) == b"still here"
    os.close(ends.program_fd)
    ends.relay.finish()


def test_a_reader_that_has_gone_hangs_up_the_terminal() -> None:
    master, program = os.openpty()
    tty.setraw(program)
    screen, stdout = os.pipe()
    os.close(screen)
    relay = Relay(master, stdin_fd=None, stdout_fd=stdout)
    relay.start()
    os.write(program, b"to nobody")
    hung_up = select.poll()
    hung_up.register(program, 0)
    ((_, events),) = hung_up.poll()  # the error comes with it, or a moment later
    assert events & select.POLLHUP
    relay.finish()
    os.close(program)
    os.close(stdout)


def test_raw_mode_ends_with_the_block_however_that_ends() -> None:
    master, terminal = os.openpty()
    before = termios.tcgetattr(terminal)
    with pytest.raises(KeyboardInterrupt), raw_mode(terminal):
        assert not termios.tcgetattr(terminal)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
        raise KeyboardInterrupt
    assert termios.tcgetattr(terminal) == before
    os.close(master)
    os.close(terminal)


def size_of(fd: int) -> tuple[int, int]:
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return rows, columns


def test_the_size_is_copied_at_first_and_at_every_change() -> None:
    local_master, local = os.openpty()
    master, program = os.openpty()
    fcntl.ioctl(local_master, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 20, 0, 0))
    before = signal.getsignal(signal.SIGWINCH)
    with resizing(master, local):
        assert size_of(program) == (10, 20)
        fcntl.ioctl(local_master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 40, 0, 0))
        os.kill(os.getpid(), signal.SIGWINCH)
        assert size_of(program) == (30, 40)
    assert signal.getsignal(signal.SIGWINCH) == before
    for fd in (local_master, local, master, program):
        os.close(fd)
