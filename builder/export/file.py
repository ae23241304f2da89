"""Where an export goes: a file that appears whole, a device, or stdout. Knows bytes, no images."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Protocol

from builder.errors import BuildError, UsageError

STDOUT = "-"


class ByteSink(Protocol):
    """Something to write bytes to."""

    def write(self, chunk: bytes, /) -> object:
        """Append all of `chunk`."""


class ByteOutput(ByteSink, Protocol):
    """A standard output in binary mode."""

    def flush(self) -> object:
        """Hand everything on."""

    def isatty(self) -> bool:
        """Return whether a person would see the bytes."""


class _Descriptor:
    """Unbuffered writes to a file descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, chunk: bytes) -> None:
        written = os.write(self._fd, chunk)
        while written < len(chunk):
            written += os.write(self._fd, memoryview(chunk)[written:])


@contextlib.contextmanager
def open_destination(dest: str, stdout: ByteOutput) -> Iterator[ByteSink]:
    """Yield what to write to. A regular file is replaced as a whole when the block ends well, else left as it was.

    `-` is `stdout`, which must not be a terminal (UsageError); devices and pipes are written in place. What the system
    refuses is a BuildError that names `dest`.
    """
    try:
        if dest == STDOUT:
            if stdout.isatty():
                raise UsageError("refusing to write binary output to a terminal", hint="give a file with dest=PATH")
            yield stdout
            stdout.flush()
        elif _is_special(dest):
            fd = os.open(dest, os.O_WRONLY | os.O_CLOEXEC)
            with os.fdopen(fd, "wb", buffering=0):
                yield _Descriptor(fd)
        else:
            with replaced_file(os.path.realpath(dest)) as sink:
                yield sink
    except OSError as error:
        raise output_error(dest, error) from error


def _is_special(dest: str) -> bool:
    try:
        mode = os.stat(dest).st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise UsageError(f"dest {dest!r} is a directory, expected a file")
    return not stat.S_ISREG(mode)


@contextlib.contextmanager
def replaced_file(path: str) -> Iterator[ByteSink]:
    """Yield what to write to; `path` appears, or is replaced, when the block ends well (else nothing changes).

    Not synced: a result that can be built again is not worth the wait for the disk.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            with os.fdopen(fd, "wb", buffering=0):
                yield _Descriptor(fd)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise output_error(path, error) from error


def output_error(dest: str, error: OSError) -> BuildError:
    """Return the BuildError for what the system said while `dest` was written."""
    name = "stdout" if dest == STDOUT else repr(dest)
    hint = None
    if error.errno == errno.ENOENT:
        hint = "make its directory first"
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space there, or choose another dest"
    return BuildError(f"{name} cannot be written: {(error.strerror or str(error)).lower()}", hint=hint)
