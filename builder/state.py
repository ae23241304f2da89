"""What is known of a vertex while its plan is carried out: its key, the record found for it, its result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builder.plan import Vertex
from cache.mutex import RLock
from cache.records import CacheRecord
from cache.snapshots import Snapshot

if TYPE_CHECKING:
    from builder.cachestore.imports import Claim
    from builder.ops.definition import Described


class VertexState:
    """What is known of one vertex during a build. `result` is set once it is done."""

    def __init__(self, index: int, vertex: Vertex) -> None:
        self.index = index
        self.vertex = vertex
        self.key = ""
        self.manifest: dict[str, Any] = {}
        self.record: CacheRecord | None = None
        self.result: Snapshot | None = None
        self.cached = False
        self.created_ns = 0
        self.outcome = ""
        """How it got its result: `hit` by its definition, `content` by what its inputs hold, `ran`; "" for neither."""
        self.content: Described | None = None
        """Its content key's manifest, once its inputs had their results."""
        self.tainted = False
        """Whether it or an input ran in spite of a record: the definition key says nothing then."""
        self.domain = ""
        """The trust domain that the result belongs to, "" for one's own."""
        self.claim: Claim | None = None
        """What a cache elsewhere says of the result."""
        self.not_taken = ""
        """Why a result that a cache elsewhere has was not taken, in words."""
        self.is_done = False
        """Whether it ran, or was found, when its turn came."""
        self.lock = RLock()
        """Held by whoever makes the result or makes it whole; taken downwards, from a vertex to its inputs."""
