"""What of a URL may be shown: everything but the user and the password in it."""

from __future__ import annotations

import re

_USER = re.compile(r"((?!ssh:)\b[a-z][a-z0-9+.-]*://)[^/?#\s\"']*@", re.IGNORECASE)
_SSH_PASSWORD = re.compile(r"(\bssh://[^/?#\s\"':@]*):[^/?#\s\"']*@", re.IGNORECASE)


def redact(text: str) -> str:
    """`text` without the users and passwords of the URLs in it; of ssh URLs, whose user is public, the password."""
    if "@" not in text:
        return text
    return _SSH_PASSWORD.sub(r"\1@", _USER.sub(r"\1", text))
