"""What an operation gets to work with, as one bundle for one build; the command makes it, operations keep nothing.

The parts are the store, the files that the build reads (`inputs`), the sandbox, the secrets and the reporter.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from builder.errors import BuildError
from builder.inputs import Inputs
from builder.options import NO_DNS, Dns, SecretSource
from builder.progress import Reporter
from builder.sandbox.snapshotter import OVERLAY, Snapshotter
from builder.security_options import DEFAULT as DEFAULT_SECURITY
from builder.security_options import SecurityOptions
from cache.mutex import Lock, RLock
from cache.namedtuple import NamedTuple
from cache.snapshots import Snapshot
from cache.store import Store

if TYPE_CHECKING:
    from builder.cachestore.exports import Exports
    from builder.cachestore.imports import Imports
    from builder.ops.tree import SourceTree
    from builder.sandbox.launcher import Launcher
    from builder.sandbox.net.choice import NetworkChoice
    from builder.sandbox.spec import Limits
    from builder.sandbox.usage import Usage
else:  # evaluated by NamedTuple, for which text would have to be compiled: 2 ms
    Exports = Imports = SourceTree = Launcher = NetworkChoice = Limits = Usage = object

SECRET_LIMIT = 500 << 10


class Secrets:
    """The secrets and the ssh agent sockets that the command line gave; bytes are read when a step asks for them."""

    def __init__(self, sources: tuple[SecretSource, ...], ssh: Mapping[str, str], environ: Mapping[str, str]) -> None:
        self._sources = {source.id: source for source in sources}
        self._environ = environ
        self._pinned: dict[str, bytes | None] = {}
        self._lock = Lock()
        self.ssh = ssh

    def is_keyed(self, secret_id: str) -> bool:
        """Whether the secret's bytes are to decide, with everything else, if a step has to run (`cache=key`)."""
        source = self._sources.get(secret_id)
        return source is not None and source.keyed

    def keyed_digest(self, secret_id: str, mac_key: bytes) -> str:
        """What stands for the secret in keys: HMAC-SHA256 of its id and bytes, in hex; "absent" for one that is not
        there. Without `mac_key` nobody can tell what it was made of."""
        import hmac

        found = self.read(secret_id)
        if found is None:
            return "absent"
        return hmac.digest(mac_key, secret_id.encode("utf-8", "surrogateescape") + b"\0" + found, "sha256").hex()

    def read(self, secret_id: str) -> bytes | None:
        """The secret's bytes, None when it was not given; one that is in a key stays what it was at the first call.

        Raises BuildError when its file cannot be read.
        """
        source = self._sources.get(secret_id)
        if source is None or not source.keyed:
            return None if source is None else self._read(source)
        with self._lock:
            if secret_id not in self._pinned:
                self._pinned[secret_id] = self._read(source)
            return self._pinned[secret_id]

    def _read(self, source: SecretSource) -> bytes | None:
        if source.env:
            value = self._environ.get(source.env)
            return None if value is None else os.fsencode(value)
        try:
            with open(source.path, "rb") as file:
                found = file.read(SECRET_LIMIT + 1)
        except OSError as error:
            raise BuildError(f'secret "{source.id}" cannot be read: {(error.strerror or "").lower()}') from error
        if len(found) > SECRET_LIMIT:
            raise BuildError(f'secret "{source.id}" is larger than {SECRET_LIMIT >> 10} KiB')
        return found


class StepOptions(NamedTuple):
    """What the command line says about every step."""

    allowed: frozenset[str] = frozenset()
    """Entitlements that --allow gave."""
    limits: Limits | None = None
    """What --resource gave; None when nothing is limited."""
    build_limits: Limits | None = None
    """What --build-resource gave, for all steps together."""
    cgroup_parent: str = ""
    debug_shell: str = "off"
    """When a step fails: `on-error` opens a shell in it, `hint` says that there is such a thing, or `off`."""
    is_own_network_required: bool = False
    dns: Dns = NO_DNS
    security: SecurityOptions = DEFAULT_SECURITY
    """What --security-opt gave."""
    restarts_clocks: bool = False
    """Whether a step must not see for how long the machine has been running."""


