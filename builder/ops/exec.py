"""RUN: a process in a sandbox on the snapshot before it; what it changed is the result.

Turns an ExecOp into a ProcessSpec with its mounts, passes output on, and explains a failure. How the sandbox is made is
`sandbox`'s.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack

from builder.devices import Given, Wanted, find_devices
from builder.errors import BuildError, SandboxError
from builder.ops.cache_mount import take_cache_mounts
from builder.plan import SCRATCH, ExecOp, MountOp
from builder.quantities import shown_size
from builder.sandbox.diagnosis import explain_output
from builder.sandbox.launcher import Streams
from builder.sandbox.spec import DEFAULT_HOSTNAME, DEFAULT_SHM_SIZE, ExitStatus, Limits, Mount, ProcessSpec, RootMount
from builder.sandbox.validate import check
from builder.sandbox.wire import CommandError
from builder.worker import Sandbox, Worker
from cache.snapshots import ActiveSnapshot, Snapshot

_MOUNTED_LATE = ("secret", "ssh")
"""Where another mount has the same place, these win (BuildKit)."""

TAIL_BYTES = 8 << 10
"""How much of a failed step's output its error carries."""

_PIPE_SIZE = 1 << 20
"""Of what a step writes into: it seldom has to wait, and much is read at once."""


def run_exec(op: ExecOp, index: int, inputs: Sequence[Snapshot], worker: Worker) -> Snapshot:
    """The root after the process ended with 0; `inputs[0]` is the root it started on, output is vertex `index`'s.

    Raises BuildError with the exit code and the last output otherwise, SandboxError when there was no process.
    """
    given = find_devices(Wanted(*device) for device in op.devices) if op.devices else Given()
    check(given.added(worker.sandbox.options.security.applied(_spec(op, (), ()))), worker.sandbox.options.allowed)
    snapshots = worker.store.snapshots
    active = snapshots.prepare(inputs[0])
    try:
        with ExitStack() as stack:
            mounts, extra_env = _mounts(op, inputs, worker, stack, index)
            spec = given.added(_granted(_spec(op, mounts, extra_env), worker))
            # A layer may be lost until it is hashed after the next boot, so that no unmount has to wait for the disk.
            root = RootMount(snapshots.lower_dirs(inputs[0]), active.upper_dir, active.work_dir, volatile=True)
            output = Output(worker, index)
            try:
                status = _run(op, output, spec, root)
                worker.used(index, status.usage)
                _check(op, status, output, worker.sandbox)
            except SandboxError:
                raise
            except BuildError as error:
                if worker.sandbox.options.debug_shell != "off":
                    _look_inside(error, spec, root, worker, active)
                raise
        return snapshots.commit(active)
    except BaseException:
        snapshots.discard(active)
        raise


def _look_inside(error: BuildError, spec: ProcessSpec, root: RootMount, worker: Worker, active: ActiveSnapshot) -> None:
    from builder.ops.debug_shell import look_inside

    worker.store.snapshots.renew_work_dir(active)
    look_inside(error, spec, root, worker)


def _run(op: ExecOp, output: Output, spec: ProcessSpec, root: RootMount) -> ExitStatus:
    try:
        return output.run(spec, root)
    except CommandError as error:
        from builder.ops.foreign import advice, foreign

        host = foreign(op.platform)
        if not host or op.platform.partition("/")[0] != "linux":
            raise
        why = f'process "{" ".join(op.argv)}" is for {op.platform}, which this machine ({host}) could not run: {error}'
        raise BuildError(why, hint=advice(op.platform) or error.hint) from error


def _check(op: ExecOp, status: ExitStatus, output: Output, sandbox: Sandbox) -> None:
    if status.code == 0:
        return
    shown = " ".join(op.argv)
    how = f"exit code: {status.code}"
    hint = None
    if status.out_of_memory:
        how += f" (killed: out of memory{_memory_limit(sandbox)})"
        hint = "give it more with --resource memory=SIZE, or let it use less"
    elif status.signal is not None:
        how += f" (killed by signal {status.signal})"
    elif status.code == 127:
        hint = "the command was not found: is it installed in this stage, and on PATH?"
    elif status.code == 126:
        hint = "the command cannot be executed: does it have the x bit, and an interpreter that exists?"
    hint = hint or _foreign_advice(op) or explain_output(output.tail(), is_remapped=sandbox.is_remapped)
    raise BuildError(f'process "{shown}" did not complete successfully: {how}', hint=hint, output=output.tail())


def _memory_limit(sandbox: Sandbox) -> str:
    """The limits that a step can have met."""
    found = []
    options = sandbox.options
    for limits, what in ((options.limits, "the limit is"), (options.build_limits, "the limit of the build is")):
        if limits is not None and limits.memory:
            found.append(f", {what} {shown_size(limits.memory)}")
    return "".join(found)


def _foreign_advice(op: ExecOp) -> str | None:
    """A shell that does run may have met a program that does not."""
    from builder.ops.foreign import advice, foreign

    found = advice(op.platform) if foreign(op.platform) else None
    return f"the stage is for {op.platform}; {found}" if found else None


