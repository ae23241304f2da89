"""Making an image known to the store once its blobs are in it: verify, then let snapshots refer to them."""

from __future__ import annotations

from builder.image.config import diff_ids
from builder.image.stored import StoredImage, put_document
from builder.image.validate import find_problems, require_valid
from cache.digest import Digest
from cache.layerrows import LayerRows
from cache.snapshot import EMPTY, chain_id
from cache.store import Store


def register(store: Store, image: StoredImage, manifest_raw: bytes, config_raw: bytes) -> StoredImage:
    """Make an image whose layer blobs are in the store known to it, and return it. Idempotent.

    BuildError lists everything that is wrong with the image; nothing refers to its layers then.
    """
    put_document(store, config_raw)
    layers = diff_ids(image.config)
    known = _known_layers(store, image, layers)
    problems = find_problems(image.manifest, image.config, store.blobs, known.__contains__)
    require_valid(problems, f"image {image.manifest_digest}")
    put_document(store, manifest_raw)
    snapshot = EMPTY
    for diff_id, blob in zip(layers, image.manifest.layers, strict=True):
        snapshot = store.snapshots.add_layer_blob(snapshot, diff_id, blob)
    return image


def _known_layers(store: Store, image: StoredImage, layers: tuple[Digest, ...]) -> set[int]:
    """The layers, by number, that an earlier import verified: same chain, same blob."""
    rows = LayerRows(store.database)
    known: set[int] = set()
    chain = ""
    chains: list[str] = []
    for diff_id in layers:
        chain = chain_id(chain, diff_id)
        chains.append(chain)
    snapshots = store.snapshots.get_many(chains)
    for number, blob in enumerate(image.manifest.layers):
        snapshot = snapshots.get(chains[number])
        row = rows.get(snapshot.layers[-1].layer_id) if snapshot else None
        if row is not None and row.blob is not None and row.blob.digest == blob.digest:
            known.add(number)
    return known
