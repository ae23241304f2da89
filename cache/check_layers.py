"""The part of `check` that is about layers: their forms, the chains made of them, and what is recorded of both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from cache.changes import tree_changes
from cache.check import DAMAGE, LEFTOVER, Finding
from cache.digest import Digest
from cache.errors import CacheError
from cache.layer import write_tar
from cache.layerrows import LayerRow, LayerRows
from cache.snapshot import chain_id

if TYPE_CHECKING:
    from cache.store import Store


def check_layers(store: Store) -> Iterator[Finding]:
    """Every layer is there in one of its forms, and a tree that was made here still gives the tar that names it.

    The tree of an imported layer can only be had from its blob, which is hashed as every blob is.
    """
    rows = LayerRows(store.database)
    for (layer_id,) in store.database.rows("SELECT id FROM layers WHERE state = 'ready' ORDER BY id"):
        row = rows.get(layer_id)
        if row is None:
            continue
        problem = _problem(store, row)
        if problem and rows.get(layer_id) is not None:
            subject = f"snapshots/{layer_id}"
            yield Finding(DAMAGE, subject, f"layer {row.layer.diff_id}: {problem}", repair=partial(_lose, store, row))


def _problem(store: Store, row: LayerRow) -> str:
    """What is wrong with a layer, "" for nothing."""
    tree_dir = os.path.join(store.root, "snapshots", str(row.layer.layer_id), "diff")
    has_blob = row.blob is not None and store.blobs.peek(row.blob.digest) is not None
    if not row.tree:
        return "" if has_blob else "has neither a directory nor a blob"
    if not os.path.isdir(tree_dir):
        return "" if has_blob else "its directory is missing"
    if row.imported:
        return ""
    try:
        found = write_tar(tree_changes(tree_dir), tree_dir).diff_id
    except CacheError as error:
        return str(error)
    return "" if found == row.layer.diff_id else f"its directory was changed: its tar is {found} now"


def _lose(store: Store, row: LayerRow) -> None:
    """Forget a layer with the chains that end in it; what stands on them is found by the next pass."""
    with store.database.transaction():
        LayerRows(store.database).forget_layer(row.layer.layer_id)
        store.database.write("UPDATE layers SET state = 'dead', diff_id = '' WHERE id = ?", (row.layer.layer_id,))
    store.drop_layers([row.layer.layer_id])


def check_chains(store: Store) -> Iterator[Finding]:
    """Every chain has its layer, its parent, and the name that the two give it (OCI image-spec, Layer ChainID)."""
    sql = "SELECT s.chain_id, s.parent, l.diff_id, l.state FROM snapshots s LEFT JOIN layers l ON l.id = s.layer_id"
    rows = store.database.rows(sql)
    names = {row[0] for row in rows}
    for name, parent, diff_id, state in rows:
        remove = partial(store.database.write, "DELETE FROM snapshots WHERE chain_id = ?", (name,))
        if state != "ready":
            yield Finding(DAMAGE, f"chain {name}", "its layer is missing", repair=remove)
        elif parent and parent not in names:
            yield Finding(LEFTOVER, f"chain {name}", "what it stands on is gone", repair=remove)
        elif chain_id(parent, Digest(diff_id)) != name:
            yield Finding(DAMAGE, f"chain {name}", "is not what its layers are called", repair=remove)


def check_tables(store: Store) -> Iterator[Finding]:
    """Records lead to chains that are there, and so do notes of compressed layers to blobs; layers have chains."""
    write, rows = store.database.write, store.database.rows
    lost = "SELECT key FROM records WHERE chain_id <> '' AND chain_id NOT IN (SELECT chain_id FROM snapshots)"
    for (key,) in rows(lost):
        forget = partial(write, "DELETE FROM records WHERE key = ?", (key,))
        yield Finding(LEFTOVER, f"record {key}", "its result is gone", repair=forget)
    for (digest,) in rows("SELECT DISTINCT digest FROM layer_blobs"):
        if store.blobs.peek(Digest(digest)) is None:
            forget = partial(write, "DELETE FROM layer_blobs WHERE digest = ?", (digest,))
            yield Finding(LEFTOVER, f"blob {digest}", "is recorded, but gone", repair=forget)
    alone = "SELECT id FROM layers WHERE state = 'ready' AND id NOT IN (SELECT layer_id FROM snapshots)"
    for (layer_id,) in rows(alone):
        yield Finding(LEFTOVER, f"snapshots/{layer_id}", "no chain has this layer", repair=store.sweep)
