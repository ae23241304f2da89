"""Notes of records on their way between machines, and former records out of caches elsewhere.

What a cache says may have any shape and be written to mislead: what is not shaped like a note and a manifest of ours
is not looked at, and nothing of it decides more than the words of an explanation.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from cache.keynotes import FormerRecord, KeyNote
from cache.keys import key_of, readable

if TYPE_CHECKING:
    from builder.cachestore.imports import Cache
    from cache.exchange import Offer

_FOUND_AT_MOST = 24
"""Of each index: the newest ones."""
_LOOKED_AT_MOST = 20_000
"""Of each cache: more than any build has, and little enough that a hostile one costs no time to speak of."""
_COMPARED = ("text", "args", "inputs")
_NOT_OF_OPERATION = ("inputs", "by", "secrets")


def travelling_note(note: KeyNote) -> dict[str, Any]:
    """What of a note others may know: the instruction and its place, not where on this machine."""
    return {"stage": note.stage, "keyword": note.keyword, **json.loads(note.notes)}


class FormerElsewhere:
    """The records of caches elsewhere, found as `KeyNotes.former` finds those of the store."""

    def __init__(self, caches: Iterable[Cache]) -> None:
        self._by: dict[tuple[str, ...], list[Offer]] = defaultdict(list)
        self._by_key: dict[str, Offer] = {}
        for cache in caches:
            for offer in islice(cache.index.offers.values(), _LOOKED_AT_MOST):
                manifest = offer.record.manifests[offer.key]
                if is_note(offer.record.note) and is_manifest(manifest) and offer.is_sound:
                    self._add(offer)

    def _add(self, offer: Offer) -> None:
        self._by_key.setdefault(offer.key, offer)
        note = _key_note(offer, "")
        for place in _places(note):
            self._by[place].append(offer)

    def get(self, key: str) -> FormerRecord | None:
        """The record of a key."""
        offer = self._by_key.get(key)
        return None if offer is None else _former(offer, "")

    def former(self, like: KeyNote) -> list[FormerRecord]:
        """Records of the same kind with another key: the newest of the operation, of the parent, and of the place."""
        found: dict[str, FormerRecord] = {}
        for place in _places(like):
            offers = sorted(self._by.get(place, ()), key=lambda offer: -offer.record.created_ns)
            for offer in offers[:_FOUND_AT_MOST]:
                if offer.key != like.key:
                    found.setdefault(offer.key, _former(offer, like.project))
        return list(found.values())


def _places(note: KeyNote) -> list[tuple[str, ...]]:
    places = [(note.kind, "operation", note.operation), (note.kind, "place", note.stage, note.keyword)]
    return [*places, (note.kind, "parent", note.parent)] if note.parent else places


def _former(offer: Offer, project: str) -> FormerRecord:
    return FormerRecord(_key_note(offer, project), "", readable(offer.record.manifests[offer.key]))


def _key_note(offer: Offer, project: str) -> KeyNote:
    manifest, note = offer.record.manifests[offer.key], offer.record.note
    inputs = manifest["inputs"]
    return KeyNote(
        key=offer.key,
        kind="content" if manifest.get("by") == "content" else "definition",
        project=project,
        stage=note["stage"],
        keyword=note["keyword"],
        operation=key_of({name: value for name, value in manifest.items() if name not in _NOT_OF_OPERATION}),
        parent=inputs[0].get("key", "") if inputs else "",
        made_ns=offer.record.created_ns,
        notes=json.dumps({name: note[name] for name in _COMPARED}).encode("ascii"),
    )


def is_note(note: Mapping[str, Any]) -> bool:
    """Whether a note from elsewhere has the parts of one, each of its type."""
    texts = all(isinstance(note.get(name), str) for name in ("stage", "keyword", "text", "file"))
    inputs = note.get("inputs")
    return (
        texts
        and _are(note.get("args"), str)
        and isinstance(inputs, list)
        and all(each is None or (_is_texts(each) and "text" in each and _names_image(each)) for each in inputs)
    )


def _names_image(item: Mapping[str, str]) -> bool:
    return ("image" in item) == ("digest" in item)


def is_manifest(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest from elsewhere has the parts of one, each of its type."""
    inputs = manifest.get("inputs")
    if not isinstance(manifest.get("op"), str) or not isinstance(inputs, list) or not all(map(_is_input, inputs)):
        return False
    if not _is_texts(manifest.get("secrets", {})):
        return False
    if manifest["op"] == "exec":
        env: Any = manifest.get("env")
        return (
            _are(manifest.get("argv"), str)
            and _are(env, str)
            and all("=" in entry for entry in env)
            and all(isinstance(manifest.get(name), str) for name in ("cwd", "user"))
            and _are(manifest.get("mounts"), dict)
            and all({"kind", "target", "id"} <= mount.keys() for mount in manifest["mounts"])
        )
    if manifest["op"] == "file":
        return _are(manifest.get("actions"), dict) and all("action" in each for each in manifest["actions"])
    return True


def _is_input(item: object) -> bool:
    return isinstance(item, dict) and isinstance(item.get("key", ""), str) and _are(item.get("digests", []), str)


def _are(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(each, kind) for each in value)


def _is_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
