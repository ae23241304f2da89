"""The rows of layers and of the chains made of them. Knows no directory and no blob, only what is written of them."""

from collections.abc import Iterable
from typing import Any

from cache.database import Database, Row
from cache.descriptor import Descriptor
from cache.digest import Digest
from cache.namedtuple import NamedTuple
from cache.snapshot import Layer

_COLUMNS = (
    "l.id, l.diff_id, l.content_digest, l.size, l.entries, l.tree, l.boot_id, l.imported,"
    " l.blob_digest, l.blob_type, l.blob_size"
)
_SELECT = f"SELECT {_COLUMNS} FROM layers l WHERE"  # noqa: S608 - the columns are a constant above
_CHAINS = f"""
WITH RECURSIVE up(chain_id) AS (
    SELECT chain_id FROM snapshots WHERE chain_id IN (*)
    UNION SELECT s.parent FROM snapshots s JOIN up USING (chain_id) WHERE s.parent <> ''
)
SELECT s.chain_id, s.parent, {_COLUMNS}
FROM up JOIN snapshots s USING (chain_id) JOIN layers l ON l.id = s.layer_id WHERE l.state = 'ready'
"""  # noqa: S608 - the columns are a constant above


class LayerRow(NamedTuple):
    """A layer with where it is: as a tree (written under `boot_id`, "" when known to be durable), as a blob, or both.

    An imported layer's tar was made elsewhere: its diff_id can only be checked on the blob, not on the tree.
    """

    layer: Layer
    tree: bool
    boot_id: str
    imported: bool
    blob: Descriptor | None


