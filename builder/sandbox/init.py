"""The beginning of pid 1 in a sandbox: prepare, wait for the request, perform its plan, or say what failed and why.

Runs in a process that the launcher forked ahead, under `python -I -S`; never returns.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence

from builder.errors import BuildError
from builder.sandbox import syscalls
from builder.sandbox.operations import Operation, SandboxState
from builder.sandbox.plan import Surroundings, device_attributes, plan, preparation
from builder.sandbox.wire import CONTROL_FD, EXIT_NOT_STARTED, Message, decode, encode_failure, receive_message

Failure = tuple[str, BaseException]
"""What was being done, and what went wrong."""


def run_step(requests_fd: int, surroundings: Surroundings) -> None:
    """Be the next step. The descriptor is where the launcher sends the request, all others are closed."""
    status = EXIT_NOT_STARTED
    try:
        os.dup2(requests_fd, CONTROL_FD, inheritable=False)
        syscalls.close_range(CONTROL_FD + 1)
        os.umask(0)
        state = SandboxState()
        failure = _perform(preparation(surroundings), state)
        message = receive_message(socket.socket(fileno=CONTROL_FD))
        if message is not None:
            status = _answer(message, state, surroundings, failure)
    finally:
        os._exit(status)


def _answer(message: Message, state: SandboxState, surroundings: Surroundings, failure: Failure | None) -> int:
    """Perform the plan of a request; comes back only when something failed, with the exit code for that."""
    control = socket.socket(fileno=message.fds[0])
    state.fds = message.fds[1:]
    state.device_attributes = device_attributes(surroundings)
    if failure is None:
        try:
            operations = plan(*decode(message.body), surroundings, control)
        except BuildError as error:
            failure = ("plan the sandbox", error)
        else:
            failure = _perform(operations, state)
    assert failure is not None, "the last operation replaces this process"
    text, status = encode_failure(*failure, state.stubs)
    with contextlib.suppress(OSError):
        control.send(text)
    return status


def _perform(operations: Sequence[Operation], state: SandboxState) -> Failure | None:
    for operation in operations:
        try:
            operation.perform(state)
        except BaseException as error:
            return operation.describe(), error
    return None
