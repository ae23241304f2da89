"""What a build takes from caches elsewhere: how long it is patient with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builder.cachestore import imports
from builder.cachestore.imports import Cache, Imports, is_whole
from builder.cachestore.options import parse_cache
from builder.cachestore.place import Found
from builder.errors import BuildError
from cache.blobs import Readable
from cache.descriptor import MEDIA_LAYER_GZIP, Descriptor
from cache.digest import Digest, sha256_bytes
from cache.exchange import TravellingLayer, TravellingRecord, make_index
from cache.keys import key_of
from cache.snapshots import EMPTY
from cache.store import Store

KEYS = [{"op": "exec", "number": number} for number in range(8)]


class Broken:
    """A place that fails for every blob."""

    repository = ""

    def __init__(self) -> None:
        self.asked = 0

    def read(self) -> Found | None:
        return None

    @contextmanager
    def open(self, blob: Descriptor) -> Iterator[Readable]:
        self.asked += 1
        raise BuildError(f"{blob.digest} cannot be had")
        yield

    def note(self, store: Store, blobs: Iterable[Digest]) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize(("patience", "asked"), [(60.0, 8), (0.0, 0), (1e-9, 1)])
def test_a_place_that_only_costs_time_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float, asked: int
) -> None:
    monkeypatch.setattr(imports, "PATIENCE", patience)
    layers = [
        TravellingLayer(
            sha256_bytes(b"%d" % n), Descriptor(MEDIA_LAYER_GZIP, sha256_bytes(b"b%d" % n), 9), "0" * 32, 99
        )
        for n in range(len(KEYS))
    ]
    records = [
        TravellingRecord({key_of(key): key}, layer.diff_id, 1, 0.0) for key, layer in zip(KEYS, layers, strict=True)
    ]
    place, said = Broken(), list[str]()
    cache = Cache(parse_cache("type=local,src=x", "from"), place, make_index(layers, records))
    with Store.open(str(tmp_path)) as store:
        found = Imports(store, [cache], said.append, lambda: 0.0)
        for key in KEYS:
            for claim in found.claims(key_of(key)):
                lazy = found.put_on(EMPTY, claim)
                assert not is_whole(lazy)
                with pytest.raises(BuildError):
                    found.put(EMPTY, lazy.layers[-1])
    assert place.asked == asked
    assert any("not asked any more" in text for text in said) == (asked == 1)
