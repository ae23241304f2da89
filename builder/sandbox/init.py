"""The beginning of pid 1 in a sandbox: perform the plan, or say which operation failed and why.

Runs in the process that the launcher forked, under `python -I -S`; never returns.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from builder.sandbox.operations import Operation, SandboxState
from builder.sandbox.wire import EXIT_NOT_STARTED, encode_failure


def run_plan(plan: Sequence[Operation], state: SandboxState) -> None:
    """Perform every operation; the last one replaces this process, so that only failures come back here."""
    status = EXIT_NOT_STARTED
    try:
        os.umask(0)
        for operation in plan:
            try:
                operation.perform(state)
            except BaseException as error:
                message, status = encode_failure(operation.describe(), error)
                with contextlib.suppress(OSError):
                    state.control.send(message)
                break
    finally:
        os._exit(status)
