"""Records in an image's own config (type=inline): the image is its own cache, as far as its layers go.

    "pybuild.cache.v1": {"version": 1,
                         "layers":  [{"content_digest", "tar_size"} or null, …]   one for each of the image's layers
                         "records": [{"keys", "layer", "created_ns", "seconds"}, …]}

The field is one that nobody else knows, so everything reads the image as before; its id is another one. Layers are the
image's: diff_ids stand in the config, blobs in the manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from builder.cachestore.place import Found
from builder.image.config import diff_ids, parse_config
from cache.errors import CacheError
from cache.exchange import EMPTY_INDEX, VERSION, CacheIndex, TravellingRecord, decode_document, record_document
from cache.snapshot import Layer

FIELD = "pybuild.cache.v1"


def inline_field(layers: Sequence[Layer], records: Sequence[TravellingRecord]) -> dict[str, Any]:
    """What the config of an image with these layers, bottom first, says of the records of them."""
    numbers = {layer.diff_id: number for number, layer in enumerate(layers)}
    kept = [record for record in records if record.diff_id in numbers]
    told = {record.diff_id for record in kept}
    return {
        "version": VERSION,
        "layers": [
            {"content_digest": layer.content_digest, "tar_size": layer.size} if layer.diff_id in told else None
            for layer in layers
        ],
        "records": [
            record_document(record, numbers[record.diff_id] if record.diff_id else None)
            for record in sorted(kept, key=lambda record: min(record.manifests))
        ],
    }


def read_inline(found: Found) -> CacheIndex:
    """The index in an image's config, an empty one when it has none. BuildError or CacheError when it is malformed."""
    config = parse_config(found.config_raw)
    field = config.get(FIELD)
    if not isinstance(field, dict):
        return EMPTY_INDEX
    names, blobs = diff_ids(config), found.manifest.layers
    notes, records = field.get("layers"), field.get("records")
    if not isinstance(notes, list) or not isinstance(records, list) or not len(notes) == len(names) == len(blobs):
        raise CacheError("inline cache is not valid: it does not fit the image's layers")
    layers: list[dict[str, Any]] = []
    numbers: dict[object, int] = {}
    for number, (note, diff_id, blob) in enumerate(zip(notes, names, blobs, strict=True)):
        if isinstance(note, dict):
            numbers[number] = len(layers)
            own = {"diff_id": diff_id, "digest": blob.digest, "media_type": blob.media_type, "size": blob.size}
            layers.append({**note, **own})
    placed = [
        {**record, "layer": numbers.get(record.get("layer"), -1)} for record in records if isinstance(record, dict)
    ]
    document = {"version": field.get("version"), "layers": layers, "records": placed, "mounts": []}
    return decode_document(document, blobs)
