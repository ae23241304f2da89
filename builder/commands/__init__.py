"""One module per subcommand: wiring only, imported when called.

A command module has `add_arguments(parser)` and `run(args, env) -> exit code`, and a docstring whose first line is the
command's help.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TextIO

if TYPE_CHECKING:
    from cache.store import Store


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

    def open_store(self) -> Store:
        """The store, whose layers' directories this process gets the privileges for when it comes to use them."""
        from builder.sandbox.userns import take_privileges
        from cache.store import Store

        return Store.open(self.root, clock=self.clock, on_trees=partial(take_privileges, self.stderr.write))
