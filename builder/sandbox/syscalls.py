"""The Linux system calls that Python's `os` does not have: one thin function each, named as the call.

Owns ctypes and the numbers of <linux/*.h>. Knows nothing of containers. Every function raises OSError whose message
names the call and whose `filename` is the path it was about. Runs under `python -I -S`.

Sources: the section 2 man pages; for fsopen(2) and its family, Documentation/filesystems/mount_api.rst.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MNT_DETACH = 2

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

FSOPEN_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
FSMOUNT_CLOEXEC = 1
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_IDMAP = 0x100000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

CLOSE_RANGE_CLOEXEC = 4
KEYCTL_JOIN_SESSION_KEYRING = 1
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4

_IS_X86_64 = os.uname().machine == "x86_64"
# Calls older than the unified table have a number of their own on x86-64; arm64, riscv64 and loongarch64 share one.
_NR_CAPSET = 126 if _IS_X86_64 else 91
_NR_KEYCTL = 250 if _IS_X86_64 else 219
_NR_PIVOT_ROOT = 155 if _IS_X86_64 else 41
_NR_SECCOMP = 317 if _IS_X86_64 else 277
_NR_BPF = 321 if _IS_X86_64 else 280
_NR_OPEN_TREE = 428
_NR_MOVE_MOUNT = 429
_NR_FSOPEN = 430
_NR_FSCONFIG = 431
_NR_FSMOUNT = 432
_NR_PIDFD_SEND_SIGNAL = 424
_NR_CLOSE_RANGE = 436
_NR_OPENAT2 = 437
_NR_MOUNT_SETATTR = 442

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]

_CAUSES = {
    ("openat2", errno.ENOSYS): "Linux 5.6 or newer is needed",
    ("mount_setattr", errno.ENOSYS): "Linux 5.12 or newer is needed",
    ("fsopen", errno.ENODEV): "this kernel does not have the filesystem",
    ("mount", errno.ENODEV): "this kernel does not have the filesystem",
    ("mount", errno.EPERM): "CAP_SYS_ADMIN is needed, or a security module forbids it",
    ("unshare", errno.EPERM): "CAP_SYS_ADMIN is needed, or namespaces are forbidden here",
    ("unshare", errno.ENOSPC): "a limit in /proc/sys/user/max_*_namespaces is reached",
    ("unshare", errno.EINVAL): "this kernel lacks one of the namespaces",
    ("fsconfig", errno.EINVAL): "the kernel refuses the options; its log says which",
    ("fsconfig", errno.ESTALE): "the upper directory was used with other lower directories",
}


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _check(result: int, call: str, path: str = "") -> int:
    """`result`, or an OSError that names the call, the path and the likely cause."""
    if result >= 0:
        return result
    error = ctypes.get_errno()
    cause = _CAUSES.get((call, error))
    message = f"{call}: {os.strerror(error).lower()}" + (f" ({cause})" if cause else "")
    raise OSError(error, message, path or None)


def _syscall(number: int, *arguments: object) -> int:
    return int(_libc.syscall(ctypes.c_long(number), *arguments))


def openat2(dir_fd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """A descriptor (close-on-exec) of `path` resolved below `dir_fd` under RESOLVE_* rules (openat2(2)).

    Retries when a concurrent rename makes the kernel give up, so EAGAIN is only raised after many losses.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    name = os.fsencode(path)
    for _ in range(128):
        result = _syscall(_NR_OPENAT2, dir_fd, name, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)))
        if result >= 0 or ctypes.get_errno() != errno.EAGAIN:
            break
    return _check(result, "openat2", path)


def unshare(flags: int) -> None:
    """Move this process to new namespaces (unshare(2)); for CLONE_NEWPID its next children."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Join the namespace behind `fd` (setns(2))."""
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, *, fstype: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2); `options` is the filesystem's own option string."""
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), fstype.encode() or None, flags, os.fsencode(options) or None
    )
    _check(result, "mount", target)


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), "umount2", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    _check(_syscall(_NR_PIVOT_ROOT, os.fsencode(new_root), os.fsencode(put_old)), "pivot_root", new_root)


def sethostname(name: str) -> None:
    """sethostname(2) in this UTS namespace."""
    encoded = os.fsencode(name)
    _check(_libc.sethostname(encoded, len(encoded)), "sethostname", name)


def prctl(option: int, argument: int = 0) -> int:
    """prctl(2) with one integer argument, the others 0."""
    return _check(_libc.prctl(option, argument, 0, 0, 0), "prctl")