class Sandbox:
    """The launcher, started at its first use or before, and what its steps may be granted."""

    def __init__(self, options: StepOptions = StepOptions()) -> None:  # noqa: B008 - a value
        self.options = options
        self._network: NetworkChoice | None = None
        self.usage: dict[int, Usage] = {}
        """What each step that ran has used, by its index in the plan."""
        self.terminal = Lock()
        """Held by the step that talks with the user."""
        self._launcher: Launcher | None = None
        self._choose: Callable[[], Snapshotter] = lambda: OVERLAY
        self._remap: Callable[[], Launcher] | None = None
        self._snapshotter: Snapshotter | None = None
        self._lock = RLock()

    def merge_layers(self, choose: Callable[[], Snapshotter], remap: Callable[[], Launcher] | None = None) -> None:
        """Say how layers become roots, and what makes a launcher for other users than the machine's."""
        self._choose, self._remap = choose, remap

    @property
    def is_remapped(self) -> bool:
        """Whether steps run as other users than the machine's."""
        return self._remap is not None

    @property
    def snapshotter(self) -> Snapshotter:
        """How layers become roots here; chosen at the first use. Raises SandboxError."""
        with self._lock:
            if self._snapshotter is None:
                self._snapshotter = self._choose()
            return self._snapshotter

    @property
    def launcher(self) -> Launcher:
        """The running launcher. Raises SandboxError when there can be none."""
        from builder.sandbox.launcher import Launcher

        with self._lock:
            if self._launcher is None:
                launcher = Launcher() if self._remap is None else self._remap()
                launcher.start()
                launcher.granted = self.options.allowed
                if self._remap is None:
                    launcher.snapshotter = self.snapshotter  # chosen while the launcher starts
                self._launcher = launcher
            return self._launcher

    def network(self, asked: str, say: Callable[[str], None]) -> str:
        """`none`, `host` or `bridge` for the network of a step, see `builder.sandbox.net.choice`. SandboxError."""
        from builder.sandbox.net.choice import NetworkChoice

        launcher = self.launcher
        with self._lock:
            self._network = self._network or NetworkChoice(is_own_required=self.options.is_own_network_required)
        return self._network.mode(asked, launcher, say)

    def close(self) -> None:
        """End every process of the build. Idempotent."""
        with self._lock:
            if self._launcher is not None:
                self._launcher.close()


class Worker(NamedTuple):
    """See the module. Safe to use from several threads."""

    store: Store
    inputs: Inputs
    sandbox: Sandbox
    secrets: Secrets
    reporter: Reporter
    clock: Callable[[], int]
    """Nanoseconds since the epoch."""
    imports: Imports | None = None
    """The caches of --cache-from."""
    exports: Exports | None = None
    """The caches of --cache-to."""
    domain: str = ""
    """The trust domain that the running step belongs to, "" for one's own."""

    @contextmanager
    def view(self, snapshot: Snapshot) -> Iterator[SourceTree]:
        """The merged files of a snapshot, to read from."""
        from builder.ops.fileop import root_tree

        with self.sandbox.snapshotter.opened(self.store.snapshots.lower_dirs(snapshot)) as fd:
            yield root_tree(fd)

    def used(self, index: int, usage: Usage) -> None:
        """Note what the plan's vertex `index` has used."""
        self.sandbox.usage[index] = usage
        self.reporter.used(index, usage)

    def cancel(self) -> None:
        """End every process of the build. Idempotent."""
        self.sandbox.close()
        self.inputs.fetcher.cancel()
        self.close_caches()

    def close_caches(self) -> None:
        """Give up the caches elsewhere. Idempotent."""
        if self.exports is not None:
            self.exports.cancel()
        if self.imports is not None:
            self.imports.close()

    def close(self) -> None:
        """End the sandbox and write down what was learned about the context's files."""
        self.sandbox.close()
        self.inputs.save()
