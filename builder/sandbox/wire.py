"""The messages between the launcher and those who use it.

On the control socket (a stream): a header, for RUN with the descriptors of the step's own socket, its streams and its
sources of mounts, and then the JSON of the spec and the root; the launcher passes the same on to the process that
becomes the step. For NETWORK a socket for the answer, and the directory that pyroute2 is in. On the step's socket
(packets of JSON) come `ready` or `failure`, both with the mount points that were made, and at last `exit`. Runs under
`python -I -S`.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

from builder.errors import BuildError, SandboxError
from builder.sandbox.spec import Device, ExitStatus, Limits, Mount, ProcessSpec, RootMount
from builder.sandbox.usage import Usage
from cache.namedtuple import NamedTuple

CONTROL_FD, NAMESPACE_FD = 3, 4
HEADER = struct.Struct("=cIIi")
"""RUN, RUN_INSECURE, RUN_LIMITED, KILL or NETWORK; step; size of what follows; signal, or flags."""
RUN, RUN_INSECURE, RUN_LIMITED, KILL, NETWORK = b"r", b"i", b"l", b"k", b"n"
OWN_NETWORK, MAY_CHANGE_NETWORK = 1, 2
"""Flags in the number of a RUN: the launcher adds a network namespace as the last descriptor; no other step gets it."""
MAX_FDS = 250
MAX_REPLY = 1 << 20
EXIT_NOT_STARTED = 125


class CommandError(BuildError):
    """The program could not be started. `status` is what a shell would return: 127 not found, 126 not executable."""

    def __init__(self, message: str, *, status: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Stub(NamedTuple):
    """A mount point that was made in the upper directory, and the inode it had there."""

    path: str
    inode: int


class Message(NamedTuple):
    """One request as it came."""

    kind: bytes
    step: int
    number: int
    body: bytes
    fds: tuple[int, ...]


def send_message(connection: socket.socket, message: Message) -> None:
    """Send a request. Raises OSError when nobody is there any more."""
    header = HEADER.pack(message.kind, message.step, len(message.body), message.number)
    socket.send_fds(connection, [header], message.fds)
    connection.sendall(message.body)


def receive_message(connection: socket.socket) -> Message | None:
    """The next request, its descriptors close-on-exec; None at the end, also in the middle of one."""
    header, fds, _, _ = socket.recv_fds(connection, HEADER.size, MAX_FDS, socket.MSG_CMSG_CLOEXEC)
    header += _receive(connection, HEADER.size - len(header)) if header else b""
    if len(header) < HEADER.size:
        return None
    kind, step, size, number = HEADER.unpack(header)
    body = _receive(connection, size)
    return Message(kind, step, number, body, tuple(fds)) if len(body) == size else None


def _receive(connection: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes, fewer at the end of the connection."""
    received = bytearray()
    while len(received) < size:
        chunk = connection.recv(size - len(received))
        if not chunk:
            break
        received += chunk
    return bytes(received)


def encode(spec: ProcessSpec, root: RootMount) -> bytes:
    """A request. Sources of mounts that are descriptors must have been replaced by their place in the message."""
    return json.dumps([spec, root], separators=(",", ":")).encode("ascii")


def decode(message: bytes) -> tuple[ProcessSpec, RootMount]:
    """The values that `encode` was given."""
    spec_fields, root_fields = json.loads(message)
    spec = ProcessSpec(*spec_fields)
    mounts = tuple(Mount(*fields) for fields in spec.mounts)
    spec = spec._replace(devices=tuple(Device(*fields) for fields in spec.devices))
    limits, build_limits = _limits(spec.limits), _limits(spec.build_limits)
    return spec._replace(mounts=mounts, limits=limits, build_limits=build_limits), RootMount(*root_fields)


def _limits(fields: Sequence[Any]) -> Limits:
    limits = Limits(*fields)
    return limits._replace(io_rates=tuple((device, kind, rate) for device, kind, rate in limits.io_rates))


def encode_exit(status: ExitStatus) -> bytes:
    """The last message about a step."""
    return json.dumps({"exit": status}).encode("ascii")


def decode_exit(fields: Sequence[Any]) -> ExitStatus:
    """The status that `encode_exit` was given."""
    status = ExitStatus(*fields)
    return status._replace(usage=Usage(*status.usage))


def encode_failure(phase: str, error: BaseException, stubs: Sequence[Stub] = ()) -> tuple[bytes, int]:
    """The message about an operation that failed after `stubs` had been made, and the exit code for it."""
    hint = error.hint if isinstance(error, BuildError) else None
    kind, text, status = "sandbox", f"{phase}: {_reason(error)}", EXIT_NOT_STARTED
    if isinstance(error, CommandError):
        kind, text, status = "command", str(error), error.status
    elif isinstance(error, BuildError) and not isinstance(error, SandboxError):
        kind, text = "user", str(error)
    failure = {"kind": kind, "message": text, "hint": hint, "status": status}
    return json.dumps({"failure": failure, "stubs": stubs}).encode("ascii"), status


def decode_failure(failure: dict[str, Any]) -> BuildError:
    """The error that `encode_failure` was given; a SandboxError when nobody but the system is at fault."""
    message, hint = failure["message"], failure["hint"]
    if failure["kind"] == "command":
        return CommandError(message, status=failure["status"], hint=hint)
    return (BuildError if failure["kind"] == "user" else SandboxError)(message, hint=hint)


def _reason(error: BaseException) -> str:
    if isinstance(error, SandboxError):
        return str(error)
    if not isinstance(error, OSError) or not error.strerror:
        return f"{type(error).__name__}: {error}"
    # A call of `os` only has the capitalised text of the C library.
    return error.strerror.lower() + (f": {error.filename}" if error.filename is not None else "")
