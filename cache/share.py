"""Parts of one piece of work, done by several processes that take them as they come.

For work of many short calls to the kernel: threads would wait for each other, since handing over the interpreter takes
longer than such a call. A helper is a fork. It must not touch locks or connections of the process that it came from.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

MOST_PARTS = 256
_CHUNK = 1 << 20


def share(work: Callable[[Iterable[int]], bytes], parts: int, helpers: int) -> list[bytes]:
    """What `work` returned here, and in each helper that came to an end with it.

    Every number below `parts` (at most MOST_PARTS) is given to one `work` alone; so numbers that none of the results
    speaks of are those of a helper that failed. Raises what `work` raises here.
    """
    claims, filling = os.pipe2(os.O_CLOEXEC)
    os.write(filling, bytes(range(parts)))
    os.close(filling)
    started: list[_Helper] = []
    try:
        with contextlib.suppress(OSError):  # no more processes: then these have more to do
            for _ in range(helpers):
                started.append(_Helper(work, claims))
        results = [work(_claimed(claims)), *(helper.result() for helper in started)]
        return [result for result in results if result]
    finally:
        os.close(claims)
        for helper in started:
            helper.end()


def _claimed(claims: int) -> Iterator[int]:
    """Parts that nobody else has, until there are no more: of a pipe, every byte is read once."""
    while number := os.read(claims, 1):
        yield number[0]


class _Helper:
    """A fork at work. OSError where no process may be started."""

    def __init__(self, work: Callable[[Iterable[int]], bytes], claims: int) -> None:
        self._result_fd, writing = os.pipe2(os.O_CLOEXEC)
        self._is_over = False
        try:
            self._pid = os.fork()
        except OSError:
            os.close(self._result_fd)
            raise
        else:
            if not self._pid:
                _help(work, claims, writing)
        finally:
            os.close(writing)

    def result(self) -> bytes:
        """What it wrote, all or nothing."""
        chunks = []
        while chunk := os.read(self._result_fd, _CHUNK):
            chunks.append(chunk)
        self._is_over = True
        _, status = os.waitpid(self._pid, 0)
        return b"" if status else b"".join(chunks)

    def end(self) -> None:
        """Leave nothing of it."""
        os.close(self._result_fd)
        if not self._is_over:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)


def _help(work: Callable[[Iterable[int]], bytes], claims: int, writing: int) -> NoReturn:
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM):  # what the parent does then is not for a helper to do
            signal.signal(number, signal.SIG_DFL)
        result = memoryview(work(_claimed(claims)))
        while result:
            result = result[os.write(writing, result) :]
        code = 0
    finally:
        os._exit(code)
