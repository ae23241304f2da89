"""The nouns of the snapshot store: layers, and the stacks of them that make a root file system."""

from cache.digest import Digest, sha256_hex
from cache.namedtuple import NamedTuple

EMPTY_LAYER = Digest("sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef")
"""The diff_id of a tar without entries."""


class Layer(NamedTuple):
    """A layer of the store. `size` is that of its tar in bytes; size and entries are 0 until an image's layer is
    unpacked.

    `content_digest` ignores times: two layers with the same one put the same into a root.
    """

    layer_id: int
    diff_id: Digest
    content_digest: str
    size: int
    entries: int


class Snapshot(NamedTuple):
    """A root file system: layers from the bottom up, named by their chain id ("" for none)."""

    chain_id: str
    layers: tuple[Layer, ...]

    @property
    def content_digest(self) -> str:
        """One digest for what all layers hold, times and empty layers aside; "" when they hold nothing."""
        contents = [layer.content_digest for layer in self.layers if layer.diff_id != EMPTY_LAYER]
        return sha256_hex("\n".join(contents).encode()) if contents else ""


EMPTY = Snapshot("", ())


class ActiveSnapshot(NamedTuple):
    """Directories for one step: what it writes comes into `upper_dir`, over the layers of `parent`."""

    snapshot_id: int
    parent: Snapshot
    upper_dir: str
    work_dir: str


def chain_id(parent: str, diff_id: Digest) -> str:
    """The name of a layer on top of a chain (OCI image-spec, config, Layer ChainID)."""
    return Digest.of_hex(sha256_hex(f"{parent} {diff_id}".encode())) if parent else str(diff_id)
