"""The parser of a command line: argparse, which says in one line what is wrong.

argparse comes with gettext, which compiles a grammar of plural forms, imports `locale` and looks for catalogues: 5 % of
a cached build, for texts that nobody translated. So this module is its door.
"""

from __future__ import annotations

import functools
import os
import sys
import types
from typing import NoReturn

if "gettext" not in sys.modules:
    _stub = types.ModuleType("gettext")
    _stub.gettext = lambda text: text  # type: ignore[attr-defined]
    _stub.ngettext = lambda one, many, n: one if n == 1 else many  # type: ignore[attr-defined]
    sys.modules["gettext"] = _stub
    import argparse

    del sys.modules["gettext"]  # others may want the real one
else:
    import argparse

from builder.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; the list of all options would hide it. Raises UsageError."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog.partition(' ')[2]}: {message}", hint=f"{self.prog} --help shows the options")


def new_parser(prog: str, description: str) -> Parser:
    """The parser of a command; its help is as wide as the terminal."""
    return Parser(prog, description=description, allow_abbrev=False, formatter_class=_formatter)


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, max_help_position=34, width=_help_width())


@functools.cache
def _help_width() -> int:
    """Asked of the system here, because argparse would import shutil for it; once, because it asks for every option."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns - 2
    except (OSError, ValueError):
        return 98
