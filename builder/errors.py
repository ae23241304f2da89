"""The errors of a build: what went wrong, where in the Dockerfile, and what to try.

`cli` is the only place that prints them. Exit codes: 1 the build failed, 2 usage, 125 the sandbox could not be made,
130 interrupted.
"""

from cache.namedtuple import NamedTuple


class Location(NamedTuple):
    """Lines of a Dockerfile, counted from 1, both ends included."""

    file: str
    start_line: int
    end_line: int


class BuildError(Exception):
    """A build, or a command on its results, failed because of the world outside."""

    exit_code = 1

    def __init__(
        self, message: str, *, hint: str | None = None, location: Location | None = None, output: str = ""
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.location = location
        self.output = output
        """The last lines that the failed step printed, for the report."""
        self.excerpt = ""
        """The lines of the Dockerfile at `location`, with a caret."""


class UsageError(BuildError):
    """The command line does not say something that can be done."""

    exit_code = 2


class SandboxError(BuildError):
    """The sandbox for a step or a container could not be made."""

    exit_code = 125
