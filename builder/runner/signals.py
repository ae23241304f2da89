"""Signals for pybuild that are meant for the program it runs. Knows no container: `deliver` is given to it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_PATIENCE = 3
_WARNING = b"pybuild: the program has not ended, interrupt once more to kill it\n"


class Forwarding:
    """Inside the block, signals go to the program; those that come before it has started wait for it.

    Pid 1 of a container ignores what it has no handler for (pid_namespaces(7)), so the third SIGINT becomes a SIGKILL.
    What was ignored when pybuild started, as under nohup(1), stays ignored. For the main thread.
    """

    def __init__(self, stderr_fd: int = 2) -> None:
        self._stderr_fd = stderr_fd
        self._before: dict[int, Any] = {}
        self._waiting: list[int] = []
        self._deliver: Callable[[int], None] | None = None
        self._interrupts = 0
        self._is_delivering = False

    def __enter__(self) -> Forwarding:
        for number in FORWARDED:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def started(self, deliver: Callable[[int], None]) -> None:
        """The program runs: pass everything on by `deliver(signal number)`."""
        self._deliver = deliver
        self._flush()

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts == _PATIENCE - 1:
                os.write(self._stderr_fd, _WARNING)
            if self._interrupts >= _PATIENCE:
                number = signal.SIGKILL
        self._waiting.append(number)
        self._flush()

    def _flush(self) -> None:
        """Pass on what waits. A signal may come while another is delivered, by what cannot be entered twice."""
        while self._waiting and self._deliver is not None and not self._is_delivering:
            self._is_delivering = True
            try:
                self._deliver(self._waiting.pop(0))
            finally:
                self._is_delivering = False
