"""Why a namespace, a mount or an id is refused here, and the one thing that would allow it.

Looks at what containers and distributions take away: seccomp filters, AppArmor, hidden kernel paths, switches of the
kernel (user_namespaces(7); docker-run(1) and podman-run(1), --security-opt). Runs under `python -I -S`.
"""

from __future__ import annotations

import errno
import os

from builder.errors import SandboxError
from builder.sandbox import idmap

_OPTIONS = "start this container with"
NO_DEVICES = "in a user namespace no device can be made: run pybuild as root for that"
SUBUID_HINT = (
    "give yourself a range of ids: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER,"
    " with newuidmap installed (Debian: uidmap); in a container, run pybuild as its root"
)


def why_no_namespace(error: OSError | None) -> SandboxError:
    """The error for a user namespace that could not be made, or (None) in which nothing is allowed."""
    if error is None:
        return SandboxError("a user namespace has no privileges here", hint=_why_powerless())
    reason = os.strerror(error.errno or 0).lower()
    return SandboxError(f"running a step needs root or a user namespace: unshare: {reason}", hint=_why_refused(error))


def why_forbidden(what: str, error: OSError) -> SandboxError:
    """The error for `what` (a path to mount on, or "hostname") that a namespace's root was refused."""
    return SandboxError(os.strerror(error.errno or 0).lower(), hint=_why_forbidden(what, error))


def explain(error: BaseException) -> str | None:
    """The hint for an error that comes from what a user namespace lacks, None for any other."""
    if idmap.is_initial():
        return None
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.EINVAL, errno.EPERM):
            return missing_ids() if seen.errno == errno.EINVAL else NO_DEVICES
        seen = seen.__cause__
    return None


def explain_output(output: str, *, is_remapped: bool = False) -> str | None:
    """The hint for a failed program that said `output`, when a user namespace, or --userns=auto, may be why."""
    if idmap.is_initial() and not is_remapped:
        return None
    if "nvalid argument" in output and ("chown" in output or "chgrp" in output):
        return "--userns=auto maps the users up to 65535: leave it out" if is_remapped else missing_ids()
    if "peration not permitted" in output and "mknod" in output:
        return NO_DEVICES
    return None


def missing_ids() -> str:
    """The hint for an id that is not mapped."""
    maps = idmap.current_maps()
    if maps.is_single:
        return f"only one user is mapped here, so that nothing can be given to another; {SUBUID_HINT}"
    last = max(extent.inside + extent.size for extent in maps.uids) - 1
    return f"users up to {last} are mapped here; a longer range in /etc/subuid and /etc/subgid maps more"


def _why_refused(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "the kernel allows no more of them: raise sysctl user.max_user_namespaces"
    if _read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        return "the kernel keeps them for root: sysctl kernel.unprivileged_userns_clone=1"
    if is_filtered():
        return f"a seccomp filter forbids namespaces: {_OPTIONS} --security-opt seccomp=unconfined"
    if error.errno == errno.EINVAL:
        return "this kernel has no user namespaces: run pybuild as root"
    return "run pybuild as root, or outside of a chroot"


def _why_powerless() -> str:
    if _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        return "AppArmor restricts user namespaces: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    return "a security module takes their privileges away: run pybuild as root"


def _why_forbidden(what: str, error: OSError) -> str:
    profile = _read("/proc/self/attr/current")
    if error.errno == errno.EACCES and profile.endswith(("(enforce)", "(complain)")):
        return f"AppArmor's profile {profile.split()[0]} forbids mounts: {_OPTIONS} --security-opt apparmor=unconfined"
    if error.errno == errno.EACCES and ":" in profile:
        return f"SELinux forbids mounts: {_OPTIONS} --security-opt label=disable"
    if what == "/proc" and error.errno == errno.EPERM:
        podman = os.path.exists("/run/.containerenv")
        flag = "unmask=ALL" if podman else "systempaths=unconfined"
        return f"a part of /proc is hidden, so that no other one can be shown: {_OPTIONS} --security-opt {flag}"
    if is_filtered():
        return f"a seccomp filter forbids it: {_OPTIONS} --security-opt seccomp=unconfined"
    return f"inside a container, {_OPTIONS} --privileged"


def is_filtered() -> bool:
    """Whether a seccomp filter is on this process (proc_pid_status(5))."""
    return "\nSeccomp:\t2\n" in _read("/proc/self/status", strip=False)


def _read(path: str, *, strip: bool = True) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            content = file.read()
    except OSError:
        return ""
    return content.strip() if strip else content
