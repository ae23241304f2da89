"""Locks between threads. `threading` has these very ones, and much that a build of known results has no use for."""

from _thread import RLock
from _thread import allocate_lock as Lock  # noqa: N812 - a factory that is used as a class

__all__ = ["Lock", "RLock"]
