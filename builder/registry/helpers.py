"""Credential helpers: programs that keep passwords for docker and podman, asked over their standard input.

Source: docker-credential-helpers, protocol (get, store, erase). Secrets go through pipes, never through arguments.
"""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

from builder.errors import BuildError
from builder.registry.errors import DeniedError, shown

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SECONDS = 60
_ABSENT = "credentials not found"


def get(name: str, server: str) -> tuple[str, str] | None:
    """User name and secret for a server, None when the helper has none. DeniedError when it fails."""
    done = _run(name, "get", server.encode())
    if done.returncode:
        said = (done.stdout or done.stderr).decode("utf-8", "replace")
        if _ABSENT in said:
            return None
        raise DeniedError(f"credential helper {name} failed for {server}: {shown(said)}", hint=_hint(name))
    try:
        document: Any = json.loads(done.stdout)
        return str(document["Username"]), str(document["Secret"])
    except (ValueError, KeyError, TypeError) as error:
        raise DeniedError(f"credential helper {name} printed no credentials for {server}", hint=_hint(name)) from error


def store(name: str, server: str, *, user: str, secret: str) -> None:
    """Let the helper keep a secret. DeniedError when it fails."""
    document = json.dumps({"ServerURL": server, "Username": user, "Secret": secret})
    _check(name, "store", server, _run(name, "store", document.encode()))


def erase(name: str, server: str) -> None:
    """Let the helper forget a server. Idempotent."""
    done = _run(name, "erase", server.encode())
    if _ABSENT not in (done.stdout + done.stderr).decode("utf-8", "replace"):
        _check(name, "erase", server, done)


def _check(name: str, deed: str, server: str, done: subprocess.CompletedProcess[bytes]) -> None:
    if done.returncode:
        said = shown((done.stderr or done.stdout).decode("utf-8", "replace"))
        raise DeniedError(f"credential helper {name} cannot {deed} {server}: {said}", hint=_hint(name))


def _run(name: str, deed: str, given: bytes) -> subprocess.CompletedProcess[bytes]:
    """A name is part of a program's name, so nothing else may be in it: it comes from a file."""
    if not _NAME.fullmatch(name):
        raise BuildError(
            f"credential helper {shown(name)!r} is not a valid name", hint="letters, digits, '-', '_' and '.' are"
        )
    program = f"docker-credential-{name}"
    try:
        return subprocess.run([program, deed], input=given, capture_output=True, check=False, timeout=_SECONDS)
    except FileNotFoundError as error:
        raise DeniedError(
            f"credential helper {program} is not installed", hint="see credsStore in config.json"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise DeniedError(f"credential helper {program} did not answer in {_SECONDS} s") from error
    except OSError as error:
        raise DeniedError(f"credential helper {program}: {(error.strerror or '').lower()}") from error


def _hint(name: str) -> str:
    return f"docker-credential-{name} is named by credsStore or credHelpers of the configuration"
