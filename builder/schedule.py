"""Running what has to run, several at a time, each after its inputs.

Threads: the work is in the kernel, in other processes and in libraries that let go of the interpreter. The order of the
list is the order of preference (longest chain first).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence

from builder.plan import SCRATCH
from builder.state import VertexState


def default_jobs() -> int:
    """How many vertices run at once when nobody says: steps wait more than they compute."""
    return max(4, 2 * (os.cpu_count() or 1))


class Schedule:
    """One run over a set of vertices. The first error stops what has not begun; it is raised when the rest ended."""

    def __init__(self, states: Sequence[VertexState], run_one: Callable[[VertexState], None]) -> None:
        own = {state.index for state in states}
        self._waiting_for = {
            state.index: {source for source in state.vertex.inputs if source != SCRATCH and source in own}
            for state in states
        }
        self._pending = list(states)
        self._run_one = run_one
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def run(self, jobs: int, *, cancel: Callable[[], None]) -> None:
        """Run everything on at most `jobs` threads, the caller's among them when one is enough.

        `cancel` is called on an interrupt, to end what runs. Raises the first error of a vertex.
        """
        width = min(jobs, len(self._pending))
        if width <= 1:
            self._work(cancel)
        else:
            self._run_threads(width, cancel)
        if self._error is not None:
            raise self._error

    def _run_threads(self, width: int, cancel: Callable[[], None]) -> None:
        threads = [threading.Thread(target=self._work, args=(cancel,), daemon=True) for _ in range(width)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException as error:
            self._stop(error)
            cancel()
            for thread in threads:
                thread.join()

    def _stop(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            self._pending.clear()
            self._changed.notify_all()

    def _work(self, cancel: Callable[[], None]) -> None:
        while (state := self._next()) is not None:
            try:
                self._run_one(state)
            except BaseException as error:
                self._stop(error)
                if not isinstance(error, Exception):
                    cancel()
            finally:
                self._finish(state)

    def _next(self) -> VertexState | None:
        """The first vertex whose inputs are done; waits for one, None when nothing is left."""
        with self._changed:
            while True:
                for state in self._pending:
                    if not self._waiting_for[state.index]:
                        self._pending.remove(state)
                        return state
                if not self._pending:
                    return None
                self._changed.wait()

    def _finish(self, state: VertexState) -> None:
        with self._changed:
            for sources in self._waiting_for.values():
                sources.discard(state.index)
            self._changed.notify_all()
