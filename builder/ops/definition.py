"""The two questions an operation answers: what does your result depend on, and run.

A key's manifest names the operation and every input; two manifests that differ say why a step missed. By definition an
input stands with its own key (a local directory with the digest of what is read of it); by content every input stands
with the digest of what it holds. The files behind a digest are no part of a key, and listed only for what has to run.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from builder.errors import BuildError
from builder.plan import (
    CopyAction,
    ExecOp,
    FileOp,
    GitSourceOp,
    HttpSourceOp,
    ImageSourceOp,
    LocalSourceOp,
    MergeOp,
    MkdirAction,
    Op,
    Vertex,
)
from cache.errors import CacheError
from cache.keys import key_of
from cache.namedtuple import NamedTuple
from cache.snapshots import EMPTY, ActiveSnapshot, Snapshot

if TYPE_CHECKING:
    from builder.ops.select import Selection
    from builder.ops.tree import SourceTree
    from builder.state import VertexState
    from builder.worker import Worker
else:  # evaluated by NamedTuple, for which text would have to be compiled: 2 ms
    Selection = SourceTree = VertexState = Worker = object

Inputs: TypeAlias = "Sequence[VertexState | None]"
_UNKEYED = ("proxy_env", "ulimits", "shm_size")
"""Fields of an ExecOp that do not decide its result: proxies and resource limits."""
_KEYED_IF_GIVEN = ("devices", "security_opt")
"""Fields that keys of older versions do not have: what says nothing is left out."""


@contextmanager
def located(vertex: Vertex) -> Iterator[None]:
    """Give errors the vertex's place in the Dockerfile; the store's errors become the build's."""
    try:
        yield
    except BuildError as error:
        error.location = error.location or vertex.location
        raise
    except CacheError as error:
        raise BuildError(str(error), hint=error.hint, location=vertex.location) from error


def _operation(op: Op) -> dict[str, Any]:
    """The operation itself, without its inputs, as plain values."""
    if isinstance(op, ExecOp):
        fields = {name: value for name, value in op._asdict().items() if name not in _UNKEYED}
        fields = {name: value for name, value in fields.items() if value or name not in _KEYED_IF_GIVEN}
        fields["mounts"] = [mount._asdict() for mount in op.mounts]
        return {"op": "exec", **fields}
    if isinstance(op, FileOp):
        return {"op": "file", "actions": [{"action": type(a).__name__, **a._asdict()} for a in op.actions]}
    if isinstance(op, MergeOp):
        return {"op": "merge"}
    if isinstance(op, ImageSourceOp):
        return {"op": "image", "chain_id": op.chain_id}
    if isinstance(op, LocalSourceOp):
        return {"op": "local"}
    return {"op": "git" if isinstance(op, GitSourceOp) else "http"}


class Described(NamedTuple):
    """A key's manifest, and beside it the files that were looked at for it: of each input, for each copy of it."""

    manifest: dict[str, Any]
    files: dict[int, list[Selection]]


def operation_key(vertex: Vertex) -> str:
    """A name for an operation whatever its inputs are, to find the records of earlier ones."""
    return key_of(_operation(vertex.op))


def by_definition(vertex: Vertex, inputs: Inputs, worker: Worker) -> dict[str, Any]:
    """The manifest of a vertex's definition key. Needs no result of an input.

    Raises BuildError when a local directory lacks what the operation reads.
    """

    def describe(_position: int, state: VertexState) -> dict[str, Any]:
        return {"key": state.key}

    return _manifest(vertex, inputs, worker, describe)


def by_content(vertex: Vertex, inputs: Inputs, worker: Worker) -> Described:
    """The manifest of a vertex's content key, with the files of other roots that it is about. Every input has its
    result."""
    files: dict[int, list[Selection]] = {}

    def describe(position: int, state: VertexState) -> dict[str, Any]:
        if position and isinstance(vertex.op, FileOp):
            with worker.view(_result(state)) as tree:
                files[position] = [selection(copy, tree) for copy in _copies(vertex.op, position)]
            return {"digests": [each.digest for each in files[position]]}
        return {"content": _result(state).content_digest}

    if isinstance(vertex.op, FileOp):
        from builder.ops.select import selection
    return Described({**_manifest(vertex, inputs, worker, describe), "by": "content"}, files)


def local_files(vertex: Vertex, inputs: Inputs, worker: Worker) -> dict[int, list[Selection]]:
    """The files of local directories that a vertex reads: of each such input, for each copy of it.

    Raises BuildError as `by_definition` does.
    """
    return {
        position: [worker.inputs.selection(state.vertex.op.name, copy) for copy in _copies(vertex.op, position)]
        for position, state in enumerate(inputs)
        if state is not None and isinstance(state.vertex.op, LocalSourceOp) and is_directory(state.vertex.op, worker)
    }


def _manifest(
    vertex: Vertex, inputs: Inputs, worker: Worker, describe: Callable[[int, VertexState], dict[str, Any]]
) -> dict[str, Any]:
    """The operation and its inputs: local directories by what is read of them, the others as `describe` says."""
    manifest = _operation(vertex.op) | _fetched(vertex.op, worker) | _keyed_secrets(vertex.op, worker)
    described: list[dict[str, Any]] = []
    for position, state in enumerate(inputs):
        if state is None:
            described.append({"empty": True})
        elif isinstance(state.vertex.op, LocalSourceOp) and is_directory(state.vertex.op, worker):
            described.append(_local(vertex.op, position, state.vertex.op.name, worker))
        else:
            described.append(describe(position, state))
    return {**manifest, "inputs": described}


