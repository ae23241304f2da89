"""What `du` and `prune` print of entries: a table, blocks of fields, JSON; and the sums.

Columns and names are those of `docker buildx du`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from builder.image.describe import human_age, human_size, table
from cache.usage import BLOB, CACHE_MOUNT, LAYER, Entry

Describe = Callable[[Entry], str]
"""What a layer was made by, as a person would say it."""


def short_id(entry: Entry) -> str:
    """The id with digests cut to what is enough to name them."""
    return re.sub(r"[0-9a-f]{64}", lambda found: found[0][:12], entry.id) or "."


def as_table(entries: Sequence[Entry], now_ns: int) -> str:
    """One line for each entry, the largest first."""
    rows = [
        [
            short_id(entry),
            entry.type,
            "true" if entry.is_reclaimable else "false",
            human_size(entry.size) + ("*" if entry.is_shared else ""),
            human_age(_time(entry.used_ns), now_ns) if entry.used_ns else "",
        ]
        for entry in sorted(entries, key=lambda entry: (-entry.size, entry.id))
    ]
    return table(["ID", "TYPE", "RECLAIMABLE", "SIZE", "LAST ACCESSED"], rows)


def as_blocks(entries: Iterable[Entry], describe: Describe) -> str:
    """A block of lines for each entry, with all that is known of it."""
    return "".join(_block(document(entry, describe)) + "\n" for entry in entries)


def _block(fields: dict[str, object]) -> str:
    lines = []
    for name, value in fields.items():
        if value in ("", [], None):
            continue
        shown = human_size(value) if name == "Size" and isinstance(value, int) else value
        shown = ", ".join(map(str, shown)) if isinstance(shown, list) else shown
        lines.append(f"{name + ':':<15}{str(shown).lower() if isinstance(shown, bool) else shown}\n")
    return "".join(lines)


def document(entry: Entry, describe: Describe) -> dict[str, object]:
    """The entry as JSON values; Size is in bytes."""
    return {
        "ID": entry.id or ".",
        "Type": entry.type,
        "Size": entry.size,
        "Reclaimable": entry.is_reclaimable,
        "Shared": entry.is_shared,
        "InUse": bool(entry.holders),
        "UsedBy": sorted(entry.holders),
        "CreatedAt": _time(entry.created_ns) if entry.created_ns else "",
        "LastUsedAt": _time(entry.used_ns) if entry.used_ns else "",
        "Description": describe(entry),
        "Records": len(entry.keys),
    }


def as_json(entries: Iterable[Entry], describe: Describe) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(document(entry, describe)) + "\n" for entry in entries)


def sums(entries: Iterable[Entry]) -> str:
    """Bytes of each kind, then shared, private, reclaimable and all together."""
    found = list(entries)
    kinds: dict[str, list[Entry]] = {}
    for entry in found:
        kinds.setdefault(entry.type, []).append(entry)
    names = {LAYER: "layers", BLOB: "blobs", CACHE_MOUNT: "cache mounts"}
    lines = [
        (f"{names.get(kind, kind)} ({len(each)}):", sum(entry.size for entry in each)) for kind, each in kinds.items()
    ]
    lines.append(("Shared:", sum(entry.size for entry in found if entry.is_shared)))
    lines.append(("Private:", sum(entry.size for entry in found if not entry.is_shared)))
    lines.append(("Reclaimable:", sum(entry.size for entry in found if entry.is_reclaimable)))
    lines.append(("Total:", sum(entry.size for entry in found)))
    width = max(len(name) for name, _ in lines) + 2
    return "".join(f"{name:<{width}}{human_size(size)}\n" for name, size in lines)


def _time(time_ns: int) -> str:
    moment = datetime.fromtimestamp(time_ns // 10**9, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + f".{time_ns % 10**9:09d}Z"
