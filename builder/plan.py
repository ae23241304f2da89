"""What a build is going to do: vertices of operations, in topological order, and what the image will say.

Values only. An operation says everything that its result depends on and nothing else; `codec` writes a Plan down,
`solver` carries it out. Paths are absolute in the root they belong to, with `surrogateescape` for odd bytes.
"""

from typing import Any, TypeAlias

from builder.errors import Location
from cache.namedtuple import NamedTuple

SCRATCH = -1
"""The input index that stands for an empty root."""


class ImageSourceOp(NamedTuple):
    """The layers of an image of the local store."""

    reference: str
    """Where it is, or can be fetched again."""
    manifest_digest: str
    chain_id: str
    name: str
    """What the Dockerfile calls it."""


class LocalSourceOp(NamedTuple):
    """The context, or a named one: a directory of the machine that builds, or what was fetched from elsewhere."""

    name: str


class HttpSourceOp(NamedTuple):
    """One file fetched from a URL; the result is a root that holds just that file."""

    url: str
    filename: str
    checksum: str


class GitSourceOp(NamedTuple):
    """What is checked out of a git repository."""

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    """The commit that it must be."""
    keep_git_dir: bool = False
    submodules: bool = True
    fetch_by_commit: bool = False
    mtime: str = ""
    """`checkout` for files as young as the checkout; else they are as old as the commit."""


class MountOp(NamedTuple):
    """One `RUN --mount`, evaluated. `input` is an index into the vertex's inputs, SCRATCH for none.

    `env` is the variable of a secret, and for an ssh agent the socket's path as it was written.
    """

    kind: str
    target: str
    input: int = SCRATCH
    source: str = ""
    read_only: bool = False
    id: str = ""
    sharing: str = ""
    size: int = 0
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    required: bool = False
    env: str = ""


class ExecOp(NamedTuple):
    """A process in a sandbox on input 0."""

    argv: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    mounts: tuple[MountOp, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    hostname: str = ""
    extra_hosts: tuple[str, ...] = ()
    shm_size: int = 0
    ulimits: tuple[str, ...] = ()
    proxy_env: tuple[str, ...] = ()
    """Proxy variables: the process sees them, the cache key does not."""
    platform: str = ""
    """What the stage is for, `os/architecture[/variant]`: the same command on an equal root can do another thing."""
    devices: tuple[tuple[str, bool], ...] = ()
    """Names of devices, and whether the process fails without each."""
    security_opt: tuple[str, ...] = ()
    """What --security-opt says, with a profile by its digest; in the key alone, the sandbox has the profile itself."""


class MkdirAction(NamedTuple):
    """Make a directory and its missing parents; `owner` is `user[:group]` as written, looked up in the root."""

    path: str
    mode: int = 0o755
    owner: str = ""


class MkfileAction(NamedTuple):
    """Write one file; its directory exists or is made."""

    path: str
    content: str
    mode: int = 0o644


class CopyAction(NamedTuple):
    """Copy from input `input` (an index into the vertex's inputs) into the root.

    The options are BuildKit's `CopyInfo`: `include_patterns` select below `source` (COPY --parents), `required_paths`
    must exist, `chmod` is octal digits or symbolic text or empty, `chown` is as written or empty.
    """

    input: int
    source: str
    dest: str
    follow_symlinks: bool = True
    dir_contents_only: bool = True
    create_dest_path: bool = True
    allow_wildcard: bool = True
    allow_empty_wildcard: bool = True
    attempt_unpack: bool = False
    include_patterns: tuple[str, ...] = ()
    exclude_patterns: tuple[str, ...] = ()
    required_paths: tuple[str, ...] = ()
    chmod: str = ""
    chown: str = ""


FileAction: TypeAlias = MkdirAction | MkfileAction | CopyAction


class FileOp(NamedTuple):
    """File actions, one after the other, on input 0 (or on an empty root)."""

    actions: tuple[FileAction, ...]


class MergeOp(NamedTuple):
    """The layers of input 1 on top of input 0, whatever input 0 holds (COPY --link)."""


Op: TypeAlias = ImageSourceOp | LocalSourceOp | HttpSourceOp | GitSourceOp | ExecOp | FileOp | MergeOp


class Vertex(NamedTuple):
    """One operation of the graph. `inputs` are indices of earlier vertices of the Plan, SCRATCH for an empty root.

    Input 0 is the root that an ExecOp or a FileOp starts from; further inputs are what its mounts and copies read.
    """

    op: Op
    inputs: tuple[int, ...]
    name: str
    stage: str = ""
    location: Location | None = None
    internal: bool = False
    """Not shown in the progress unless it fails (inline documents, merges)."""
    no_cache: bool = False
    text: str = ""
    """The instruction as it is written, without values of variables; to be shown where `name` says too much."""
    args: tuple[str, ...] = ()
    """Which of the variables that it sees are build arguments."""


class HistoryEntry(NamedTuple):
    """One line of the image's history (OCI image-spec, config, `history`), without its time."""

    created_by: str
    empty_layer: bool = False
    comment: str = "buildkit.dockerfile.v0"


class PlannedImage(NamedTuple):
    """One result: the vertex whose root it is (SCRATCH for none), and the image config as JSON-able dict.

    `config` is the whole OCI image config document without `rootfs`, `created` and `history`; `base_history` are the
    base image's own history documents, `history` what this build adds.
    """

    vertex: int
    platform: str
    config: dict[str, Any]
    base_history: tuple[dict[str, Any], ...]
    history: tuple[HistoryEntry, ...]
    base_layers: int
    target: str
    epoch: int | None = None
    """SOURCE_DATE_EPOCH in seconds, when something gave it."""


class PlanWarning(NamedTuple):
    """A finding about the Dockerfile that does not stop the build."""

    rule: str
    message: str
    location: Location | None


class Plan(NamedTuple):
    """Vertices in topological order, the images made of them, and what was remarked on the way."""

    vertices: tuple[Vertex, ...]
    images: tuple[PlannedImage, ...]
    warnings: tuple[PlanWarning, ...] = ()
    made_ns: int = 0
    """When it was lowered; a remembered plan keeps it, so that what is dated by it does not change."""
