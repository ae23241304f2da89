"""What is removed by itself after a build, when the store has grown: the policy, and whether it is time to look.

    <root>/config.toml    [gc] enabled, interval; [[gc.policy]] in order, with BuildKit's names
    <root>/run/gc         touched when the policies were carried out

A build that found everything in the cache does not come here; another asks for the time of one file and the free space
of one file system, and mostly that is all.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from builder.errors import UsageError
from builder.quantities import parse_duration, parse_space
from cache.errors import os_errors
from cache.namedtuple import NamedTuple

if TYPE_CHECKING:
    from cache.prune import Policy, Pruned
    from cache.store import Store

CONFIG = "config.toml"
_HOUR = 3600 * 10**9
_IMPATIENT = 300 * 10**9
"""How long to wait between two looks while the disk is fuller than it should be."""
_DEFAULTS: tuple[dict[str, Any], ...] = (
    {"keepDuration": "60d", "reservedSpace": "10%"},
    {"reservedSpace": "10%", "maxUsedSpace": "60%", "minFreeSpace": "20%"},
    {"reservedSpace": "10%", "maxUsedSpace": "60%", "minFreeSpace": "20%", "all": True},
)
_KEYS = ("filters", "keepDuration", "reservedSpace", "maxUsedSpace", "minFreeSpace", "all")


class Settings(NamedTuple):
    """The automatic pruning of a store."""

    enabled: bool
    interval_ns: int
    policies: tuple[Policy, ...]

    @property
    def min_free(self) -> int:
        """The free space, in bytes, below which there is no waiting for the interval."""
        return max((policy.min_free for policy in self.policies), default=0)


def settings(root: str, environ: Mapping[str, str]) -> Settings:
    """What config.toml says, else the defaults; `PYBUILD_GC=off` turns it off. UsageError for what it cannot mean."""
    from cache.prune import Policy

    document = _read(os.path.join(root, CONFIG)).get("gc", {})
    _check(document, ("enabled", "interval", "policy"), "gc")
    disk = os.statvfs(root)
    listed = document.get("policy", _DEFAULTS)
    policies = tuple(_policy(each, disk.f_blocks * disk.f_frsize, Policy) for each in listed)
    enabled = document.get("enabled", True) is True and environ.get("PYBUILD_GC", "on") not in ("off", "0", "false")
    return Settings(enabled, parse_duration(str(document.get("interval", "1h")), "gc.interval"), policies)


def _read(path: str) -> dict[str, Any]:
    import tomllib

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}", hint="it is a TOML file: [gc] and [[gc.policy]]") from error


def _check(table: object, known: tuple[str, ...], where: str) -> None:
    if not isinstance(table, dict):
        raise UsageError(f"{CONFIG}: {where} is not a table")
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise UsageError(f"{CONFIG}: {where} has no {unknown[0]!r}", hint=f"it has {', '.join(known)}")


def _policy(table: Mapping[str, Any], disk_size: int, make: type[Policy]) -> Policy:
    _check(table, _KEYS, "gc.policy")
    types: set[str] = set()
    ids: set[str] = set()
    for text in table.get("filters", ()):
        key, _, value = str(text).replace("==", "=").partition("=")
        if key not in ("type", "id"):
            raise UsageError(f"{CONFIG}: filter {text!r} is not supported", hint="filters are type==… and id==…")
        (types if key == "type" else ids).add(value)
    sizes = [parse_space(str(table.get(key, "0")), f"{CONFIG}: {key}", disk_size) for key in _KEYS[2:5]]
    keep_ns = parse_duration(str(table.get("keepDuration", "0")), f"{CONFIG}: keepDuration")
    return make(
        frozenset(types), frozenset(ids), keep_ns, sizes[1], sizes[0], sizes[2], all=table.get("all", False) is True
    )


def after_build(store: Store, environ: Mapping[str, str], clock: Callable[[], int]) -> Pruned | None:
    """Carry the policies out if it is time, unless somebody else does just now; None when nothing was to be done."""
    since = _since(store.root, clock())
    if since < _IMPATIENT:
        return None
    found = settings(store.root, environ)
    if not found.enabled or not (since > found.interval_ns or _is_full(store.root, found)):
        return None
    with store.locks.try_exclusive("gc") as is_ours:
        return carry_out(store, found, clock) if is_ours else None


def carry_out(store: Store, found: Settings, clock: Callable[[], int]) -> Pruned:
    """Prune what the policies say, whatever the time; the caller has the lock `gc`."""
    from builder.holders import outside
    from cache.prune import prune

    mark_done(store.root, clock())
    return prune(store, outside(store, clock()), found.policies, clock())


def _since(root: str, now_ns: int) -> int:
    """Nanoseconds since the policies were carried out; very many when they never were, or in the future."""
    try:
        since = now_ns - os.stat(os.path.join(root, "run", "gc")).st_mtime_ns
    except FileNotFoundError:
        since = -1
    return since if since >= 0 else 1 << 62


def _is_full(root: str, found: Settings) -> bool:
    disk = os.statvfs(root)
    return disk.f_bavail * disk.f_frsize < found.min_free


def mark_done(root: str, now_ns: int) -> None:
    """Note that the policies were carried out now."""
    path = os.path.join(root, "run", "gc")
    with os_errors(path), contextlib.suppress(PermissionError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.utime(path, ns=(now_ns, now_ns))
