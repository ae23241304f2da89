"""Which ids of a user namespace mean which outside: read from /etc/subuid, written for a process (user_namespaces(7)).

Owns the two ways to write a map: newuidmap(1), which an ordinary user needs for more than one id, and /proc itself.
Runs under `python -I -S`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from cache.namedtuple import NamedTuple

_INITIAL_INODE = 0xEFFFFFFD
"""Of the first user namespace of every kernel (include/linux/proc_ns.h, PROC_USER_INIT_INO)."""
KINDS = ("uid", "gid")


class Extent(NamedTuple):
    """`size` ids from `inside` on are those from `outside` on."""

    inside: int
    outside: int
    size: int


class IdMaps(NamedTuple):
    """The maps of a namespace."""

    uids: tuple[Extent, ...]
    gids: tuple[Extent, ...]

    @property
    def is_single(self) -> bool:
        """Whether only one user and one group are there."""
        return sum(extent.size for extent in self.uids) == 1 or sum(extent.size for extent in self.gids) == 1


def current_maps() -> IdMaps:
    """The maps of this process's own namespace. Raises OSError."""
    return IdMaps(_read_map("/proc/self/uid_map"), _read_map("/proc/self/gid_map"))


def is_initial() -> bool:
    """Whether this process is in the namespace that the machine began with; one below may have all its ids, too."""
    return os.stat("/proc/self/ns/user").st_ino == _INITIAL_INODE


def has_setgroups() -> bool:
    """Whether groups can be given up here: not where a user mapped his own group alone (user_namespaces(7))."""
    try:
        with open("/proc/self/setgroups", encoding="ascii") as file:
            return file.read().strip() != "deny"
    except FileNotFoundError:
        return True


def has_id(kind: str, number: int) -> bool:
    """Whether a `uid` or `gid` means anything in this namespace."""
    return any(0 <= number - extent.inside < extent.size for extent in _read_map(f"/proc/self/{kind}_map"))


def user_maps(uid: int, gid: int) -> IdMaps:
    """The user as root, followed by the ids that /etc/subuid and /etc/subgid give him; himself alone without them."""
    own = IdMaps((Extent(0, uid, 1),), (Extent(0, gid, 1),))
    names = _names_of(uid)
    uids, gids = (subordinate_ids(f"/etc/sub{kind}", names) for kind in KINDS)
    if not uids or not gids:
        return own
    return IdMaps((*own.uids, *_above(uids)), (*own.gids, *_above(gids)))


def identity_maps() -> IdMaps:
    """Every id of this namespace as itself: what the root of a container can give to a namespace below."""
    current = current_maps()
    uids, gids = (tuple(Extent(e.inside, e.inside, e.size) for e in part) for part in (current.uids, current.gids))
    return IdMaps(uids, gids)


def subordinate_ids(path: str, names: Iterable[str]) -> list[tuple[int, int]]:
    """(first id, count) of each range of one of `names` (a login name or a number) in subuid(5) or subgid(5)."""
    wanted = set(names)
    found = []
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                fields = line.strip().split(":")
                if len(fields) == 3 and fields[0] in wanted and fields[1].isdigit() and fields[2].isdigit():
                    found.append((int(fields[1]), int(fields[2])))
    except OSError:
        return []
    return [(first, count) for first, count in found if count > 0]


def write_maps(pid: int, maps: IdMaps) -> None:
    """Write both maps of a process through /proc. Raises OSError."""
    for kind, extents in zip(KINDS, (maps.uids, maps.gids), strict=True):
        content = "".join(f"{e.inside} {e.outside} {e.size}\n" for e in extents).encode("ascii")
        fd = os.open(f"/proc/{pid}/{kind}_map", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, content)
        finally:
            os.close(fd)


def deny_setgroups() -> None:
    """What the kernel asks of a process before it may map its own group (user_namespaces(7)). Raises OSError."""
    fd = os.open("/proc/self/setgroups", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"deny")
    finally:
        os.close(fd)


def find_mappers(find: Callable[[str], str | None]) -> tuple[str, str] | None:
    """The paths of newuidmap and newgidmap, None when one is missing; `find` looks a program up."""
    uid_mapper, gid_mapper = find("newuidmap"), find("newgidmap")
    return (uid_mapper, gid_mapper) if uid_mapper and gid_mapper else None


def mapper_words(program: str, pid: int, extents: Iterable[Extent]) -> list[str]:
    """The command line of newuidmap(1) or newgidmap(1)."""
    return [program, str(pid), *(str(number) for extent in extents for number in extent)]


def _above(ranges: Iterable[tuple[int, int]]) -> list[Extent]:
    """Ranges one after the other, from 1 on."""
    found, inside = [], 1
    for first, count in ranges:
        found.append(Extent(inside, first, count))
        inside += count
    return found


def _names_of(uid: int) -> tuple[str, ...]:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name, str(uid)
    except KeyError:
        return (str(uid),)


def _read_map(path: str) -> tuple[Extent, ...]:
    with open(path, encoding="ascii") as file:
        return tuple(Extent(*(int(word) for word in line.split())) for line in file)
