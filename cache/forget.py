"""Removing chains and blobs that nobody uses: the one place that takes rows and blobs away while others build.

With the gate closed nobody can find anything new; within the transaction nobody can make anything. What is used is
read after both, so nothing that is used can be among what goes. Directories are removed when the gate is open again:
their rows say already that they are dead.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cache.digest import Digest
from cache.errors import StoreFullError
from cache.holding import FindRoots
from cache.layerrows import LayerRows

if TYPE_CHECKING:
    from cache.store import Store


def forget(store: Store, find_roots: FindRoots, chains: Iterable[str], digests: Iterable[Digest]) -> list[str]:
    """Remove those chains and blobs that nobody needs now; the paths, within the store, of what is gone.

    Chains come before what they stand on. A layer goes with its last chain, its blobs go with it. On a full disk
    directories are removed before their rows can be: what is recorded without its directory is not used.
    """
    wanted, loose = list(chains), list(digests)
    try:
        dead, gone = _forget_rows(store, find_roots, wanted, loose)
    except StoreFullError:
        _make_room(store, find_roots, wanted)
        dead, gone = _forget_rows(store, find_roots, wanted, loose)
    store.drop_layers(dead)
    return [*(f"snapshots/{layer_id}" for layer_id in dead), *(f"blobs/sha256/{digest.hex}" for digest in gone)]


def _forget_rows(
    store: Store, find_roots: FindRoots, chains: list[str], digests: list[Digest]
) -> tuple[list[int], list[Digest]]:
    database = store.database
    with store.uses.deciding() as noted:
        roots = find_roots()
        with database.transaction():
            needed = set(LayerRows(database).chains({*noted, *roots.chains}))
            doomed = _without_children(store, [name for name in chains if name not in needed])
            dead = _delete_chains(store, doomed)
            blobs = [*_blobs_of(store, dead), *digests]
            for layer_id in dead:
                database.write("UPDATE layers SET state = 'dead', lease = '', diff_id = '' WHERE id = ?", (layer_id,))
            gone = [digest for digest in dict.fromkeys(blobs) if digest not in noted and digest not in roots.blobs]
            gone = [digest for digest in gone if not _is_original(store, digest)]
            for digest in gone:
                database.write("DELETE FROM layer_blobs WHERE digest = ?", (digest,))
        return dead, [digest for digest in gone if store.blobs.delete(digest)]


def _without_children(store: Store, chains: list[str]) -> list[str]:
    """Of chains in their order, those whose children go before them."""
    children: dict[str, set[str]] = {}
    rows = store.database.rows_in("SELECT parent, chain_id FROM snapshots WHERE parent IN (*)", chains)
    for parent, child in rows:
        children.setdefault(parent, set()).add(child)
    doomed: dict[str, None] = {}
    for name in chains:
        if children.get(name, set()) <= doomed.keys():
            doomed[name] = None
    return list(doomed)


def _delete_chains(store: Store, chains: list[str]) -> list[int]:
    """Delete chains with the records that lead to them; the layers that none has any more."""
    rows, dead = LayerRows(store.database), []
    for name in chains:
        dead += rows.remove_chain(name)
        store.database.write("DELETE FROM records WHERE chain_id = ?", (name,))
    return dead


def _blobs_of(store: Store, layer_ids: list[int]) -> list[Digest]:
    """The blobs of layers: their own ones, and those made of tars that no other layer has."""
    found: list[Digest] = []
    dying = set(layer_ids)
    for layer_id in layer_ids:
        row = store.database.row("SELECT diff_id, blob_digest FROM layers WHERE id = ?", (layer_id,))
        if row is None:
            continue
        found += [Digest(row[1])] if row[1] else []
        others = store.database.rows("SELECT id FROM layers WHERE diff_id = ? AND state = 'ready'", (row[0],))
        if {other[0] for other in others} <= dying:
            made = store.database.rows("SELECT digest FROM layer_blobs WHERE diff_id = ?", (row[0],))
            store.database.write("DELETE FROM layer_blobs WHERE diff_id = ?", (row[0],))
            found += [Digest(each[0]) for each in made]
    return [digest for digest in found if not _is_made_elsewhere(store, digest)]


def _is_made_elsewhere(store: Store, digest: Digest) -> bool:
    """Whether another layer's form has the same bytes."""
    return store.database.row("SELECT 1 FROM layer_blobs WHERE digest = ?", (digest,)) is not None


def _is_original(store: Store, digest: Digest) -> bool:
    """Whether a layer that stays came as this blob."""
    sql = "SELECT 1 FROM layers WHERE blob_digest = ? AND state = 'ready'"
    return store.database.row(sql, (digest,)) is not None


def _make_room(store: Store, find_roots: FindRoots, chains: list[str]) -> None:
    """Remove the trees of doomed chains without writing a row."""
    from cache.removal import remove_tree

    rows = LayerRows(store.database)
    with store.uses.deciding() as noted:
        everything = rows.chains(rows.chain_ids())
        staying = {*rows.chains({*noted, *find_roots().chains}), *(everything.keys() - set(chains))}
        needed = {everything[name][1].layer.layer_id for name in staying if name in everything}
        for name in chains:
            if name in everything and everything[name][1].layer.layer_id not in needed:
                remove_tree(os.path.join(store.root, "snapshots", str(everything[name][1].layer.layer_id)))
