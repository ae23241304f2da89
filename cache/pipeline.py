"""A second thread for the second half of a stream's work. Knows nothing of the stream.

Hashing and compression release the interpreter, so two stages run on two cores.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType

_DEPTH = 8


class Stage:
    """Calls `work` in a thread of its own with each chunk, in order; at most a few chunks wait.

    Leaving the block waits for the last one. What `work` raises comes out of the next `put`, or of leaving the block.
    """

    def __init__(self, work: Callable[[bytes], object]) -> None:
        self._work = work
        self._queue: queue.Queue[bytes | None] = queue.Queue(_DEPTH)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="stage", daemon=True)

    def put(self, chunk: bytes) -> None:
        """Hand over a chunk; waits while too many are waiting."""
        if self._error is not None:
            raise self._error
        self._queue.put(chunk)

    def __enter__(self) -> Stage:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (chunk := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._work(chunk)
                except BaseException as error:
                    self._error = error
