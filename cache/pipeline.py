"""A second thread for one half of a stream's work: for what is done with it, or for where it comes from. Knows nothing
of the stream.

Hashing and compression release the interpreter, so two stages run on two cores.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType

from cache.blobs import Readable

_DEPTH = 8
_AHEAD = 1 << 18
_PATIENCE = 1.0
"""Seconds to wait for a read that nobody wants any more; its thread is left alone then."""


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


class ReadAhead:
    """Reads a stream in a thread of its own, a few chunks before they are asked for.

    What reading raises comes out of `read`. After an error of the block the thread may still be in a last read of the
    stream, whose owner closes it.
    """

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(_DEPTH)
        self._chunk = memoryview(b"")
        self._is_ended = False
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, none at the end."""
        if not self._chunk and not self._is_ended:
            got = self._queue.get()
            if isinstance(got, BaseException):
                self._is_ended = True
                raise got
            self._is_ended = not got
            self._chunk = memoryview(got)
        taken = self._chunk if size < 0 else self._chunk[:size]
        self._chunk = self._chunk[len(taken) :]
        return taken.tobytes()

    def _run(self) -> None:
        try:
            while not self._is_stopped:
                chunk = self._stream.read(_AHEAD)
                self._queue.put(chunk)
                if not chunk:
                    return
        except BaseException as error:
            self._queue.put(error)

    def __enter__(self) -> ReadAhead:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_stopped = True
        while not self._queue.empty():
            self._queue.get_nowait()
        self._thread.join(_PATIENCE)
