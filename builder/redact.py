"""What may be shown: of a URL everything but the user and the password in it, of a variable what its name allows."""

from __future__ import annotations

import re

_USER = re.compile(r"((?!ssh:)\b[a-z][a-z0-9+.-]*://)[^/?#\s\"']*@", re.IGNORECASE)
_SSH_PASSWORD = re.compile(r"(\bssh://[^/?#\s\"':@]*):[^/?#\s\"']*@", re.IGNORECASE)

_SECRET_NAMES = re.compile(
    "(?:_|^)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_OTHER_NAMES = re.compile("(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether a variable of that name looks as if it held a secret. Source: BuildKit's SecretsUsedInArgOrEnv."""
    return _SECRET_NAMES.search(name) is not None and _OTHER_NAMES.search(name) is None


def redact(text: str) -> str:
    """`text` without the users and passwords of the URLs in it; of ssh URLs, whose user is public, the password."""
    if "@" not in text:
        return text
    return _SSH_PASSWORD.sub(r"\1@", _USER.sub(r"\1", text))