def _local(op: Op, position: int, name: str, worker: Worker) -> dict[str, Any]:
    """What is read of a local directory; which bits of modes that is about is said only when it is not all."""
    modes = {} if worker.inputs.modes == "full" else {"modes": worker.inputs.modes}
    return {"digests": [worker.inputs.digest(name, copy) for copy in _copies(op, position)], **modes}


def _keyed_secrets(op: Op, worker: Worker) -> dict[str, Any]:
    """The secrets that are part of the key because the command line says so, as keyed digests."""
    if not isinstance(op, ExecOp):
        return {}
    ids = {mount.id for mount in op.mounts if mount.kind == "secret" and worker.secrets.is_keyed(mount.id)}
    if not ids:
        return {}
    return {"secrets": {each: worker.secrets.keyed_digest(each, worker.store.mac_key()) for each in sorted(ids)}}


def _fetched(op: Op, worker: Worker) -> dict[str, Any]:
    """What a source from elsewhere is now."""
    if isinstance(op, HttpSourceOp):
        from builder.ops.fetch import http_key

        return http_key(op, worker.inputs.fetcher.file(op))
    if isinstance(op, GitSourceOp):
        return worker.inputs.fetcher.repository(op).key()
    if isinstance(op, LocalSourceOp):
        snapshot = worker.inputs.snapshot(op.name)
        return {} if snapshot is None else {"chain_id": snapshot.chain_id}
    return {}


def is_directory(op: LocalSourceOp, worker: Worker) -> bool:
    """Whether a context is read where it is; another one is a snapshot."""
    return worker.inputs.snapshot(op.name) is None


def _copies(op: Op, position: int) -> list[CopyAction]:
    """The copies of a file operation that read its input `position`."""
    assert isinstance(op, FileOp), "only file operations read local directories"
    return [action for action in op.actions if isinstance(action, CopyAction) and action.input == position]


def _result(state: VertexState) -> Snapshot:
    assert state.result is not None, f"{state.vertex.name} has no result yet"
    return state.result


def execute(vertex: Vertex, index: int, inputs: Inputs, worker: Worker) -> Snapshot:
    """Run the operation of the plan's vertex `index`; returns its committed root.

    Raises BuildError, and leaves no active snapshot then.
    """
    op = vertex.op
    if isinstance(op, ExecOp):
        from builder.ops.exec import run_exec

        return run_exec(op, index, [EMPTY if state is None else _result(state) for state in inputs], worker)
    if isinstance(op, MergeOp):
        return _merge(inputs, worker)
    if isinstance(op, ImageSourceOp):
        return _fetch_image(op, index, worker)
    base = EMPTY if not inputs or inputs[0] is None else _result(inputs[0])
    return _run_files(op, base, inputs, worker)


def _fetch_image(op: ImageSourceOp, index: int, worker: Worker) -> Snapshot:
    images = worker.inputs.fetcher.images
    if images is None:
        message = f"image {op.reference} is in the store without its layers"
        raise BuildError(message, hint="load the image again")

    def on_transfer(digest: str, current: int, total: int) -> None:
        worker.reporter.transfer(index, digest, current, total)

    return images.fetch(op, on_transfer)


def _merge(inputs: Inputs, worker: Worker) -> Snapshot:
    base, top = (EMPTY if state is None else _result(state) for state in inputs)
    for layer in top.layers:
        base = worker.store.snapshots.stack(base, layer)
    return base


def _run_files(op: Op, base: Snapshot, inputs: Inputs, worker: Worker) -> Snapshot:
    """File actions, or what was fetched, on top of `base`."""
    snapshots = worker.store.snapshots
    active = snapshots.prepare(base)
    try:
        if isinstance(op, HttpSourceOp):
            from builder.ops.fetch import materialise

            materialise(op, worker.inputs.fetcher.file(op), worker.store, active.upper_dir)
        elif isinstance(op, GitSourceOp):
            worker.inputs.fetcher.repository(op).materialise(active)
        else:
            assert isinstance(op, FileOp)
            if inputs[0] is None:
                _refuse_names(op)
            _apply(op, snapshots.lower_dirs(base), active, inputs, worker)
        return snapshots.commit(active)
    except BaseException:
        snapshots.discard(active)
        raise


def _refuse_names(op: FileOp) -> None:
    """On an empty root no action may name its owner; one after the first would find what that has made."""
    from builder.ops.owner import refuse_names

    if isinstance(op.actions[0], CopyAction):
        refuse_names(op.actions[0].chown)
    elif isinstance(op.actions[0], MkdirAction):
        refuse_names(op.actions[0].owner)


def _apply(op: FileOp, lower: Sequence[str], active: ActiveSnapshot, inputs: Inputs, worker: Worker) -> None:
    from builder.ops.fileop import apply
    from builder.sandbox.fsops import SafeRoot

    opened = worker.sandbox.snapshotter.opened(lower, active.upper_dir, active.work_dir, volatile=True)
    with opened as fd, ExitStack() as stack:
        apply(op, SafeRoot(fd), _trees(inputs, worker, stack))


def _trees(inputs: Inputs, worker: Worker, stack: ExitStack) -> dict[int, SourceTree]:
    trees: dict[int, SourceTree] = {}
    for position, state in enumerate(inputs):
        if position == 0 or state is None:
            continue
        if isinstance(state.vertex.op, LocalSourceOp) and is_directory(state.vertex.op, worker):
            trees[position] = worker.inputs.tree(state.vertex.op.name)
        else:
            trees[position] = stack.enter_context(worker.view(_result(state)))
    return trees
