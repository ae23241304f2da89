"""What may be shown: of a URL everything but the user and the password in it, of a variable what its name allows."""

from __future__ import annotations

import re

# Compiled at the first use, which most builds never come to.
_USER = r"(?i)((?!ssh:)\b[a-z][a-z0-9+.-]*://)[^/?#\s\"']*@"
_SSH_USER_INFO = r"(?i)(\bssh://[^/?#\s\"':@]*):[^/?#\s\"']*@"
_SUSPICIOUS = "(?i)(?:_|^)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(?:_|$)"
_HARMLESS = "(?i)(?:_|^)(?:public|file|version)(?:_|$)"


def is_secret_name(name: str) -> bool:
    """Whether a variable of that name looks as if it held a secret. Source: BuildKit's SecretsUsedInArgOrEnv."""
    return re.search(_SUSPICIOUS, name) is not None and re.search(_HARMLESS, name) is None


def redact(text: str) -> str:
    """`text` without the users and passwords of the URLs in it; of ssh URLs, whose user is public, the password."""
    if "@" not in text:
        return text
    return re.sub(_SSH_USER_INFO, r"\1@", re.sub(_USER, r"\1", text))
