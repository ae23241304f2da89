"""Where the lock file of a Dockerfile is, and how --locked puts it in force."""

from __future__ import annotations

import argparse
import os

from builder.commands import Environment
from builder.context import BuildContext
from builder.contexts.opening import Source, open_context
from builder.errors import BuildError, UsageError
from builder.locked import LockedSources
from builder.lockfile import Entry, Key, parse
from builder.resolver import StoreResolver


def lock_path(given: str, context: BuildContext | None, cwd: str, *, option: str) -> tuple[str, str]:
    """The file that `option` gives, or else the Dockerfile's path and `.lock`; and its name in messages.

    Raises UsageError when there is none.
    """
    if given:
        return os.path.join(cwd, given), given
    if context is None or not context.dockerfile_path:
        raise UsageError("the Dockerfile is no file here that a lock could lie beside", hint=f"name it: {option}FILE")
    return f"{context.dockerfile_path}.lock", f"{context.dockerfile}.lock"


def read_lock(path: str, shown: str) -> dict[Key, Entry] | None:
    """The entries of a lock file, None when there is no such file. Raises BuildError."""
    try:
        with open(path, "rb") as file:
            return parse(file.read(), shown)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BuildError(f"{shown}: {(error.strerror or str(error)).lower()}") from error


def open_locked(args: argparse.Namespace, env: Environment, source: Source, resolver: StoreResolver) -> BuildContext:
    """The context, after what --locked says is in force; a context that is fetched is locked itself, by the file that
    the option names.

    Raises BuildError when there is no lock, UsageError with --pull.
    """
    if args.pull:
        raise UsageError("--pull asks what names mean now, --locked does not", hint="give one of the two")
    context = None if args.locked else open_context(args.context, args.file, source)
    path, shown = lock_path(args.locked, context, env.cwd, option="--locked=")
    lock = read_lock(path, shown)
    if lock is None:
        raise BuildError(f"{shown} does not exist", hint="write it: pybuild lock, with the options of the build")
    assert source.fetcher.images is not None
    locked = LockedSources(lock, shown, source.fetcher.images)
    resolver.pins = source.fetcher.pins = locked
    return context or open_context(args.context, args.file, source)