class LayerRows:
    """The tables `layers` and `snapshots`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, layer_id: int) -> LayerRow | None:
        """The row of a finished layer."""
        row = self._database.row(f"{_SELECT} l.id = ? AND l.state = 'ready'", (layer_id,))
        return _layer_row(row) if row else None

    def chains(self, names: Iterable[str]) -> dict[str, tuple[str, LayerRow]]:
        """Of those chains and of all below them: the parent chain and the top layer."""
        rows = self._database.rows_in(_CHAINS, names)
        return {row[0]: (row[1], _layer_row(row[2:])) for row in rows}

    def chain_ids(self) -> list[str]:
        """The names of all chains."""
        return [row[0] for row in self._database.rows("SELECT chain_id FROM snapshots")]

    def portable(self, diff_id: Digest) -> list[LayerRow]:
        """The layers of that tar whose trees serve on any base."""
        sql = f"{_SELECT} l.diff_id = ? AND l.state = 'ready' AND l.tree AND l.portable"
        return [_layer_row(row) for row in self._database.rows(sql, (diff_id,))]

    def is_checked(self, diff_id: Digest, blob_digest: Digest, content_digest: str) -> bool:
        """Whether a layer is known that was made from this blob, or this blob of it, and holds that."""
        sql = "SELECT 1 FROM layers WHERE diff_id = ? AND blob_digest = ? AND content_digest = ? AND state = 'ready'"
        return self._database.row(sql, (diff_id, blob_digest, content_digest)) is not None

    def make_ready(self, layer: Layer, boot_id: str) -> None:
        """Turn the active row of a layer that was built here into the layer."""
        self._database.write(
            "UPDATE layers SET state = 'ready', lease = '', tree = 1, portable = 1, boot_id = ?, diff_id = ?,"
            " content_digest = ?, size = ?, entries = ? WHERE id = ?",
            (boot_id, layer.diff_id, layer.content_digest, layer.size, layer.entries, layer.layer_id),
        )

    def insert_blob(self, diff_id: Digest, blob: Descriptor, content_digest: str = "", size: int = 0) -> Layer:
        """A new layer that is only a blob yet. Where its content digest is not known its tar's name stands in."""
        layer_id = self._database.write(
            "INSERT INTO layers (state, diff_id, content_digest, size, imported, blob_digest, blob_type, blob_size)"
            " VALUES ('ready', ?, ?, ?, 1, ?, ?, ?)",
            (diff_id, content_digest or diff_id, size, blob.digest, blob.media_type, blob.size),
        )
        return Layer(layer_id, diff_id, content_digest or str(diff_id), size, 0)

    def make_imported(self, layer: Layer, blob: Descriptor, boot_id: str, *, portable: bool) -> None:
        """Turn the active row of a layer whose tar was made elsewhere, and is unpacked now, into the layer."""
        self._database.write(
            "UPDATE layers SET state = 'ready', lease = '', tree = 1, imported = 1, portable = ?, boot_id = ?,"
            " diff_id = ?, content_digest = ?, size = ?, entries = ?, blob_digest = ?, blob_type = ?, blob_size = ?"
            " WHERE id = ?",
            (
                *(portable, boot_id, layer.diff_id, layer.content_digest, layer.size, layer.entries),
                *(blob.digest, blob.media_type, blob.size, layer.layer_id),
            ),
        )

    def attach_blob(self, layer_id: int, blob: Descriptor) -> None:
        """Note a blob of a layer."""
        self._database.write(
            "UPDATE layers SET blob_digest = ?, blob_type = ?, blob_size = ? WHERE id = ?",
            (blob.digest, blob.media_type, blob.size, layer_id),
        )

    def share(self, layer_id: int) -> Layer:
        """The layer for use on another base: itself, or a new row when its tree may depend on the base it has."""
        row = self.get(layer_id)
        assert row is not None, "a layer is stacked while its snapshot is in use"
        if row.imported and row.blob is not None:
            return self.insert_blob(row.layer.diff_id, row.blob, row.layer.content_digest, row.layer.size)
        return row.layer

    def unpacked(self, layer_id: int, size: int, entries: int, *, portable: bool, boot_id: str) -> None:
        """Note that a layer's blob has become a tree."""
        self._database.write(
            "UPDATE layers SET tree = 1, size = ?, entries = ?, portable = ?, boot_id = ? WHERE id = ?",
            (size, entries, portable, boot_id, layer_id),
        )

    def make_durable(self, layer_id: int) -> None:
        """Note that a tree was found in order after the boot that wrote it."""
        self._database.write("UPDATE layers SET boot_id = '' WHERE id = ?", (layer_id,))

    def lose_tree(self, layer_id: int) -> None:
        """Note that a layer has no tree."""
        self._database.write("UPDATE layers SET tree = 0 WHERE id = ?", (layer_id,))

    def insert_chain(self, name: str, parent: str, layer_id: int, created_ns: int) -> None:
        """A layer on top of a parent chain."""
        self._database.write(
            "INSERT OR REPLACE INTO snapshots (chain_id, parent, layer_id, created_ns) VALUES (?, ?, ?, ?)",
            (name, parent, layer_id, created_ns),
        )

    def remove_chain(self, name: str) -> list[int]:
        """Remove a chain; the layers that none has any more."""
        ids = [row[0] for row in self._database.rows("SELECT layer_id FROM snapshots WHERE chain_id = ?", (name,))]
        self._database.write("DELETE FROM snapshots WHERE chain_id = ?", (name,))
        used = "SELECT 1 FROM snapshots WHERE layer_id = ?"
        return [layer_id for layer_id in ids if self._database.row(used, (layer_id,)) is None]

    def forget_layer(self, layer_id: int) -> None:
        """Remove every chain that ends in a layer, because the layer is lost."""
        self._database.write("DELETE FROM snapshots WHERE layer_id = ?", (layer_id,))


def _layer_row(row: Row | tuple[Any, ...]) -> LayerRow:
    layer_id, diff_id, content_digest, size, entries, tree, boot_id, imported, digest, media_type, blob_size = row
    blob = Descriptor(media_type, Digest(digest), blob_size) if digest else None
    return LayerRow(
        Layer(layer_id, Digest(diff_id), content_digest, size, entries), bool(tree), boot_id, bool(imported), blob
    )
