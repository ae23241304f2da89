"""Containers on disk: a writable layer each, a name perhaps, and who runs it now.

    <root>/containers/<id>/upper, work    the writable layer, over the layers of the image
    <root>/containers/<id>/volumes/<n>    upper and work of an anonymous volume
    <root>/containers/<id>/config.json    what it was made from and for
    <root>/containers/names/<name>        symlink that ends in the id
    <root>/run/containers/<id>            flock held by the pybuild that runs it

Names are given and taken under the store's lock `containers`. A lock file that nobody holds belongs to a pybuild that
died: whoever makes the next container removes the file, and the container with it unless that is to be kept. Knows no
image and no process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from builder.errors import BuildError
from cache.atomic import write_atomic
from cache.errors import CacheError, os_errors
from cache.locks import Locks
from cache.namedtuple import NamedTuple
from cache.removal import remove_tree

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_SHORT = 12


class Container:
    """A container that this process runs. Leaving its block removes it, unless it is kept, and lets go of it."""

    def __init__(self, container_id: str, name: str, *, containers: Containers, lock_fd: int, is_kept: bool) -> None:
        self.id = container_id
        self.name = name
        self.is_kept = is_kept
        self.directory = containers.directory_of(container_id)
        self.upper_dir = os.path.join(self.directory, "upper")
        self.work_dir = os.path.join(self.directory, "work")
        self._containers = containers
        self._lock_fd = lock_fd

    @property
    def short_id(self) -> str:
        """The part of the id that people are shown."""
        return self.id[:_SHORT]

    def make_layer(self, lower_dirs: Sequence[str]) -> None:
        """Make the writable layer; its root looks like that of the layer below, which it hides."""
        with os_errors(self.directory):
            below = os.stat(lower_dirs[0])
            os.mkdir(self.work_dir, 0o700)
            os.mkdir(self.upper_dir, 0o700)
            os.chown(self.upper_dir, below.st_uid, below.st_gid)
            os.chmod(self.upper_dir, below.st_mode & 0o7777)

    def make_volume(self, number: int) -> tuple[str, str]:
        """Upper and work directory of another anonymous volume."""
        directory = os.path.join(self.directory, "volumes", str(number))
        upper_dir, work_dir = os.path.join(directory, "upper"), os.path.join(directory, "work")
        with os_errors(directory):
            os.makedirs(work_dir, 0o700)
            os.mkdir(upper_dir, 0o755)
        return upper_dir, work_dir

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Keep what the container was made from; on the disk at once only if the container is to outlive us."""
        fields = {"id": self.id, "name": self.name, "kept": self.is_kept, **config}
        content = json.dumps(fields, indent=1).encode("ascii") + b"\n"
        path = os.path.join(self.directory, "config.json")
        if self.is_kept:
            write_atomic(path, content)
            return
        with os_errors(path), open(path, "wb") as file:
            file.write(content)

    def __enter__(self) -> Container:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self.is_kept:
                self._containers.remove(self.id, self.name)
        finally:
            self._containers.release(self.id, self._lock_fd)


