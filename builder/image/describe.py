"""What people and scripts are told about an image of the store: the documents of `inspect` and `history`, sizes, ages.

Field names and formats are those of `docker image inspect`, `docker history` and `docker images`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from builder.image.config import diff_ids, history
from builder.image.stored import StoredImage
from builder.image.timestamp import parse_time
from cache.store import Store

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_AGES = ((3600 * 24 * 365, "years"), (3600 * 24 * 30, "months"), (3600 * 24 * 7, "weeks"), (3600 * 24, "days"))


def layer_sizes(store: Store, image: StoredImage) -> tuple[int, ...]:
    """Return the bytes of each layer, bottom first: of its tar, or of its blob while nobody has unpacked it."""
    snapshot = store.snapshots.get(image.chain_id) if image.chain_id else None
    sizes = [layer.size for layer in snapshot.layers] if snapshot is not None else [0] * len(image.manifest.layers)
    return tuple([size or blob.size for size, blob in zip(sizes, image.manifest.layers, strict=True)])


def inspect_document(image: StoredImage, names: Sequence[str], size: int) -> dict[str, Any]:
    """Return what `inspect` says about an image; `names` are all that it has, `size` is that of its layers."""
    config = image.config
    repositories = sorted({name.rpartition(":")[0] for name in names})
    document = {
        "Id": str(image.config_digest),
        "RepoTags": sorted(names),
        "RepoDigests": [f"{repository}@{image.manifest_digest}" for repository in repositories],
        "Digest": str(image.manifest_digest),
        "Created": config.get("created") or "",
        "Author": config.get("author") or "",
        "Architecture": config.get("architecture") or "",
        "Variant": config.get("variant") or "",
        "Os": config.get("os") or "",
        "Size": size,
        "Config": config.get("config") or {},
        "Layers": _layers(image),
        "RootFS": {"Type": "layers", "Layers": [str(diff_id) for diff_id in diff_ids(config)]},
        "Manifest": {
            "Digest": str(image.manifest_digest),
            "Layers": [layer.to_json() for layer in image.manifest.layers],
        },
    }
    return document if document["Variant"] else {key: document[key] for key in document if key != "Variant"}


def _layers(image: StoredImage) -> list[dict[str, Any]]:
    """Each layer as its blob and as its tar, bottom first."""
    pairs = zip(image.manifest.layers, diff_ids(image.config), strict=True)
    return [{**blob.to_json(), "diffId": str(diff_id)} for blob, diff_id in pairs]


def history_rows(store: Store, image: StoredImage) -> list[dict[str, Any]]:
    """Return what `history` says, the newest entry first. Only the newest has the image's id."""
    sizes = list(layer_sizes(store, image))
    rows: list[dict[str, Any]] = []
    for entry in history(image.config):
        size = 0 if entry.get("empty_layer") or not sizes else sizes.pop(0)
        row = {key: entry.get(key) or "" for key in ("created", "created_by", "comment")}
        rows.append({"id": "<missing>", **row, "size": size})
    if rows:
        rows[-1]["id"] = str(image.config_digest)
    return rows[::-1]


def human_size(size: int) -> str:
    """Return e.g. `4.26MB`: decimal units, three digits, as docker writes sizes."""
    value, unit = float(size), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g}{_UNITS[unit]}"


def human_age(created: str, now_ns: int) -> str:
    """Return e.g. `3 days ago` for an RFC 3339 time, `N/A` for none."""
    created_ns = parse_time(created)
    if created_ns is None:
        return "N/A"
    seconds = max(0, (now_ns - created_ns) // 1_000_000_000)
    for length, unit in _AGES:
        if seconds >= 2 * length:
            return f"{seconds // length} {unit} ago"
    if seconds >= 2 * 3600:
        return f"{seconds // 3600} hours ago"
    if seconds >= 120:
        return f"{seconds // 60} minutes ago"
    return "About a minute ago" if seconds >= 60 else f"{seconds} seconds ago"


def short_id(digest: str) -> str:
    """Return the first 12 hex digits of a digest."""
    return digest.partition(":")[2][:12]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return lines with the columns aligned, three blanks apart."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    padded = (
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
    return "".join(f"{line}\n" for line in padded)
