"""The options that all commands have that speak to registries."""

from __future__ import annotations

import argparse

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


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise argparse.ArgumentTypeError(f'"{text}" is not true or false')
