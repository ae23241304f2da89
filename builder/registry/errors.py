"""What can go wrong between this machine and a registry. The text of a server is quoted, never trusted."""

from __future__ import annotations

import json
from typing import Any

from builder.errors import BuildError

_SHOWN = 300
"""Characters of a server's text that a message repeats at the most."""


class RegistryError(BuildError):
    """A registry could not do what was asked, or did it wrongly."""

    status = 0
    """The HTTP status behind it, 0 for none."""
    wait: float | None = None
    """Seconds that the registry asks to wait before another try."""


class NotFoundError(RegistryError):
    """The registry says that it has no such thing."""


class DeniedError(RegistryError):
    """The registry wants other credentials, or any."""


class UnreachableError(RegistryError):
    """No answer could be had: network, name, proxy, TLS, or a server that stays out of order."""


class WrongContentError(RegistryError):
    """The registry sent bytes that are not what their digest or size promises."""


class CancelledError(RegistryError):
    """The user ended the command."""


def shown(text: str) -> str:
    """Text of a server for a message: one line, printable, short."""
    line = "".join(char if char.isprintable() else " " for char in text).strip()
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def server_errors(body: bytes) -> list[tuple[str, str]]:
    """The codes and messages of an error body (distribution-spec, Error Codes), none when it is something else."""
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        return []
    errors = document.get("errors") if isinstance(document, dict) else None
    found = []
    for error in errors if isinstance(errors, list) else []:
        if isinstance(error, dict):
            found.append((shown(str(error.get("code") or "")), shown(str(error.get("message") or ""))))
    return found


def describe_answer(status: int, reason: str, body: bytes) -> str:
    """What a server answered, for a message: `404 Not Found (MANIFEST_UNKNOWN: manifest unknown)`."""
    said = "; ".join(": ".join(filter(None, pair)) for pair in server_errors(body)[:3])
    head = f"{status} {shown(reason)}".strip()
    return f"{head} ({said})" if said else head
