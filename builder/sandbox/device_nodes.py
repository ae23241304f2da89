"""The machine's devices that a step was granted, in its own /dev. Runs under `python -I -S`."""

from __future__ import annotations

import os
import stat

from builder.errors import BuildError
from builder.sandbox import syscalls
from builder.sandbox.fsops import SafeRoot
from builder.sandbox.operations import SandboxState, clone_mount
from builder.sandbox.paths import clean, split
from builder.sandbox.spec import Device
from builder.sandbox.targets import open_system_dir
from cache.namedtuple import NamedTuple

_DEV = "/dev/"


class AddDevices(NamedTuple):
    """Nodes with the machine's numbers; where none can be made, in a user namespace, the machine's own are bound."""

    devices: tuple[Device, ...]
    is_bound: bool

    def describe(self) -> str:
        return f"add the devices {', '.join(device.path for device in self.devices)}"

    def perform(self, state: SandboxState) -> None:
        dev_fd = open_system_dir(state.root_fd, "dev")
        try:
            for device in self.devices:
                self._add(SafeRoot(dev_fd), device)
        finally:
            os.close(dev_fd)

    def _add(self, dev: SafeRoot, device: Device) -> None:
        path = clean(device.path)
        if not path.startswith(_DEV):
            raise BuildError(f'device "{device.path}" is not below /dev')
        directory, name = split(path.removeprefix(_DEV[:-1]))
        dev.mkdir_all(directory)
        source_fd = os.open(device.source, os.O_PATH | os.O_CLOEXEC)
        found = os.fstat(source_fd)
        with dev.open_dir(directory) as place:
            place.remove_all(name)
            if self.is_bound:
                place.mknod(name, stat.S_IFREG | 0o600, 0)
                mount_fd = clone_mount(source_fd, 0)
                syscalls.move_mount(mount_fd, place.fd, name)
                os.close(mount_fd)
                return
            os.close(source_fd)
            mode = stat.S_IMODE(found.st_mode) if device.mode is None else device.mode
            place.mknod(name, stat.S_IFMT(found.st_mode) | mode, found.st_rdev)
            owner = (
                found.st_uid if device.uid is None else device.uid,
                found.st_gid if device.gid is None else device.gid,
            )
            place.chown(name, owner)
            place.chmod(name, mode)


def numbers_of(device: Device) -> tuple[str, int, int]:
    """`b` or `c`, major and minor of what a device is on the machine. BuildError when it is no device."""
    try:
        found = os.stat(device.source)
    except OSError as error:
        raise BuildError(f'device "{device.source}": {os.strerror(error.errno or 0).lower()}') from error
    kind = "c" if stat.S_ISCHR(found.st_mode) else "b" if stat.S_ISBLK(found.st_mode) else ""
    if not kind:
        raise BuildError(f'device "{device.source}" is no device of the machine')
    return kind, os.major(found.st_rdev), os.minor(found.st_rdev)
