"""The local terminal in front of a container's: raw mode, bytes both ways, size.

Knows no container: it gets the master side of a pseudo-terminal (pty(7)) and the descriptors of this process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import termios
import threading
import tty
from collections.abc import Callable, Iterator

_CHUNK = 64 << 10
_WINSIZE = 8
"""Bytes of a struct winsize (ioctl_tty(2))."""


@contextlib.contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """The terminal `fd` hands over every byte at once, unprocessed; at the end of the block it is as it was before."""
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSADRAIN)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # It may have gone.
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextlib.contextmanager
def resizing(fd: int, like_fd: int) -> Iterator[None]:
    """Inside the block the terminal `fd` has the size of `like_fd`; what runs in it hears of every change.

    Nothing happens when `like_fd` is no terminal. For the main thread.
    """

    def copy_size(*_: object) -> None:
        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, termios.TIOCSWINSZ, fcntl.ioctl(like_fd, termios.TIOCGWINSZ, bytes(_WINSIZE)))

    before = signal.signal(signal.SIGWINCH, copy_size)
    copy_size()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


class Relay:
    """Copies between a pseudo-terminal's master and this process's descriptors, in a thread of its own.

    `stdin_fd` None: nothing is typed. A slow reader on either side stops the other, nothing is dropped. The master is
    closed by `finish`, or when nobody can read the output any more, which hangs up the container's terminal. When the
    local terminal is gone, the container's is hung up, too, and then `on_hangup` is called.
    """

    def __init__(
        self, master_fd: int, *, stdin_fd: int | None, stdout_fd: int, on_hangup: Callable[[], None] = lambda: None
    ) -> None:
        self._on_hangup = on_hangup
        self._is_terminal = stdin_fd is not None and os.isatty(stdin_fd)
        self._is_hung_up = False
        self._master_fd = master_fd
        self._stdin_fd = stdin_fd
        self._stdout_fd = stdout_fd
        self._typed = b""
        self._woken_fd, self._wake_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(master_fd, False)
        self._thread = threading.Thread(target=self._copy, name="terminal", daemon=True)

    def start(self) -> None:
        """Begin to copy."""
        self._thread.start()

    def finish(self) -> None:
        """Copy what the container has still written, then stop. To be called once, after its processes have ended."""
        os.write(self._wake_fd, b"x")
        self._thread.join()
        for fd in (self._woken_fd, self._wake_fd):
            os.close(fd)

    def _copy(self) -> None:
        try:
            while self._copy_some():
                pass
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO, errno.EBADF):
                raise
        finally:
            os.close(self._master_fd)
            if self._is_hung_up:
                self._on_hangup()

    def _copy_some(self) -> bool:
        """Wait and copy once; False when there is nothing more to come."""
        ready = dict(self._poll().poll())
        if self._woken_fd in ready:
            while self._show(self._read()):
                pass
            return False
        if ready.get(self._master_fd, 0) & ~select.POLLOUT:
            output = self._read()
            if output == b"":
                return False
            self._show(output)
        if self._stdin_fd is not None and self._stdin_fd in ready:
            self._typed = self._read_typed(self._stdin_fd)
            if not self._typed:
                self._stdin_fd = None
                self._is_hung_up = self._is_terminal
                return not self._is_hung_up
        if self._typed:
            self._type()
        return True

    def _read_typed(self, stdin_fd: int) -> bytes:
        """What was typed; empty when the terminal has gone, since ^D is a byte like any other in raw mode."""
        try:
            return os.read(stdin_fd, _CHUNK)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return b""

    def _poll(self) -> select.poll:
        """What to wait for: more typing only once all that was typed has been taken."""
        poll = select.poll()
        poll.register(self._woken_fd, select.POLLIN)
        poll.register(self._master_fd, select.POLLIN | (select.POLLOUT if self._typed else 0))
        if self._stdin_fd is not None and not self._typed:
            poll.register(self._stdin_fd, select.POLLIN)
        return poll

    def _read(self) -> bytes | None:
        """Output of the container; None when there is none now, empty when there never will be (EIO: all have gone)."""
        try:
            return os.read(self._master_fd, _CHUNK)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno == errno.EIO:
                return b""
            raise

    def _show(self, output: bytes | None) -> bool:
        """Pass output on; whether there was any."""
        rest = memoryview(output or b"")
        while rest:
            rest = rest[os.write(self._stdout_fd, rest) :]
        return bool(output)

    def _type(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._typed = self._typed[os.write(self._master_fd, self._typed) :]
