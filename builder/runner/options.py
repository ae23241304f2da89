"""What `run` was asked for, and the small languages inside its options: -e, -v, --tmpfs, --ulimit, --add-host.

Texts to values, in the words and with the defaults of `docker run`. Knows no image and no container.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from builder.errors import UsageError
from builder.options import NO_DNS, Dns
from builder.security_options import DEFAULT as DEFAULT_SECURITY
from builder.security_options import SecurityOptions
from cache.namedtuple import NamedTuple

if TYPE_CHECKING:
    from builder.runner.ports import Port
    from builder.sandbox.spec import Limits

NETWORKS = ("default", "none", "host", "bridge")
_IGNORED_VOLUME_OPTIONS = {"rw", "z", "Z", "cached", "delegated", "consistent", "rprivate", "private", "nocopy"}


class RunOptions(NamedTuple):
    """The options of `run` that are about the process; what is empty is left to the image or a default.

    An `entrypoint` that is empty, not None, takes the image's away.
    """

    args: tuple[str, ...] = ()
    """What follows the image on the command line."""
    entrypoint: str | None = None
    env: tuple[tuple[str, str | None], ...] = ()
    """Variables in order; a None value takes the variable away."""
    workdir: str = ""
    user: str = ""
    hostname: str = ""
    network: str = "default"
    is_read_only: bool = False
    is_interactive: bool = False
    has_terminal: bool = False
    volumes: tuple[Volume, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    rlimits: tuple[tuple[str, int, int], ...] = ()
    shm_size: int = 0
    limits: Limits | None = None
    """What the processes of the container may use together; None when nothing is limited."""
    cgroup_parent: str = ""
    ports: tuple[Port, ...] = ()
    """Ports of the machine that lead into the container's own network."""
    dns: Dns = NO_DNS
    devices: tuple[str, ...] = ()
    """CDI names and paths of the machine."""
    security: SecurityOptions = DEFAULT_SECURITY


class Volume(NamedTuple):
    """Something mounted on `target`: a host's path (`bind`), memory (`tmpfs`), or a directory of the container's own
    that begins with what the image has there (`anonymous`). `settings` are a tmpfs's: size, mode, uid, gid, noexec."""

    kind: str
    target: str
    source: str = ""
    is_read_only: bool = False
    settings: Mapping[str, Any] = {}


def parse_variables(
    texts: Sequence[str], files: Sequence[str], environ: Mapping[str, str]
) -> tuple[tuple[str, str | None], ...]:
    """The variables of --env-file and, after them, of -e. A bare KEY takes its value from `environ`.

    A KEY that is not there is left out in a file, and with -e takes the image's variable away, as in Docker.
    """
    found: list[tuple[str, str | None]] = []
    for path in files:
        found += _read_variables(path, environ)
    for text in texts:
        key, equals, value = text.partition("=")
        if not key:
            raise UsageError(f'environment variable "{text}" has no name, expected KEY=VALUE or KEY')
        found.append((key, value if equals else environ.get(key)))
    return tuple(found)


