"""Which network a process gets: what was asked for, and what the machine can give.

`default` is a network of the build's own. A machine that keeps /dev/net/tun from its users, or a container without it,
can have none for them: there it is the machine's, which is said once. What could be mended, a program that is not
installed, is an error instead, as everything is for `bridge`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from builder.errors import SandboxError
from builder.sandbox.network import BRIDGE, HOST, NONE

if TYPE_CHECKING:
    from builder.sandbox.launcher import Launcher


class NetworkChoice:
    """One for a build or a container. Safe to use from several threads."""

    def __init__(self, *, is_own_required: bool = False) -> None:
        self.is_own_required = is_own_required
        self._lock = threading.Lock()
        self._was_said = False

    def mode(self, asked: str, launcher: Launcher, say: Callable[[str], None]) -> str:
        """`none`, `host` or `bridge` for what was asked. Raises SandboxError when there is no network of one's own
        although it was insisted on, or there could be one; `say` hears, once, what a user has to know about this
        machine's network."""
        if asked in (NONE, HOST):
            return asked
        try:
            network = launcher.network()
        except SandboxError as error:
            from builder.sandbox.net.userspace import has_tun

            if asked == BRIDGE or self.is_own_required or has_tun():
                raise SandboxError(f"no network for the step: {error}", hint=error.hint) from error
            self._say_once([f"the network of RUN is the host's: {error}"], say)
            return HOST
        self._say_once(network.notes, say)
        return BRIDGE

    def _say_once(self, texts: list[str] | tuple[str, ...], say: Callable[[str], None]) -> None:
        with self._lock:
            if not self._was_said:
                self._was_said = True
                for text in texts:
                    say(text)
