"""Work in a thread of its own: what changes that thread's namespaces, and nobody else's, and ends with it (setns(2)).

Runs under `python -I -S`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from builder.sandbox import syscalls

T = TypeVar("T")


def in_thread(work: Callable[[], T]) -> T:
    """What `work` returns, or the exception it raises, in a thread that ends with it."""
    import threading

    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def in_mount_namespace(work: Callable[[], T]) -> T:
    """The same with a mount namespace for as long as it takes, from which nothing is seen elsewhere. Raises OSError."""

    def run() -> T:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
        return work()

    return in_thread(run)
