"""What a git server is told about who asks: tokens, passwords, an ssh agent.

They reach git through its environment, so that no process list, file or message shows them, and each goes to the host
that it is meant for. Source: docker build reference, --secret (GIT_AUTH_TOKEN, GIT_AUTH_HEADER); git-config(1),
credential.helper and http.extraHeader.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

from builder.errors import BuildError
from builder.redact import redact
from cache.namedtuple import NamedTuple

_CONTROL = re.compile("[\x00-\x1f\x7f]")
_HELPER = '!printf "username=%s\\npassword=%s\\n" "$PYBUILD_GIT_USERNAME" "$PYBUILD_GIT_PASSWORD"; :'
_SHARED_SCOPES = ("https://github.com/", "https://www.github.com/")
"""Where a token for one repository is used for all of the host's, as BuildKit does."""


class SecretSource(Protocol):
    """The secrets of a build and the sockets of its ssh agents, by id."""

    @property
    def ssh(self) -> Mapping[str, str]:
        """The agents' sockets."""

    def read(self, secret_id: str) -> bytes | None:
        """The bytes of a secret, None when it was not given. Raises BuildError."""


class Access(NamedTuple):
    """A remote without secrets in its name, and what git needs besides to reach it."""

    url: str
    config: tuple[tuple[str, str], ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    hidden: tuple[str, ...] = ()
    """Words that no message may show."""


def access_to(remote: str, secrets: SecretSource | None, *, known_hosts: str) -> Access:
    """How to reach `remote`; keys of ssh hosts that were not met before go to the file `known_hosts`.

    Raises BuildError for a URL that is none, a secret that cannot be read, and a remote over ssh without an agent.
    """
    if _is_ssh(remote):
        return _ssh_access(remote, secrets, known_hosts)
    if not remote.startswith(("http://", "https://")):
        return Access(remote)
    try:
        parts = urlsplit(remote)
        user_info, at_sign, host = parts.netloc.rpartition("@")
    except ValueError as error:
        raise BuildError(f"{redact(remote)}: not a valid URL") from error
    access = Access(urlunsplit(parts._replace(netloc=host)))
    if at_sign:
        access = _with_password(access, f"{parts.scheme}://{host}", user_info)
    header = _auth_header(secrets, host)
    return _with_header(access, header) if header else access


def _is_ssh(remote: str) -> bool:
    """`ssh://host/path`, or `user@host:path`."""
    return remote.startswith("ssh:") or "://" not in remote


def _ssh_access(remote: str, secrets: SecretSource | None, known_hosts: str) -> Access:
    socket = secrets.ssh.get("default") if secrets is not None else None
    if not socket:
        raise BuildError(
            f"{redact(remote)}: there is no ssh agent to ask for a key",
            hint="start ssh-agent, and pass it on with --ssh default",
        )
    hosts = f'UserKnownHostsFile="{known_hosts}" "~/.ssh/known_hosts"'
    options = ("BatchMode=yes", "IdentityFile=none", "StrictHostKeyChecking=accept-new", "ConnectTimeout=60", hosts)
    command = "ssh -F /dev/null " + " ".join(f"-o {shlex.quote(option)}" for option in options)
    return Access(redact(remote), env=(("GIT_SSH_COMMAND", command), ("SSH_AUTH_SOCK", socket)))


def _with_password(access: Access, host: str, user_info: str) -> Access:
    """User and password of a URL, given to git when their own host asks for them."""
    user, _, password = user_info.partition(":")
    user, password = unquote(user), unquote(password)
    if _CONTROL.search(user + password):
        raise BuildError(f"{access.url}: the user or the password in the URL has a control character")
    return access._replace(
        config=((f"credential.{host}.helper", _HELPER),),
        env=(("PYBUILD_GIT_USERNAME", user), ("PYBUILD_GIT_PASSWORD", password)),
        hidden=(user_info, password or user),
    )


def _auth_header(secrets: SecretSource | None, host: str) -> str:
    """The Authorization header that a secret gives: the one named for the host before the one for all."""
    if secrets is None:
        return ""
    for name in (f"GIT_AUTH_HEADER.{host}", f"GIT_AUTH_TOKEN.{host}", "GIT_AUTH_HEADER", "GIT_AUTH_TOKEN"):
        secret = secrets.read(name)
        if secret is None:
            continue
        if name.startswith("GIT_AUTH_TOKEN"):
            return "basic " + base64.b64encode(b"x-access-token:" + secret).decode("ascii")
        header = secret.decode("utf-8", "replace")
        if _CONTROL.search(header):
            raise BuildError(f'secret "{name}" is not one line, so it cannot be a header')
        return header
    return ""


def _with_header(access: Access, header: str) -> Access:
    scope = next((prefix for prefix in _SHARED_SCOPES if access.url.startswith(prefix)), access.url)
    config = (
        (f"http.{scope}.extraHeader", f"Authorization: {header}"),
        # git would send the header to whatever host the server redirects to.
        (f"http.{scope}.followRedirects", "false"),
    )
    return access._replace(config=access.config + config, hidden=(*access.hidden, *header.split()[-1:]))