class Output:
    """What a step writes: passed to the reporter as it comes, the end of it kept for an error."""

    def __init__(self, worker: Worker, index: int) -> None:
        self._worker = worker
        self._index = index
        self._tail = b""

    def run(self, spec: ProcessSpec, root: RootMount) -> ExitStatus:
        """Run the process with its output read; returns when it and its output have ended."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # an ordinary user may have too much in pipes already (pipe(7))
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        reader = threading.Thread(target=self._read, args=(reading,), daemon=True)
        reader.start()
        try:
            return self._worker.sandbox.launcher.run(spec, root, Streams(None, writing, writing))
        finally:
            os.close(writing)
            reader.join()

    def _read(self, fd: int) -> None:
        with open(fd, "rb", buffering=0) as pipe:
            while chunk := pipe.read(64 << 10):
                self._tail = (self._tail + chunk)[-TAIL_BYTES:]
                self._worker.reporter.output(self._index, chunk)

    def tail(self) -> str:
        """The last output, as text."""
        return self._tail.decode("utf-8", "replace")


def _spec(op: ExecOp, mounts: tuple[Mount, ...], extra_env: tuple[str, ...]) -> ProcessSpec:
    insecure = op.security == "insecure"
    return ProcessSpec(
        argv=op.argv,
        env=(*op.env, *op.proxy_env, *extra_env),
        cwd=op.cwd or "/",
        user=op.user,
        hostname=op.hostname or DEFAULT_HOSTNAME,
        network=op.network,
        mounts=mounts,
        insecure=insecure,
        seccomp=not insecure,
        rlimits=tuple(_rlimit(text) for text in op.ulimits),
        shm_size=op.shm_size or DEFAULT_SHM_SIZE,
        extra_hosts=op.extra_hosts,
        mounts_cover_etc=True,
    )


def _granted(spec: ProcessSpec, worker: Worker) -> ProcessSpec:
    """The spec with what the build, not the Dockerfile, says: limits, filters, name servers, which network there can
    be."""
    sandbox = worker.sandbox
    return sandbox.options.security.applied(spec)._replace(
        network=sandbox.network(spec.network, worker.reporter.message),
        dns=sandbox.options.dns.servers,
        dns_search=sandbox.options.dns.search,
        dns_options=sandbox.options.dns.options,
        limits=sandbox.options.limits or Limits(),
        build_limits=sandbox.options.build_limits or Limits(),
        cgroup_parent=sandbox.options.cgroup_parent,
        restarts_clocks=sandbox.options.restarts_clocks,
    )


def _rlimit(text: str) -> tuple[str, int, int]:
    """`nofile=1024:2048` -> name, soft, hard."""
    name, _, values = text.partition("=")
    soft, _, hard = values.partition(":")
    return name, int(soft), int(hard or soft)


def _mounts(
    op: ExecOp, inputs: Sequence[Snapshot], worker: Worker, stack: ExitStack, index: int
) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
    mounts: list[Mount] = []
    env: list[str] = []
    agents = 0
    wanted = sorted(op.mounts, key=lambda mount: _MOUNTED_LATE.index(mount.kind) if mount.kind in _MOUNTED_LATE else -1)
    for mount, taken in zip(wanted, take_cache_mounts(wanted, inputs, worker, stack, index), strict=True):
        if taken is not None:
            mounts.append(taken)
        elif mount.kind == "secret":
            _secret(mount, worker, mounts, env)
        elif mount.kind == "ssh":
            _ssh(mount, worker, mounts, env, agents)
            agents += 1
        elif mount.kind == "tmpfs":
            mounts.append(Mount("tmpfs", mount.target, None, False, {"size": mount.size}))
        else:
            mounts.append(_bind(mount, inputs, worker))
    # Of several at one place there is only the last.
    return tuple({mount.target: mount for mount in mounts}.values()), tuple(env)


def _bind(mount: MountOp, inputs: Sequence[Snapshot], worker: Worker) -> Mount:
    """A part of another root; what a step writes into it is thrown away."""
    lower = () if mount.input == SCRATCH else worker.store.snapshots.lower_dirs(inputs[mount.input])
    options = {"lower_dirs": list(lower), "subpath": mount.source}
    return Mount("overlay", mount.target, None, mount.read_only, options)


def _secret(mount: MountOp, worker: Worker, mounts: list[Mount], env: list[str]) -> None:
    found = worker.secrets.read(mount.id)
    if found is None and mount.required:
        raise BuildError(f"secret {mount.id}: not found", hint=f"give it with --secret id={mount.id},src=FILE")
    if mount.env:
        env.append(f"{mount.env}={os.fsdecode(found or b'')}")
    if mount.target and found is not None:
        options = {"content": os.fsdecode(found), "mode": mount.mode, "uid": mount.uid, "gid": mount.gid}
        mounts.append(Mount("file", mount.target, None, True, options))


def _ssh(mount: MountOp, worker: Worker, mounts: list[Mount], env: list[str], number: int) -> None:
    target = mount.target or f"/run/buildkit/ssh_agent.{number}"
    socket = worker.secrets.ssh.get(mount.id)
    if socket is None and mount.required:
        raise BuildError(f"ssh agent {mount.id}: not found", hint="give it with --ssh default or --ssh ID=SOCKET")
    if not number:
        env.append("SSH_AUTH_SOCK=" + (mount.env or target))
    if socket is not None:
        mounts.append(Mount("bind", target, socket, False, {}))