def _read_variables(path: str, environ: Mapping[str, str]) -> list[tuple[str, str | None]]:
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
            lines = file.read().split("\n")
    except OSError as error:
        raise UsageError(f'env file "{path}": {(error.strerror or str(error)).lower()}') from error
    found: list[tuple[str, str | None]] = []
    for number, raw in enumerate(lines, 1):
        line = raw.removesuffix("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not key or key != "".join(key.split()):
            what = "has white space" if key else "is missing"
            raise UsageError(f'env file "{path}" line {number}: the name of the variable {what}: "{line}"')
        if equals or key in environ:
            found.append((key, value if equals else environ[key]))
    return found


def parse_volume(text: str, cwd: str) -> Volume:
    """`HOST:TARGET[:OPTIONS]`, or `TARGET` alone for an anonymous volume; HOST is taken from `cwd`."""
    parts = text.split(":")
    if len(parts) == 1:
        return Volume("anonymous", _target(parts[0], text))
    if len(parts) > 3 or not parts[0]:
        _refuse("volume", text, "HOST:TARGET[:ro]")
    source, target = parts[0], _target(parts[1], text)
    if "/" not in source and source not in (".", ".."):
        raise UsageError(
            f'volume "{text}": named volumes are not supported, expected a path of the host',
            hint=f"to mount a directory of the current one: -v ./{text}",
        )
    words = [word for word in (parts[2] if len(parts) == 3 else "").split(",") if word]
    for word in words:
        if word != "ro" and word not in _IGNORED_VOLUME_OPTIONS:
            raise UsageError(f'volume "{text}": unknown option "{word}", expected ro or rw')
    return Volume("bind", target, os.path.normpath(os.path.join(cwd, source)), "ro" in words)


def parse_tmpfs(text: str) -> Volume:
    """`TARGET[:OPTIONS]`, options of tmpfs(5): size, mode, uid, gid, ro, exec; noexec is the default as in Docker."""
    target, _, words = text.partition(":")
    settings: dict[str, Any] = {"noexec": True}
    is_read_only = False
    for word in filter(None, words.split(",")):
        key, equals, value = word.partition("=")
        if word in ("rw", "ro"):
            is_read_only = word == "ro"
        elif word in ("exec", "noexec"):
            settings["noexec"] = word == "noexec"
        elif key == "size" and equals:
            settings["size"] = parse_bytes(value, f'tmpfs "{text}"')
        elif key in ("mode", "uid", "gid") and value.isascii() and value.isdigit():
            settings[key] = _number(value, 8 if key == "mode" else 10, f'tmpfs "{text}"')
        elif word not in ("nosuid", "nodev"):
            raise UsageError(f'tmpfs "{text}": unknown option "{word}", expected size=, mode=, uid=, gid=, ro or exec')
    return Volume("tmpfs", _target(target, text), "", is_read_only, settings)


def check_targets(volumes: Sequence[Volume]) -> None:
    """UsageError when two are to be mounted on one target."""
    seen: set[str] = set()
    for volume in volumes:
        if volume.target in seen:
            raise UsageError(f'duplicate mount point: "{volume.target}"')
        seen.add(volume.target)


def parse_ulimit(text: str) -> tuple[str, int, int]:
    """`NAME=SOFT[:HARD]` as name, soft and hard limit; -1 is no limit. The sandbox knows which names there are."""
    name, _, values = text.partition("=")
    soft_text, colon, hard_text = values.partition(":")
    if not name:
        _refuse("ulimit", text, "NAME=SOFT[:HARD]")
    try:
        soft = int(soft_text)
        hard = int(hard_text) if colon else soft
    except ValueError:
        _refuse("ulimit", text, "NAME=SOFT[:HARD]")
    if hard != -1 and (soft == -1 or soft > hard):
        raise UsageError(f'ulimit "{text}": the soft limit is above the hard limit')
    return name, soft, hard


def parse_host(text: str) -> str:
    """`NAME:ADDRESS` or `NAME=ADDRESS`, as NAME:ADDRESS; an IPv6 address may be in brackets."""
    name, _, address = text.replace("=", ":", 1).partition(":")
    address = address.removeprefix("[").removesuffix("]")
    if not name or not _is_address(address):
        _refuse("add-host", text, "NAME:ADDRESS")
    return f"{name}:{address}"


def parse_bytes(text: str, what: str) -> int:
    """Bytes of a size such as 64m; UsageError that begins with `what` when it is none, or zero."""
    from grammar.errors import DockerfileError
    from grammar.values import parse_size

    try:
        size = parse_size(text)
    except DockerfileError as error:
        raise UsageError(f"{what}: {error}") from error
    if size <= 0:
        raise UsageError(f'{what}: size "{text}" is not positive')
    return size


def _target(path: str, text: str) -> str:
    """The clean form of a path in the container, absolute and not its root."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if not path.startswith("/") or clean == "/":
        raise UsageError(f'mount "{text}": the path in the container is "{path}", expected an absolute path below /')
    return clean


def _is_address(text: str) -> bool:
    import socket

    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False


def _number(text: str, base: int, what: str) -> int:
    try:
        return int(text, base)
    except ValueError:
        raise UsageError(f'{what}: "{text}" is not a number of base {base}') from None


def _refuse(option: str, text: str, expected: str) -> NoReturn:
    raise UsageError(f'{option} "{text}" is not valid, expected {expected}')
