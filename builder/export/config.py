"""The config document of a finished image: what was planned, the layers it got, and when.

Pure: planned image, diff_ids and times in, bytes out. The same input gives the same bytes on any machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from builder.image.config import encode_config
from builder.image.timestamp import format_time
from builder.plan import HistoryEntry, PlannedImage
from cache.digest import Digest

_EXPORTER_COMMENT = "buildkit.exporter.image.v0"


class Times:
    """When things happened, in nanoseconds since 1970.

    With an `epoch` (SOURCE_DATE_EPOCH, seconds) that is when everything of this build happened. The base image's
    history keeps its times, as its layers do.
    """

    def __init__(self, entries: Sequence[int], created: int, epoch: int | None = None) -> None:
        limit = None if epoch is None else epoch * 1_000_000_000
        self.entries = tuple(entries) if limit is None else (limit,) * len(entries)
        self.created = created if limit is None else limit


def image_config(planned: PlannedImage, diff_ids: Sequence[Digest], times: Times, vertex_name: str = "") -> bytes:
    """Return the canonical config document of the image.

    `times.entries` belong to `planned.history`. Layers that no history entry accounts for (FROM a directory) get
    entries of their own at the end, created by `vertex_name`, as BuildKit adds them.
    """
    history = list(planned.base_history)
    history += _new_history(planned.history, times)
    document = {
        **planned.config,
        "created": format_time(times.created),
        "history": list(_accounted(history, len(diff_ids), vertex_name, format_time(times.created))),
        "rootfs": {"type": "layers", "diff_ids": [str(diff_id) for diff_id in diff_ids]},
    }
    return encode_config(document)


def _new_history(entries: Sequence[HistoryEntry], times: Times) -> Iterator[dict[str, Any]]:
    for entry, time_ns in zip(entries, times.entries, strict=True):
        document: dict[str, Any] = {"created": format_time(time_ns), "created_by": entry.created_by}
        if entry.comment:
            document["comment"] = entry.comment
        if entry.empty_layer:
            document["empty_layer"] = True
        yield document


def _accounted(
    history: Sequence[dict[str, Any]], layers: int, vertex_name: str, created: str
) -> Iterator[dict[str, Any]]:
    """Yield history with exactly `layers` entries that are not empty layers."""
    seen = 0
    for entry in history:
        if entry.get("empty_layer"):
            yield entry
        elif seen < layers:
            seen += 1
            yield entry
        else:
            yield {**entry, "empty_layer": True}
    for _ in range(layers - seen):
        yield {"created": created, "created_by": vertex_name, "comment": _EXPORTER_COMMENT}