def setfsuid(uid: int, gid: int) -> None:
    """Act on files as this user and group, this thread alone (setfsuid(2), setfsgid(2)); takes capabilities away."""
    _libc.setfsgid(ctypes.c_uint(gid))
    _libc.setfsuid(ctypes.c_uint(uid))


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set this thread's three capability sets, each a mask of 64 bits (capset(2), version 3)."""
    sets = (effective, permitted, inheritable)
    halves = [mask & 0xFFFFFFFF for mask in sets] + [mask >> 32 for mask in sets]
    _check(_syscall(_NR_CAPSET, struct.pack("=Ii", 0x20080522, 0), struct.pack("=6I", *halves)), "capset")


def keyctl_join_session_keyring() -> None:
    """Start a new anonymous session keyring (keyctl(2))."""
    _check(_syscall(_NR_KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, None), "keyctl")


def seccomp(filter_bytes: bytes, flags: int = 0) -> None:
    """Install a BPF program of 8-byte instructions as this thread's seccomp filter (seccomp(2))."""
    program = _FilterProgram(len(filter_bytes) // 8, filter_bytes)
    _check(_syscall(_NR_SECCOMP, SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(program)), "seccomp")


def bpf(command: int, attributes: bytes) -> int:
    """bpf(2) with a ready-made attribute union; the result is a descriptor for the commands that make one."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return _check(_syscall(_NR_BPF, command, ctypes.byref(buffer), len(attributes)), "bpf")


def pidfd_send_signal(pidfd: int, signal_number: int) -> None:
    """Signal the process behind a pidfd (pidfd_send_signal(2))."""
    _check(_syscall(_NR_PIDFD_SEND_SIGNAL, pidfd, signal_number, None, 0), "pidfd_send_signal")


def close_range(first: int, flags: int = 0) -> None:
    """Close every descriptor from `first` on, or with CLOSE_RANGE_CLOEXEC mark them so (close_range(2))."""
    _check(_syscall(_NR_CLOSE_RANGE, first, ctypes.c_uint(0xFFFFFFFF), flags), "close_range")


def fsopen(fstype: str) -> int:
    """A descriptor (close-on-exec) of a filesystem to be configured."""
    return _check(_syscall(_NR_FSOPEN, fstype.encode(), FSOPEN_CLOEXEC), "fsopen", fstype)


def fsconfig_set_string(fs_fd: int, key: str, value: str) -> None:
    """Set one option of a filesystem that is being configured."""
    result = _syscall(_NR_FSCONFIG, fs_fd, FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0)
    _check(result, "fsconfig", f"{key}={value}")


def fsconfig_set_flag(fs_fd: int, key: str) -> None:
    """Turn on an option without a value."""
    _check(_syscall(_NR_FSCONFIG, fs_fd, FSCONFIG_SET_FLAG, key.encode(), None, 0), "fsconfig", key)


def fsconfig_create(fs_fd: int) -> None:
    """Make the superblock out of the options given so far."""
    _check(_syscall(_NR_FSCONFIG, fs_fd, FSCONFIG_CMD_CREATE, None, None, 0), "fsconfig", "create")


def fsmount(fs_fd: int, attributes: int = 0) -> int:
    """A descriptor (close-on-exec) of a detached mount of a configured filesystem, with MOUNT_ATTR_* set."""
    return _check(_syscall(_NR_FSMOUNT, fs_fd, FSMOUNT_CLOEXEC, attributes), "fsmount")


def open_tree(dir_fd: int, path: str, flags: int) -> int:
    """A descriptor (close-on-exec) of the mount at `path`, a detached copy with OPEN_TREE_CLONE."""
    result = _syscall(_NR_OPEN_TREE, dir_fd, os.fsencode(path), ctypes.c_uint(flags | OPEN_TREE_CLOEXEC))
    return _check(result, "open_tree", path)


def move_mount(mount_fd: int, target_fd: int, target: str = "") -> None:
    """Attach the detached mount behind `mount_fd` at `target_fd` itself, or at `target` below it."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if target else MOVE_MOUNT_T_EMPTY_PATH)
    result = _syscall(_NR_MOVE_MOUNT, mount_fd, b"", target_fd, os.fsencode(target), ctypes.c_uint(flags))
    _check(result, "move_mount", target)


def mount_setattr(
    fd: int, attributes: int, *, recursive: bool = False, propagation: int = 0, userns_fd: int = 0
) -> None:
    """Set MOUNT_ATTR_* and the propagation type of the mount that `fd` is the root of.

    MOUNT_ATTR_IDMAP takes the ids of `userns_fd`, and works on a detached mount that is not mapped yet only.
    """
    attr = _MountAttr(attributes, 0, propagation, userns_fd)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    size = ctypes.c_size_t(ctypes.sizeof(attr))
    result = _syscall(_NR_MOUNT_SETATTR, fd, b"", ctypes.c_uint(flags), ctypes.byref(attr), size)
    _check(result, "mount_setattr")
