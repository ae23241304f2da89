"""Which repositories of a registry have which blobs, as far as pulls and pushes have told: from there they are mounted.

A guess that is wrong costs a request. One row of the store's memo for each registry; it may be forgotten at any time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from builder.registry.endpoint import Endpoint
from cache.digest import Digest
from cache.store import Store

_BLOBS = 1000
_REPOSITORIES = 4


def neighbours(store: Store, endpoint: Endpoint) -> dict[str, list[str]]:
    """By digest, the repositories on the endpoint's registry that had a blob, the latest first."""
    raw = store.memo.get(_key(endpoint))
    found: dict[str, list[str]] = json.loads(raw) if raw is not None else {}
    return found


def remember(store: Store, endpoint: Endpoint, digests: Iterable[Digest]) -> None:
    """Note that the endpoint's repository has these blobs. Of two processes at once one may be forgotten."""
    known = neighbours(store, endpoint)
    before = dict(known)
    for digest in digests:
        others = [name for name in known.pop(digest, []) if name != endpoint.repository]
        known[digest] = [endpoint.repository, *others][:_REPOSITORIES]
    kept = dict(list(known.items())[-_BLOBS:])
    if kept != before:
        store.memo.put(_key(endpoint), json.dumps(kept).encode("ascii"))


def _key(endpoint: Endpoint) -> str:
    return f"blobs at {endpoint.domain}"
