"""RUN --mount lowered: what a process sees besides its root.

Source: Dockerfile reference, RUN --mount; BuildKit's behaviour for names and ids.
"""

from __future__ import annotations

import posixpath

from builder.errors import BuildError
from builder.plan import SCRATCH, CopyAction, FileOp, LocalSourceOp, MountOp
from builder.stage import StageState
from builder.step import Step
from grammar.mount_flag import MountFlag


def lower_mount(flag: MountFlag, source: StageState | None, inputs: list[int], step: Step) -> MountOp:
    """One mount; what it shows is added to the inputs. Raises BuildError."""
    if (flag.from_ or flag.type == "cache") and source is not None and not source.dispatched:
        raise BuildError(
            f'cannot mount from stage "{flag.from_}" to "{flag.target}", stage needs to be defined before current '
            "command"
        )
    if flag.type == "secret":
        return _secret_mount(flag, step.state)
    if flag.type == "ssh":
        return _ssh_mount(flag, step.state)
    target = _target(flag, step.state)
    if flag.type == "tmpfs":
        return MountOp("tmpfs", target, size=flag.size or 0)
    index = _input(flag, source, inputs, step)
    path = posixpath.normpath("/" + flag.source.lstrip("/"))
    mount = MountOp("bind", target, index, path, flag.read_only)
    return _cache_mount(flag, mount, step) if flag.type == "cache" else mount


def _cache_mount(flag: MountFlag, mount: MountOp, step: Step) -> MountOp:
    """A mode only where the mount has a directory of its own: owner and mode say nothing about a part of the input."""
    if mount.input == SCRATCH and mount.source != "/":
        raise BuildError(
            f'cache mount source "{flag.source}" not found: the cache is empty at first',
            hint="say where it is with from=STAGE, or leave source out",
        )
    identity = f"{step.scope.options.cache_namespace}/{flag.id or posixpath.normpath(flag.target)}"
    mount = mount._replace(kind="cache", id=identity, sharing=flag.sharing or "shared")
    if mount.source != "/" or (flag.mode, flag.uid, flag.gid) == (None, None, None):
        return mount
    mode, uid, gid = 0o755 if flag.mode is None else flag.mode, flag.uid or 0, flag.gid or 0
    return mount._replace(id=f"{identity} {mode:04o} {uid}:{gid}", mode=mode, uid=uid, gid=gid)


def _target(flag: MountFlag, state: StageState) -> str:
    target = flag.target if flag.target.startswith("/") else posixpath.join("/", state.cwd, flag.target)
    target = posixpath.normpath(target)
    if target == "/":
        raise BuildError(f'invalid mount target "{target}"')
    return target


def _input(flag: MountFlag, source: StageState | None, inputs: list[int], step: Step) -> int:
    """The input that a bind or cache mount shows: a stage, an image, the context, or an empty directory."""
    scope = step.scope
    if flag.from_ and source is not None:
        vertex = source.vertex
        if vertex != SCRATCH and isinstance(scope.vertices[vertex].op, LocalSourceOp):
            vertex = _directory_part(flag, vertex, step)
    elif flag.type == "cache":
        vertex = SCRATCH
    else:
        vertex = _directory_part(flag, scope.local(LocalSourceOp("context")), step)
    if vertex == SCRATCH:
        return SCRATCH
    inputs.append(vertex)
    return len(inputs) - 1


def _directory_part(flag: MountFlag, local: int, step: Step) -> int:
    """A root with just the part of a local directory that a mount shows, filtered by .dockerignore. What a symlink in
    the path leads to is put where the mount looks for it."""
    path = posixpath.normpath("/" + flag.source.lstrip("/"))
    if path == "/":
        copy = CopyAction(1, "/", "/", allow_wildcard=False)
    else:
        parent = posixpath.dirname(path).rstrip("/") + "/"
        copy = CopyAction(1, path, parent, allow_wildcard=False, dir_contents_only=False)
    name = f"[internal] load {path} of the build context"
    return step.add_internal(FileOp((copy,)), (SCRATCH, local), name)


def _secret_mount(flag: MountFlag, state: StageState) -> MountOp:
    identity = flag.source or flag.id or posixpath.basename(flag.target.rstrip("/"))
    if not identity:
        raise BuildError("one of source, target required")
    target = _target(flag, state) if flag.target else ""
    if not target and not flag.env:
        target = "/run/secrets/" + posixpath.basename(identity)
    return MountOp(
        "secret",
        target,
        id=identity,
        mode=0o400 if flag.mode is None else flag.mode,
        uid=flag.uid or 0,
        gid=flag.gid or 0,
        required=flag.required,
        env=flag.env or "",
    )


def _ssh_mount(flag: MountFlag, state: StageState) -> MountOp:
    if flag.source:
        raise BuildError("ssh does not support source")
    return MountOp(
        "ssh",
        _target(flag, state) if flag.target else "",
        id=flag.id or "default",
        mode=0o600 if flag.mode is None else flag.mode,
        uid=flag.uid or 0,
        gid=flag.gid or 0,
        required=flag.required,
        env=flag.target,
    )
