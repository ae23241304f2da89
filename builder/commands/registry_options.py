"""The options that all commands have that speak to registries."""

from __future__ import annotations

import argparse
import threading
import time

from builder.commands import Environment
from builder.progress import KINDS, new_reporter, progress_kind

_TRUE = ("1", "t", "true", "yes")
_FALSE = ("0", "f", "false", "no")


def add_tls_verify(parser: argparse.ArgumentParser) -> None:
    """--tls-verify, as podman spells it."""
    parser.add_argument(
        "--tls-verify",
        type=_boolean,
        nargs="?",
        const=True,
        default=True,
        metavar="true|false",
        help="false: take any certificate, or no TLS at all (registries.conf says it for good)",
    )


def add_progress(parser: argparse.ArgumentParser) -> None:
    """--progress and --quiet."""
    note = "how to show progress (default: auto)"
    parser.add_argument("--progress", default="auto", type=progress_kind, choices=KINDS, help=note)
    parser.add_argument("-q", "--quiet", action="store_true", help="print the digest alone")


class Transfers:
    """The transfers of one command on a reporter, which `wanted` names: each blob is shown like a vertex of a build."""

    def __init__(self, wanted: str, env: Environment) -> None:
        self._reporter = new_reporter(wanted, env.stderr, 0)
        self._lock = threading.Lock()
        self._begun: dict[str, tuple[int, float]] = {}
        self._done: set[str] = set()

    def __call__(self, digest: str, current: int, total: int) -> None:
        """See OnTransfer."""
        with self._lock:
            if digest in self._done:
                return
            if digest not in self._begun:
                self._begun[digest] = (-1 - len(self._begun), time.perf_counter())
                self._reporter.started(self._begun[digest][0], digest[:19])
            index, began = self._begun[digest]
            self._reporter.transfer(index, digest, current, total)
            if current >= total:
                self._done.add(digest)
                self._reporter.done(index, time.perf_counter() - began, cached=False)

    def __enter__(self) -> Transfers:
        return self

    def __exit__(self, *_: object) -> None:
        self._reporter.close()


def transfers(args: argparse.Namespace, env: Environment) -> Transfers:
    """The transfers as `add_progress` says."""
    return Transfers("quiet" if args.quiet else args.progress, env)


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise argparse.ArgumentTypeError(f'"{text}" is not true or false')
