"""Commands in this process, on a store of their own."""

from __future__ import annotations

import argparse
import importlib
import io
from pathlib import Path

from builder.commands import Environment

NOW = 1_600_000_000 * 10**9


class Shell:
    """Runs commands as the command line does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.binary = b""
        self.now = NOW

    def __call__(self, *words: str) -> str:
        command = importlib.import_module(f"builder.commands.{words[0]}")
        parser = argparse.ArgumentParser(exit_on_error=False)
        command.add_arguments(parser)
        stdout, stdout_bytes = io.StringIO(), io.BytesIO()
        root, cwd = str(self.directory / "store"), str(self.directory)
        environment = Environment(stdout, stdout_bytes, io.StringIO(), {}, cwd, root, lambda: self.now)
        assert command.run(parser.parse_args(words[1:]), environment) == 0
        self.binary = stdout_bytes.getvalue()
        return stdout.getvalue()

    def lines(self, *words: str) -> list[list[str]]:
        return [line.split() for line in self(*words).splitlines()]
