"""One container from its image to its exit code: layers, directories, process, terminal, signals."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from builder.errors import BuildError
from builder.image.config import runtime_config
from builder.image.stored import StoredImage
from builder.runner.container import Container, Containers
from builder.runner.process import process_spec
from builder.runner.signals import Forwarding
from builder.runner.volumes import mounts_of
from builder.sandbox.launcher import Launcher, StartedStep, Streams
from builder.sandbox.snapshotter import Snapshotter
from builder.sandbox.spec import ExitStatus, ProcessSpec, RootMount
from cache.locks import Locks
from cache.namedtuple import NamedTuple
from cache.removal import remove_tree
from cache.store import Store

if TYPE_CHECKING:
    from builder.runner.options import RunOptions
    from builder.runner.ports import Published

HANGUP_SECONDS = 10
"""How long a program may go on after its terminal has gone, as `docker stop` waits."""


class Request(NamedTuple):
    """What to run, and what becomes of the container afterwards."""

    image: StoredImage
    image_name: str
    options: RunOptions
    name: str
    is_kept: bool
    created_ns: int
    ports: Published | None = None


def run(request: Request, store: Store, launcher: Launcher) -> ExitStatus:
    """How the program ended. CommandError has the exit code for one that is not executable (126), or not found (127).

    BuildError or SandboxError when there was no process; the container is then gone, even one that was to be kept.
    """
    lower_dirs = _layers(request.image, store)
    with (
        Forwarding() as forwarding,
        _containers(store, is_kept=request.is_kept) as containers,
        containers.create(request.name, is_kept=request.is_kept) as container,
    ):
        try:
            spec, root = _prepare(request, container, lower_dirs, launcher.snapshotter)
            return _Session(launcher, forwarding, request).run(spec, root)
        except BaseException:
            container.is_kept = False
            raise


@contextmanager
def _containers(store: Store, *, is_kept: bool) -> Iterator[Containers]:
    """Where the container lives: in the store, or in a directory for temporary files if that is read-only."""
    if not store.is_read_only:
        yield Containers(store.root, store.locks)
        return
    if is_kept:
        raise BuildError(
            f"{store.root}: the store is read-only, it cannot keep a container", hint="let it go with --rm"
        )
    import tempfile

    scratch = tempfile.mkdtemp(prefix="pybuild-")
    try:
        os.makedirs(os.path.join(scratch, "run", "locks"), 0o700)
        yield Containers(scratch, Locks(scratch))
    finally:
        remove_tree(scratch)


def _layers(image: StoredImage, store: Store) -> tuple[str, ...]:
    snapshot = store.snapshots.get(image.chain_id)
    if snapshot is None:
        raise BuildError(
            f"image {image.config_digest} has lost layers", hint="load it again, or build it again with --no-cache"
        )
    return store.snapshots.lower_dirs(snapshot)


def _prepare(
    request: Request, container: Container, lower_dirs: tuple[str, ...], snapshotter: Snapshotter
) -> tuple[ProcessSpec, RootMount]:
    config = runtime_config(request.image.config)
    container.make_layer(lower_dirs)
    mounts = mounts_of(request.options.volumes, config, container, lower_dirs=lower_dirs, snapshotter=snapshotter)
    spec = process_spec(config, request.options, hostname=container.short_id, mounts=mounts)
    container.write_config(
        {
            "image": request.image_name,
            "image_id": request.image.config_digest,
            "chain_id": request.image.chain_id,
            "created_ns": request.created_ns,
            "argv": spec.argv,
        }
    )
    # Nothing of a container that goes with its program has to reach the disk.
    root = RootMount(lower_dirs, container.upper_dir, container.work_dir, volatile=not request.is_kept)
    return spec, root


class _Session:
    """A process in a sandbox, connected with this process's streams and signals."""

    def __init__(self, launcher: Launcher, forwarding: Forwarding, request: Request) -> None:
        self._launcher = launcher
        self._forwarding = forwarding
        self._options = request.options
        self._ports = request.ports

    def run(self, spec: ProcessSpec, root: RootMount) -> ExitStatus:
        """How the process ended."""
        if self._options.has_terminal:
            return self._run_terminal(spec, root)
        streams = Streams(0 if self._options.is_interactive else None, 1, 2)
        return self._launcher.run(spec, root, streams, on_start=self._begin)

    def _begin(self, step: StartedStep) -> None:
        if self._ports is not None and step.network_fd is not None:
            self._ports.start(step.network_fd)
        self._forwarding.started(lambda number: self._launcher.kill(step.step, number))

    def _end_after_hangup(self, step: int) -> None:
        """Kill a program that goes on without its terminal, as pid 1 may: it does not hear SIGHUP without a handler."""
        timer = threading.Timer(HANGUP_SECONDS, self._launcher.kill, (step, signal.SIGKILL))
        timer.daemon = True
        timer.start()

    def _run_terminal(self, spec: ProcessSpec, root: RootMount) -> ExitStatus:
        from builder.runner.terminal import Relay, raw_mode, resizing

        with ExitStack() as stack:
            if self._options.is_interactive:
                stack.enter_context(raw_mode(0))

            def connect(step: StartedStep) -> None:
                assert step.terminal_fd is not None, "the spec asks for a terminal"
                stdin_fd = 0 if self._options.is_interactive else None
                end = partial(self._end_after_hangup, step.step)
                relay = Relay(step.terminal_fd, stdin_fd=stdin_fd, stdout_fd=1, on_hangup=end)
                relay.start()
                stack.callback(relay.finish)
                stack.enter_context(resizing(step.terminal_fd, 1 if os.isatty(1) else 0))
                self._begin(step)

            return self._launcher.run(spec, root, Streams(), on_start=connect)
