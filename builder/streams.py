"""The process's standard streams, whatever it was started with: closed ones are opened, what a locale cannot show is
written as an escape, and what could not be written is found out before the end."""

import os
import sys
from typing import BinaryIO, TextIO

from cache.namedtuple import NamedTuple


def visible(text: str) -> str:
    """Text that no terminal obeys: what is not printable is written as an escape, but for ends of lines and tabs."""
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(char: str) -> str:
    if char.isprintable() or char in "\n\t":
        return char
    code = ord(char)
    is_byte = 0xDC80 <= code <= 0xDCFF
    return f"\\x{code - 0xDC00:02x}" if is_byte else char.encode("unicode_escape").decode("ascii")


class Streams(NamedTuple):
    """Where text goes, where bytes go, where errors go."""

    stdout: TextIO
    stdout_bytes: BinaryIO
    stderr: TextIO


def open_streams() -> Streams:
    """The streams of this process. What is closed stands for /dev/null from here on, so that no file of
    the store takes its number; bytes for a closed stdout cannot be written (EBADF), text goes nowhere."""
    if sys.stdin is None:
        sys.stdin = open(_null_fd(os.O_RDONLY), closefd=False)
    stdout_bytes: BinaryIO
    if sys.stdout is None:
        stdout_bytes = open(_null_fd(os.O_RDONLY), "wb", buffering=0, closefd=False)
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    else:
        stdout_bytes = sys.stdout.buffer
        if sys.stdout.errors in ("strict", "surrogateescape"):
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if sys.stderr is None:
        sys.stderr = open(_null_fd(os.O_WRONLY), "w", encoding="utf-8", closefd=False)
    return Streams(sys.stdout, stdout_bytes, sys.stderr)


def _null_fd(flags: int) -> int:
    """/dev/null under the lowest number that is free, which is the closed stream's: they are opened in order."""
    fd = os.open(os.devnull, flags)
    os.set_inheritable(fd, True)
    return fd


def finish(stdout: TextIO) -> str | None:
    """Write out what was printed; what prevented it, if something did, and nothing to say of a reader that is gone."""
    try:
        stdout.flush()
    except OSError as error:
        # Else the interpreter tries it again when it ends.
        null_fd = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_fd, 1)
        os.close(null_fd)
        return "" if isinstance(error, BrokenPipeError) else str(error.strerror).lower()
    return None
