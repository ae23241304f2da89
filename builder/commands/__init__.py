"""One module per subcommand: wiring only, imported when called.

A command module has `add_arguments(parser)` and `run(args, env) -> exit code`, and a docstring whose first line is the
command's help.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import BinaryIO, NamedTuple, TextIO


class Environment(NamedTuple):
    """What a command sees of the process it runs in; tests give it their own."""

    stdout: TextIO
    stdout_bytes: BinaryIO
    stderr: TextIO
    environ: Mapping[str, str]
    cwd: str
    root: str
    """The store's directory."""
    clock: Callable[[], int]
    """Nanoseconds since the epoch."""
