"""One module per subcommand: wiring only, imported when called.

A command module has `add_arguments(parser)` and `run(args, env) -> exit code`, and a docstring whose first line is the
command's help.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, TextIO

from builder.errors import SandboxError
from cache.namedtuple import NamedTuple

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

    def open_store(self, *, reads_trees: bool = False) -> "Store":
        """The store, whose layers' directories this process gets the privileges for when it comes to use them, or,
        if it `reads_trees` whatever else it does, at once and where it can."""
        from cache.store import Store

        def take() -> None:
            from builder.sandbox.userns import take_privileges

            take_privileges(self.stderr.write)

        if reads_trees:
            with suppress(SandboxError):
                take()
        store = Store.open(self.root, clock=self.clock, on_trees=take)
        store.on_left_out(lambda names: print(left_out(names), file=self.stderr))
        return store


def left_out(names: tuple[str, ...]) -> str:
    """The warning that a layer is unpacked without these device nodes."""
    nodes = "1 device node" if len(names) == 1 else f"{len(names)} device nodes"
    return (
        f"warning: {nodes} of a layer left out, only root can make them: {'/' + names[0]!r}{', …' if names[1:] else ''}"
    )
