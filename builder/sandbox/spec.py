"""What a sandbox is asked to be: values that the builder fills in and the launcher reads.

Knows no system call. Strings may hold surrogates for odd bytes. Runs under `python -I -S`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.sandbox.capabilities import DEFAULT
from builder.sandbox.usage import Usage
from cache.namedtuple import NamedTuple

DEFAULT_HOSTNAME = "buildkitsandbox"
DEFAULT_SHM_SIZE = 64 << 20


class Mount(NamedTuple):
    """Something of its own at `target` in the sandbox's root. Missing mount points are made, and removed afterwards.

    `kind` is one of
    - `bind`: `source` is an absolute path of the host, or a descriptor of a directory, a file or a detached mount;
    - `overlay`: `lower_dirs` (top first) merged, written to `upper_dir` with `work_dir`, or to memory that is thrown
      away when neither is given; or `source`, a descriptor of a detached mount that has merged them already;
    - `tmpfs`: empty, at most `size` bytes (0: half of the memory), `noexec`, `mode` as the mount point unless given,
      `uid`, `gid`;
    - `file`: one file with `content` (str, surrogates for odd bytes), `mode` (0o644), `uid` and `gid`, from memory.
    The named values are keys of `options`. `subpath` selects a directory or file below the source of a bind or an
    overlay; symlinks in it never lead out of the source. `target` is resolved in the root, symlinks too.
    """

    kind: str
    target: str
    source: str | int | None = None
    read_only: bool = False
    options: Mapping[str, Any] = {}


class RootMount(NamedTuple):
    """The root filesystem: layers (top first) and where changes go.

    Without `upper_dir` the root is read-only. `volatile` never syncs the upper directory; such a directory can be
    mounted only once.
    """

    lower_dirs: tuple[str, ...]
    upper_dir: str | None = None
    work_dir: str | None = None
    read_only: bool = False
    volatile: bool = False
    source: int | None = None
    """A descriptor of a detached mount that is the root already; the upper directory only tells what was made in it."""
    upper_source: int | None = None
    """A descriptor of the upper directory, for a step that cannot reach its path."""


class Limits(NamedTuple):
    """What the processes of a step may use together. Bytes, microseconds, lists such as `0-2,4`; None and "": no limit.

    `memory_swap` is memory and swap together, -1 as much swap as there is, None twice the memory where swap is counted;
    `cpu_shares` are weights as in cgroup v1.
    """

    memory: int | None = None
    memory_swap: int | None = None
    cpu_shares: int | None = None
    cpu_period: int | None = None
    cpu_quota: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids: int | None = None
    """Processes and threads; -1 for no limit."""
    io_weight: int | None = None
    """From 10 to 1000, as in cgroup v1."""
    io_rates: tuple[tuple[str, str, int], ...] = ()
    """Device as `major:minor`, one of `rbps`, `wbps`, `riops`, `wiops`, and what it may be in a second."""


class Device(NamedTuple):
    """A device of the machine in the sandbox's /dev: `source` at `path`, opened as `permissions` (some of `rwm`) say.

    `entitlement` is what it was asked for by. Without a `path` there is no node, only the entitlement to ask about.
    """

    path: str
    source: str
    permissions: str = "rwm"
    entitlement: str = ""
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class ProcessSpec(NamedTuple):
    """A process and what it may do.

    `user` is "" for root, else `name[:group]` or `uid[:gid]`, looked up in the root's own /etc/passwd and /etc/group.
    `rlimits` are (name as in ulimit, soft, hard), -1 for no limit. `extra_hosts` are `name:address`. `insecure` means
    every capability, no seccomp filter, nothing masked, all devices.
    """

    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    hostname: str = ""
    network: str = "host"
    """`none`, `host`, or `bridge`: a namespace of the build's own network."""
    mounts: tuple[Mount, ...] = ()
    capabilities: tuple[str, ...] = DEFAULT
    seccomp: bool = True
    terminal: bool = False
    insecure: bool = False
    rlimits: tuple[tuple[str, int, int], ...] = ()
    shm_size: int = DEFAULT_SHM_SIZE
    extra_hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    read_only_root: bool = False
    umask: int = 0o022
    add_home: bool = True
    no_new_privileges: bool = False
    limits: Limits = Limits()
    build_limits: Limits = Limits()
    """For this step and all others of its launcher together: the same for each."""
    cgroup_parent: str = ""
    """A control group, from the root of each hierarchy; "" is the group that this process is in."""
    seccomp_filter: str = ""
    """A filter in the place of the default one: base64 of an array of `struct sock_filter`."""
    devices: tuple[Device, ...] = ()
    groups: tuple[int, ...] = ()
    """Supplementary groups besides the user's own."""
    mounts_cover_etc: bool = False
    """Whether a mount on /etc hides the sandbox's own files there, as in a build, or lies below them."""

    restarts_clocks: bool = False
    """Whether the clocks that count from the machine's start count from the process's, where the kernel can do that."""
    hands_over_network: bool = False
    """Whether whoever asked for the process gets its network namespace, of a `bridge`."""


class ExitStatus(NamedTuple):
    """How pid 1 ended: its exit code, 128 + n when signal n ended it."""

    code: int
    signal: int | None = None
    out_of_memory: bool = False
    """Whether the kernel killed a process of the step for its memory limit."""
    usage: Usage = Usage()


def exit_status(wait_status: int) -> ExitStatus:
    """The ExitStatus of a status of waitpid(2)."""
    signal_number = wait_status & 0x7F
    return ExitStatus(128 + signal_number, signal_number) if signal_number else ExitStatus(wait_status >> 8 & 0xFF)