class Containers:
    """The containers of the store at `root`."""

    def __init__(self, root: str, locks: Locks) -> None:
        self._containers_dir = os.path.join(root, "containers")
        self._names_dir = os.path.join(self._containers_dir, "names")
        self._running_dir = os.path.join(root, "run", "containers")
        self._locks = locks

    def directory_of(self, container_id: str) -> str:
        """Where a container's files are."""
        return os.path.join(self._containers_dir, container_id)

    def create(self, name: str, *, is_kept: bool) -> Container:
        """A new container, run by this process; containers that dead processes left behind are removed first.

        BuildError when the name ("" for none) is malformed or another container has it.
        """
        _check_name(name)
        container_id = os.urandom(32).hex()
        self.bury_dead()
        with os_errors(self._containers_dir), self._locks.exclusive("containers"):
            self._check_free(name)
            lock_fd = _lock_new(os.path.join(self._running_dir, container_id))
            os.mkdir(self.directory_of(container_id), 0o700)
            if name:
                os.symlink(os.path.join("..", container_id), os.path.join(self._names_dir, name))
        return Container(container_id, name, containers=self, lock_fd=lock_fd, is_kept=is_kept)

    def bury_dead(self) -> None:
        """Remove the containers that dead processes left behind, except those that are to be kept."""
        with os_errors(self._containers_dir):
            for directory in (self._containers_dir, self._names_dir, self._running_dir):
                os.makedirs(directory, 0o700, exist_ok=True)
            with self._locks.exclusive("containers"):
                dead = self._lock_dead()
        for dead_id, lock_fd in dead:
            self._bury(dead_id, lock_fd)

    def remove(self, container_id: str, name: str) -> None:
        """Remove a container that this process has locked, its name first. Idempotent."""
        with os_errors(self.directory_of(container_id)):
            if name:
                with self._locks.exclusive("containers"):
                    if self._owner_of(name) == container_id:
                        os.unlink(os.path.join(self._names_dir, name))
            remove_tree(self.directory_of(container_id))

    def release(self, container_id: str, lock_fd: int) -> None:
        """Say that nobody runs the container any more."""
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self._running_dir, container_id))
        os.close(lock_fd)

    def _check_free(self, name: str) -> None:
        """BuildError when a container has the name; one whose directory is gone has lost it."""
        owner = self._owner_of(name) if name else None
        if owner is None:
            return
        directory = self.directory_of(owner)
        if not os.path.isdir(directory):
            os.unlink(os.path.join(self._names_dir, name))
            return
        hint = f"choose another --name; with --rm a container goes when its program ends; this one's files: {directory}"
        raise BuildError(f'container name "{name}" is in use by container {owner[:_SHORT]}', hint=hint)

    def _owner_of(self, name: str) -> str | None:
        try:
            return os.path.basename(os.readlink(os.path.join(self._names_dir, name)))
        except FileNotFoundError:
            return None

    def _lock_dead(self) -> list[tuple[str, int]]:
        """The containers that nobody runs although they are marked as running, each with its lock, now ours."""
        found = []
        for container_id in os.listdir(self._running_dir):
            try:
                fd = os.open(os.path.join(self._running_dir, container_id), os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found.append((container_id, fd))
            except BlockingIOError:
                os.close(fd)
        return found

    def _bury(self, container_id: str, lock_fd: int) -> None:
        """Remove a dead process's container unless it is to be kept; one without a config was never finished."""
        config = _read_config(os.path.join(self.directory_of(container_id), "config.json"))
        try:
            if not config.get("kept"):
                self.remove(container_id, str(config.get("name", "")))
        except CacheError:
            os.close(lock_fd)  # The next one tries again; ours to make does not depend on it.
            return
        self.release(container_id, lock_fd)


class KeptContainer(NamedTuple):
    """A container's directory, and what it was made from; `chain_id` is "" when that is not known (yet)."""

    container_id: str
    name: str
    image: str
    chain_id: str
    created_ns: int
    directory: str


def walk_containers(root: str) -> Iterator[KeptContainer]:
    """Every container of the store at `root`, running or not."""
    containers_dir = os.path.join(root, "containers")
    try:
        names = sorted(os.listdir(containers_dir))
    except FileNotFoundError:
        return
    for container_id in names:
        if container_id != "names":
            directory = os.path.join(containers_dir, container_id)
            config = _read_config(os.path.join(directory, "config.json"))
            name, image, chain_id = (str(config.get(key) or "") for key in ("name", "image", "chain_id"))
            created_ns = config.get("created_ns")
            created_ns = created_ns if isinstance(created_ns, int) else 0
            yield KeptContainer(container_id, name, image, chain_id, created_ns, directory)


def _read_config(path: str) -> dict[str, Any]:
    """What `write_config` wrote, empty when it did not come to that."""
    try:
        with open(path, "rb") as file:
            return dict(json.load(file))
    except (OSError, ValueError, TypeError):
        return {}


def _check_name(name: str) -> None:
    if name and not _NAME.fullmatch(name):
        raise BuildError(
            f'container name "{name}" is not valid, expected a letter or digit, then letters, digits, "_", "." or "-"'
        )


def _lock_new(path: str) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd
