"""What names of registries meant when they were last asked: images that are here without a name of their own.

A build that finds its base this way asks nobody. What is remembered is a digest; the image counts only while the store
has its documents. May be forgotten at any time.
"""

import json
from collections.abc import Iterator

from builder.image.stored import StoredImage, read_image
from cache.digest import Digest
from cache.errors import CacheError
from cache.namedtuple import NamedTuple
from cache.store import Store

_PREFIX = "pin "


class Pin(NamedTuple):
    """What a name meant for a platform: the manifest, and `top`, the index (or the same manifest) that led to it."""

    top: Digest
    manifest: Digest


def get_pin(store: Store, name: str, platform: str) -> Pin | None:
    """What is remembered of a complete name, None when nothing is."""
    raw = store.memo.get(_key(name, platform))
    if raw is None:
        return None
    top, manifest = json.loads(raw)
    return Pin(Digest(top), Digest(manifest))


def put_pin(store: Store, name: str, platform: str, pin: Pin) -> None:
    """Remember a name. Idempotent."""
    if get_pin(store, name, platform) != pin:
        store.memo.put(_key(name, platform), json.dumps(pin).encode("ascii"))


def pinned_image(store: Store, name: str, platform: str) -> StoredImage | None:
    """The image that a name meant, None when it is not known or its documents are gone. Its layers may not be here."""
    pin = get_pin(store, name, platform)
    if pin is None:
        return None
    try:
        return read_image(store, pin.manifest)
    except CacheError:
        return None


def walk_pins(store: Store) -> Iterator[tuple[str, Pin]]:
    """What is remembered of all names: `NAME PLATFORM`, and what it meant."""
    for key, raw in store.memo.walk(_PREFIX):
        top, manifest = json.loads(raw)
        yield key.removeprefix(_PREFIX), Pin(Digest(top), Digest(manifest))


def _key(name: str, platform: str) -> str:
    return f"{_PREFIX}{name} {platform}"
