"""A cache while it travels between stores: which keys have which result, as one JSON document beside the layers.

    {"version": 1,
     "layers":  [{"diff_id", "digest", "media_type", "size", "content_digest", "tar_size"}, …]   by diff_id
     "records": [{"keys": [{"key", "manifest"}, …], "layer": number or null, "created_ns", "seconds"}, …]
     "mounts":  [{"id", "parts": [a layer, …]}, …],
     "files":   [{"list", "digest", "size"}, …]}                                    by list

A record may have a "note", an object that says where it was made; "files" are lists of the files behind digests in
manifests. Both explain misses and decide nothing, so a document without them is as good.

A record names a layer and never a chain: a result is always that layer on the root that the reading build has below
it, so no record can put anything but its own layer into an image. What comes from elsewhere is checked before anything
looks at it (`decode`); a key counts only when it is the key of its manifest (`Offer.is_sound`). Whether a key really
gives that layer only running the step can tell: that is a matter of trust, not of this module. Knows no transport.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from cache.descriptor import Descriptor
from cache.digest import Digest
from cache.errors import CacheError
from cache.keys import key_of
from cache.namedtuple import NamedTuple

VERSION = 1
MEDIA_CACHE_CONFIG = "application/vnd.pybuild.cache.config.v1+json"
MEDIA_FILE_LIST = "application/vnd.pybuild.cache.files.v1+zlib"
MAX_SIZE = 64 << 20
"""Bytes of a document that are read at the most."""
MAX_LAYERS = 12_000
"""What a manifest of 4 MiB, the most that registries take, has room for."""
_MAX_TAR_SIZE = 1 << 44
_MAX_NS = 1 << 62
_HEX = frozenset("0123456789abcdef")


class TravellingLayer(NamedTuple):
    """A layer and the blob that it travels as; `tar_size` is the length of its tar in bytes."""

    diff_id: Digest
    blob: Descriptor
    content_digest: str
    tar_size: int


class TravellingRecord(NamedTuple):
    """A result: the manifests of the keys that lead to it by their keys, and its layer (None: an empty root)."""

    manifests: Mapping[str, Mapping[str, Any]]
    diff_id: Digest | None
    created_ns: int
    seconds: float
    note: Mapping[str, Any] = {}
    """What whoever made it wants to be known of it, to explain a miss."""


class Offer(NamedTuple):
    """What a cache offers for one key."""

    key: str
    record: TravellingRecord

    @property
    def is_sound(self) -> bool:
        """Whether the key is really that of its manifest."""
        try:
            return key_of(self.record.manifests[self.key]) == self.key
        except (TypeError, ValueError, RecursionError):
            return False


class CacheIndex(NamedTuple):
    """All that a cache says. `offers` has every key, `mounts` the parts of each cache mount by its id."""

    layers: Mapping[Digest, TravellingLayer]
    offers: Mapping[str, Offer]
    mounts: Mapping[str, tuple[TravellingLayer, ...]]
    file_lists: Mapping[str, Descriptor] = {}
    """Where the list of files with a digest is: compressed, see `cache.keynotes`."""

    def blobs(self) -> list[Descriptor]:
        """Every blob that it takes, each once, in the order of their digests."""
        parts = [part for parts in self.mounts.values() for part in parts]
        found = {layer.blob.digest: layer.blob for layer in (*self.layers.values(), *parts)}
        found |= {blob.digest: blob for blob in self.file_lists.values()}
        return [found[digest] for digest in sorted(found)]


EMPTY_INDEX = CacheIndex({}, {}, {})


def make_index(
    layers: Iterable[TravellingLayer],
    records: Iterable[TravellingRecord],
    mounts: Mapping[str, tuple[TravellingLayer, ...]] = {},
    file_lists: Mapping[str, Descriptor] = {},
) -> CacheIndex:
    """The index of these; of two records with the same key the first counts. CacheError when there are too many."""
    known = {layer.diff_id: layer for layer in layers}
    if len(known) > MAX_LAYERS:
        raise CacheError(f"the cache has {len(known)} layers: expected at most {MAX_LAYERS}", hint="use mode=min")
    offers: dict[str, Offer] = {}
    for record in records:
        for key in record.manifests:
            offers.setdefault(key, Offer(key, record))
    return CacheIndex(known, offers, mounts, file_lists)


def encode(index: CacheIndex) -> bytes:
    """The document. The same index gives the same bytes, whatever order things came in."""
    ordered = sorted(index.layers.values())
    numbers = {layer.diff_id: number for number, layer in enumerate(ordered)}
    records = {id(offer.record): offer.record for offer in index.offers.values()}
    document: dict[str, Any] = {
        "version": VERSION,
        "layers": [_layer_document(layer) for layer in ordered],
        "records": [
            record_document(record, None if record.diff_id is None else numbers[record.diff_id])
            for record in sorted(records.values(), key=lambda record: min(record.manifests))
        ],
        "mounts": [
            {"id": mount_id, "parts": [_layer_document(part) for part in parts]}
            for mount_id, parts in sorted(index.mounts.items())
        ],
    }
    if index.file_lists:
        document["files"] = [
            {"list": name, "digest": blob.digest, "size": blob.size} for name, blob in sorted(index.file_lists.items())
        ]
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def record_document(record: TravellingRecord, layer: int | None) -> dict[str, Any]:
    """One record, whose layer has that number in the document."""
    document = {
        "keys": [{"key": key, "manifest": record.manifests[key]} for key in sorted(record.manifests)],
        "layer": layer,
        "created_ns": record.created_ns,
        "seconds": record.seconds,
    }
    return document | ({"note": record.note} if record.note else {})


def _layer_document(layer: TravellingLayer) -> dict[str, Any]:
    return {
        "diff_id": layer.diff_id,
        "digest": layer.blob.digest,
        "media_type": layer.blob.media_type,
        "size": layer.blob.size,
        "content_digest": layer.content_digest,
        "tar_size": layer.tar_size,
    }


def decode(raw: bytes, blobs: Iterable[Descriptor]) -> CacheIndex:
    """The index in `raw`, whose manifest names these blobs. CacheError for anything that is not well-formed.

    A layer whose blob the manifest does not name is refused: nothing keeps such a blob from being collected.
    """
    if len(raw) > MAX_SIZE:
        raise CacheError(f"cache index is too large: {len(raw)} bytes, at most {MAX_SIZE} are read")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise CacheError(f"cache index is not valid JSON: {error}") from error
    return decode_document(document, blobs)


def decode_document(document: object, blobs: Iterable[Descriptor]) -> CacheIndex:
    """The same of a document that was parsed already."""
    if not isinstance(document, dict):
        raise CacheError("cache index is not valid: expected an object")
    version = document.get("version")
    if version != VERSION:
        hint = "it was written by another version of the program; this one can replace it with --cache-to"
        raise CacheError(f"cache index has version {version!r}: expected {VERSION}", hint=hint)
    return _Decoder({blob.digest: blob for blob in blobs}).index(document)


class _Decoder:
    """The checks; each refuses by a CacheError that names what is wrong."""

    def __init__(self, blobs: Mapping[Digest, Descriptor]) -> None:
        self._blobs = blobs

    def index(self, document: dict[str, Any]) -> CacheIndex:
        layers = [self._layer(item) for item in _list(document, "layers", MAX_LAYERS)]
        if len({layer.diff_id for layer in layers}) < len(layers):
            raise CacheError("cache index is not valid: a layer is there twice")
        offers: dict[str, Offer] = {}
        for item in _list(document, "records", 1_000_000):
            record = self._record(item, layers)
            for key in record.manifests:
                offers.setdefault(key, Offer(key, record))
        mounts = {}
        for item in _list(document, "mounts", 10_000):
            mount_id = _text(_member(item, "id"), "id of a mount", 4096)
            mounts[mount_id] = tuple([self._layer(part) for part in _list(item, "parts", MAX_LAYERS)])
        lists = _list(document, "files", 1_000_000) if "files" in document else []
        file_lists = dict([self._file_list(item) for item in lists])
        return CacheIndex({layer.diff_id: layer for layer in layers}, offers, mounts, file_lists)

    def _file_list(self, item: object) -> tuple[str, Descriptor]:
        name = _hex(_member(item, "list"), "list", 64)
        digest = Digest.parse(_text(_member(item, "digest"), "digest", 100))
        size = _number(_member(item, "size"), "size of a list", MAX_SIZE)
        return name, self._named(Descriptor(MEDIA_FILE_LIST, digest, size))

    def _named(self, blob: Descriptor) -> Descriptor:
        named = self._blobs.get(blob.digest)
        if named is None or named.size != blob.size:
            raise CacheError(
                f"cache index is not valid: the manifest does not name blob {blob.digest} of {blob.size} bytes"
            )
        return blob

    def _layer(self, item: object) -> TravellingLayer:
        diff_id = Digest.parse(_text(_member(item, "diff_id"), "diff_id", 100))
        digest = Digest.parse(_text(_member(item, "digest"), "digest", 100))
        size = _number(_member(item, "size"), "size of a blob", _MAX_TAR_SIZE)
        tar_size = _number(_member(item, "tar_size"), "tar_size", _MAX_TAR_SIZE)
        media_type = _text(_member(item, "media_type"), "media_type", 255)
        blob = self._named(Descriptor(media_type, digest, size))
        content = _hex(_member(item, "content_digest"), "content_digest", 32)
        return TravellingLayer(diff_id, blob, content, tar_size)

    def _record(self, item: object, layers: list[TravellingLayer]) -> TravellingRecord:
        manifests: dict[str, dict[str, Any]] = {}
        for entry in _list(item, "keys", 100):
            key = _hex(_member(entry, "key"), "key", 64)
            manifests[key] = _object(_member(entry, "manifest"), "manifest")
        number = _member(item, "layer")
        layer = None if number is None else layers[_number(number, "layer of a record", len(layers) - 1)]
        seconds = _member(item, "seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
            raise CacheError(f"cache index is not valid: seconds is {seconds!r}")
        created_ns = _number(_member(item, "created_ns"), "created_ns", _MAX_NS)
        note = _object(item.get("note", {}) if isinstance(item, dict) else {}, "note")
        return TravellingRecord(manifests, None if layer is None else layer.diff_id, created_ns, float(seconds), note)


def _member(item: object, name: str) -> Any:
    if not isinstance(item, dict) or name not in item:
        raise CacheError(f"cache index is not valid: {name} is missing")
    return item[name]


def _list(item: object, name: str, most: int) -> list[Any]:
    value = _member(item, name)
    if not isinstance(value, list) or len(value) > most:
        raise CacheError(f"cache index is not valid: {name} is no list of at most {most}")
    return value


def _text(value: object, what: str, most: int) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= most:
        raise CacheError(f"cache index is not valid: {what} is {str(value)[:80]!r}")
    return value


def _hex(value: object, what: str, length: int) -> str:
    text = _text(value, what, length)
    if len(text) != length or not _HEX.issuperset(text):
        raise CacheError(f"cache index is not valid: {what} is {text[:80]!r}")
    return text


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CacheError(f"cache index is not valid: {what} is no object")
    return value


def _number(value: object, what: str, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise CacheError(f"cache index is not valid: {what} is {str(value)[:80]}")
    return value
