"""Several transfers at a time, on threads that die with the command. Knows nothing of what they do."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType

WIDTH = 4
"""Transfers at once: registries count connections."""
_PATIENCE = 2.0
"""Seconds for what runs to notice that it was cancelled; its threads do not keep the process."""


class Tasks:
    """Carries out tasks in order, at most `width` at once. The first error lets no further one begin.

    Leaving the block waits for all and raises the first error; when the block fails itself, `cancel` is called.
    """

    def __init__(
        self, tasks: Iterable[Callable[[], object]] = (), *, cancel: Callable[[], None], width: int = WIDTH
    ) -> None:
        self._pending = deque(tasks)
        self._cancel = cancel
        self._width = width
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._is_complete = False
        self._threads: list[threading.Thread] = []

    def add(self, task: Callable[[], object]) -> None:
        """One more. Raises the error of one that failed meanwhile."""
        with self._changed:
            if self._error is not None:
                raise self._error
            self._pending.append(task)
            self._changed.notify()
        self._start()

    def _start(self) -> None:
        if len(self._threads) < self._width and self._pending:
            thread = threading.Thread(target=self._work, name="transfer", daemon=True)
            self._threads.append(thread)
            thread.start()

    def __enter__(self) -> Tasks:
        for _ in range(min(self._width, len(self._pending))):
            self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._complete(clear=error is not None)
            if error is not None:
                self._cancel()
            for thread in self._threads:
                thread.join(None if error is None else _PATIENCE)
        except BaseException:
            self._complete(clear=True)
            self._cancel()
            raise
        if self._error is not None and error is None:
            raise self._error

    def _complete(self, *, clear: bool) -> None:
        with self._changed:
            self._is_complete = True
            if clear:
                self._pending.clear()
            self._changed.notify_all()

    def _work(self) -> None:
        while (task := self._next()) is not None:
            try:
                task()
            except BaseException as error:
                with self._changed:
                    self._error = self._error or error
                    self._pending.clear()

    def _next(self) -> Callable[[], object] | None:
        with self._changed:
            while not self._pending and not self._is_complete and self._error is None:
                self._changed.wait()
            return self._pending.popleft() if self._pending else None


def run_tasks(tasks: Iterable[Callable[[], object]], *, cancel: Callable[[], None], width: int = WIDTH) -> None:
    """Carry out all tasks; raises the first error after those that had begun have ended."""
    with Tasks(tasks, width=width, cancel=cancel):
        pass
