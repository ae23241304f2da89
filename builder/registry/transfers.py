"""How far transfers are, for whoever shows it: not more often than eyes can follow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeAlias

_INTERVAL = 0.1

OnTransfer: TypeAlias = Callable[[str, int, int], None]
"""Called with the digest of a blob, the bytes that have gone or come, and all that there are."""


def silent(_digest: str, _current: int, _total: int) -> None:
    """Nobody looks."""


class Progress:
    """One blob's transfer."""

    def __init__(self, on_transfer: OnTransfer, digest: str, total: int) -> None:
        self._on_transfer = on_transfer
        self._digest = digest
        self._total = total
        self._current = 0
        self._told = 0.0
        self._is_ended = False
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        """So many bytes more."""
        with self._lock:
            self._current += size
            now = time.monotonic()
            is_due = now - self._told >= _INTERVAL or self._current >= self._total
            if self._is_ended or not is_due:
                return
            self._told = now
            self._is_ended = self._current >= self._total
        self._on_transfer(self._digest, min(self._current, self._total), self._total)

    def reset(self) -> None:
        """From the start again."""
        with self._lock:
            self._current = 0
            self._is_ended = False

    def end(self) -> None:
        """All of it is there."""
        self.add(self._total - self._current)
