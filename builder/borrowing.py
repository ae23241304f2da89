"""Results from caches elsewhere in one build: which vertices take them, when their layers are fetched, and what is done
when that fails.

A borrowed result is a promise (`cachestore.imports`, lazy layers) until somebody needs its files: then it is made
whole, or, if it cannot be, the vertex runs after all. Nothing is written down of a promise. Own records come first,
always.

What came from a cache that is not trusted belongs to the imports' domain, and so does all that is built on it: its
records are kept under the domain's keys, its cache mounts are the domain's, and nothing of it is exported. A step that
gets a secret, an ssh agent or rights beyond the sandbox's never starts on such a root: what it needs is built here.
Knows the solver's states, no place and no format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from builder.cachestore.imports import Claim, by_content, is_whole, lazily_on, lazy_root
from builder.errors import BuildError
from builder.plan import SCRATCH, ExecOp, FileOp, ImageSourceOp, LocalSourceOp, MergeOp
from builder.state import VertexState
from cache.errors import CacheError
from cache.keys import key_of, readable
from cache.records import CacheRecord
from cache.snapshots import EMPTY, Layer, Snapshot

if TYPE_CHECKING:
    from builder.worker import Worker

Inputs = Callable[[VertexState], "list[VertexState | None]"]


class Borrowing:
    """See the module. `run` brings one vertex to its result, `note` keeps what explains its record; `inputs` gives the
    states of a vertex's inputs. With `is_asked_only` nothing is written down: nobody will build."""

    def __init__(
        self,
        states: Sequence[VertexState],
        worker: Worker,
        *,
        inputs: Inputs,
        run: Callable[[VertexState], None],
        note: Callable[[VertexState], None],
        is_asked_only: bool = False,
    ) -> None:
        assert worker.imports is not None
        self._states = states
        self._worker = worker
        self._imports = worker.imports
        self._inputs = inputs
        self._run = run
        self._note = note
        self._is_asked_only = is_asked_only
        self._own_only = self._near_secrets()

    # Before anything runs

    def look_up(self) -> None:
        """Give every vertex without a result what the caches say of its definition key."""
        records = self._domain_records()
        for state in self._states:
            if isinstance(state.vertex.op, ImageSourceOp) and state.result is None:
                state.result, state.cached = lazy_root(state.vertex.op.chain_id), True
            if state.result is not None or state.tainted or _is_source(state):
                continue
            if isinstance(state.vertex.op, MergeOp):
                self._merge(state)
            elif not self._take_domain_record(state, records.get(state.key), "hit"):
                self._claim(state, (state.key,))
        self._fetch_bases()

    def _fetch_bases(self) -> None:
        """Let the schedule fetch those base images that a step starts on which nothing is known of."""
        for state in self._states:
            for item in self._inputs(state) if state.result is None else ():
                if (
                    item is not None
                    and isinstance(item.vertex.op, ImageSourceOp)
                    and not is_whole(item.result or EMPTY)
                ):
                    item.result, item.cached = None, False

    def _near_secrets(self) -> set[int]:
        """The vertices whose files a step may run that has a secret, an agent, or rights beyond the sandbox's."""
        found: set[int] = set()
        pending = [
            source
            for state in self._states
            if isinstance(state.vertex.op, ExecOp) and _is_delicate(state.vertex.op)
            for source in state.vertex.inputs
        ]
        while pending:
            index = pending.pop()
            if index != SCRATCH and index not in found:
                found.add(index)
                pending += self._states[index].vertex.inputs
        return found

    def _domain_records(self) -> dict[str, CacheRecord]:
        if not self._imports.domain:
            return {}
        keys = {domain_key(self._imports.domain, state.key): state.key for state in self._states if state.key}
        found = self._worker.store.records.get_many(keys)
        return {keys[key]: record for key, record in found.items()}

    def _take_domain_record(self, state: VertexState, record: CacheRecord | None, outcome: str) -> bool:
        if record is None or state.index in self._own_only:
            return False
        found = self._worker.store.snapshots.get(record.chain_id) if record.chain_id else EMPTY
        inputs = self._inputs(state)
        base = inputs[0].result if inputs and inputs[0] is not None else EMPTY
        if found is None or base is None:
            return False
        if found.layers and not isinstance(state.vertex.op, MergeOp):
            found = self.stack(base, found.layers[-1])
        self._settle(state, found, record.created_ns, self._imports.domain, outcome=outcome)
        return True

    def _merge(self, state: VertexState) -> None:
        """COPY --link of what was borrowed: layers are put on each other without being there."""
        base, top = (EMPTY if item is None else item.result for item in self._inputs(state))
        if base is None or top is None or (is_whole(base) and is_whole(top)):
            return
        for layer in top.layers:
            base = lazily_on(base, layer)
        domain, created_ns = self._domain_of(state), 0
        for claim in self._imports.claims(state.key):
            if domain or claim.cache.spec.trust == "full":
                created_ns = created_ns or claim.record.created_ns
        above = [item.created_ns for item in self._inputs(state) if item is not None]
        self._settle(state, base, created_ns or max(above, default=0), domain)

    def _claim(self, state: VertexState, keys: Iterable[str]) -> bool:
        """Take the first claim for one of the keys that may be taken."""
        inputs = self._inputs(state)
        base = inputs[0].result if inputs and inputs[0] is not None else EMPTY
        if base is None:
            return False
        for key, claim in ((each, claim) for each in keys for claim in self._imports.claims(each)):
            is_trusted = claim.cache.spec.trust == "full"
            if claim.cache.spec.trust == "verify" and self._is_to_verify(state, claim):
                state.claim = claim
                state.not_taken = f"{claim.cache.name} has it, and is to be verified"
                return False
            if not is_trusted and state.index in self._own_only:
                state.not_taken = (
                    f"{claim.cache.name} has it, but is not trusted, and it is for a step with more rights"
                )
                continue
            if claim.layer is None and base.layers:
                continue  # nothing that runs makes what is below it vanish
            domain = self._domain_of(state) or ("" if is_trusted else self._imports.domain)
            state.claim = claim
            result = self._imports.put_on(base, claim, adopting=not self._is_asked_only)
            outcome = "hit" if key == state.key else "content"
            self._settle(state, result, claim.record.created_ns, domain, outcome=outcome)
            return True
        return False

    def _is_to_verify(self, state: VertexState, claim: Claim) -> bool:
        return state.claim == claim or self._imports.is_sampled(claim)

    def _domain_of(self, state: VertexState) -> str:
        return next((item.domain for item in self._inputs(state) if item is not None and item.domain), "")

    def _settle(
        self, state: VertexState, result: Snapshot, created_ns: int, domain: str, *, outcome: str = "hit"
    ) -> None:
        state.created_ns, state.domain, state.cached, state.outcome = created_ns, domain, True, outcome
        state.result = result
        if is_whole(result) and not self._is_asked_only:
            self._write_down(state)

    # While it runs

    def run_once(self, state: VertexState) -> None:
        """Run a vertex, unless another one that needed it has had it run meanwhile."""
        with state.lock:
            if not state.is_done:
                self._run(state)
                state.is_done = True

    def prepare(self, state: VertexState) -> None:
        """Before a vertex's content key is made: its inputs have results, and roots whose files it names are whole."""
        for item in self._inputs(state):
            self._need(item)
        state.domain = self._domain_of(state)
        state.tainted = state.tainted or any(item is not None and item.tainted for item in self._inputs(state))
        if isinstance(state.vertex.op, FileOp):
            for item in self._inputs(state)[1:]:
                self.bring(item)

    def take(self, state: VertexState, keys: Iterable[str]) -> bool:
        """Borrow the result of a vertex for one of these keys, now that its inputs are there."""
        if isinstance(state.vertex.op, MergeOp):
            return False
        domain = self._imports.domain
        if domain and state.index not in self._own_only:
            for key in keys:
                record = self._worker.store.records.get(domain_key(domain, key))
                if self._take_domain_record(state, record, "hit" if key == state.key else "content"):
                    return True
        return self._claim(state, keys)

    def bring_inputs(self, state: VertexState) -> None:
        """Make the roots of all inputs whole. What a vertex knew of their content before may be wrong now."""
        for item in self._inputs(state):
            self.bring(item)

    def bring(self, state: VertexState | None) -> None:
        """Make a vertex's root whole, and those below it; what cannot be had is built. BuildError when that fails."""
        if state is None or isinstance(state.vertex.op, LocalSourceOp):
            return
        self._need(state)
        lazy = self._lazy_below(state)
        if not lazy:
            return
        self._imports.prefetch(layer for item in lazy if item.result is not None for layer in item.result.layers[-1:])
        for item in lazy:
            with item.lock:
                if item.result is not None and not is_whole(item.result):
                    self._make_whole(item)

    def _lazy_below(self, state: VertexState) -> list[VertexState]:
        """The vertices whose roots are not whole among this one and those that it stands on, each after its inputs."""
        found: dict[int, VertexState] = {}
        pending = [state]
        while pending:
            item = pending.pop()
            if item.index in found or item.result is None or is_whole(item.result):
                continue
            found[item.index] = item
            pending += [each for each in self._below(item) if each is not None]
        return [found[index] for index in sorted(found)]

    def _below(self, state: VertexState) -> list[VertexState | None]:
        inputs = self._inputs(state)
        return inputs if isinstance(state.vertex.op, MergeOp) else inputs[:1]

    def _make_whole(self, state: VertexState) -> None:
        """Fetch one vertex's own layer and put it on what is below, which is whole."""
        if isinstance(state.vertex.op, ImageSourceOp):
            return self._run(state)
        below = self._below(state)
        for item in below:
            self._need(item)
        base, *others = [EMPTY if item is None else item.result for item in below] or [EMPTY]
        assert state.result is not None and base is not None, f"{state.vertex.name} was promised on something"
        try:
            if not state.tainted and any(item is not None and item.tainted for item in self._inputs(state)):
                raise CacheError("what it stands on had to be built, and differs")
            if isinstance(state.vertex.op, MergeOp):
                assert others and others[0] is not None
                layers = others[0].layers
            else:
                layers = state.result.layers[-1:]
            for layer in layers:
                base = self._imports.put(base, layer)
        except (BuildError, CacheError) as error:
            self._build_instead(state, error)
        else:
            state.result = base
            self._write_down(state)
        return None

    def _build_instead(self, state: VertexState, error: Exception) -> None:
        """Run a vertex whose borrowed result cannot be had. If it holds something else then, the definition keys of
        what is built on it say nothing any more."""
        assert state.result is not None
        name, said = state.vertex.name, state.result.content_digest
        self._worker.reporter.message(f"{name}: the cached result is not used, building it: {error}")
        state.not_taken = "what a cache elsewhere has could not be used"
        if state.claim is not None:
            state.not_taken = f"what {state.claim.cache.name} has could not be used"
        state.cached, state.claim = False, None
        self._run(state)
        state.tainted = state.tainted or state.result.content_digest != said
        if not is_whole(state.result):  # found again by its content, in another cache
            self._make_whole(state)

    def _need(self, state: VertexState | None) -> None:
        """Have a result, lazy or not, of a vertex that nobody needed until now."""
        if state is not None and state.result is None and not isinstance(state.vertex.op, LocalSourceOp):
            self.run_once(state)

    def compare(self, state: VertexState) -> None:
        """After a vertex has run: does it hold what the cache to be verified says? If not, the cache is out."""
        claim = state.claim
        if claim is None or claim.cache.spec.trust != "verify" or state.result is None:
            return
        own = state.result.layers[-1].content_digest if state.result.layers else ""
        said = claim.layer.content_digest if claim.layer is not None else ""
        if own != said:
            claim.cache.is_revoked = True
            self._worker.reporter.message(
                f"{state.vertex.name}: the result differs from what {claim.cache.name} says: the step is not "
                "reproducible, or the cache is forged; nothing more is taken from it"
            )

    # Records

    def stack(self, base: Snapshot, layer: Layer) -> Snapshot:
        """A layer of the store on a root that may not be whole."""
        if self._is_asked_only or not is_whole(base):
            return lazily_on(base, layer)
        return self._worker.store.snapshots.stack(base, layer)

    def may_keep(self, state: VertexState, result: Snapshot) -> bool:
        """Whether an own record may say that a vertex has this result: it is whole, and all below it is one's own.

        What is whole only later is written down then.
        """
        return is_whole(result) and not state.domain

    def records(self, state: VertexState, records: Sequence[CacheRecord]) -> list[CacheRecord]:
        """The records of a vertex that ran, as they are to be kept: those of a domain under its keys."""
        return [in_domain(state.domain, record) if state.domain else record for record in records]

    def _write_down(self, state: VertexState) -> None:
        """Keep the record of a borrowed result that is whole now. What is in its place leads nowhere, or it would have
        been taken."""
        assert state.result is not None
        store, chain = self._worker.store, state.result.chain_id
        shown = {state.key: readable(state.manifest)}
        seconds = 0.0
        if state.claim is not None:
            seconds = state.claim.record.seconds
            for key, manifest in by_content(state.claim.record.manifests, state.manifest).items():
                shown.setdefault(key, readable(manifest))
        for key, text in shown.items():
            record = CacheRecord(key, chain, text, state.created_ns, seconds)
            record = in_domain(state.domain, record) if state.domain else record
            store.records.put(record, replace=key == state.key)
        if not state.domain:
            self._note(state)


def domain_key(domain: str, key: str) -> str:
    """The key under which a domain keeps what it knows of another key."""
    return key_of({"domain": domain, "key": key})


def in_domain(domain: str, record: CacheRecord) -> CacheRecord:
    """A record as the domain keeps it: no build without the domain asks for it."""
    manifest = readable({"domain": domain, "key": record.key})
    return record._replace(key=domain_key(domain, record.key), manifest=manifest)


def _is_delicate(op: ExecOp) -> bool:
    return (
        op.security == "insecure" or op.network == "host" or any(mount.kind in ("secret", "ssh") for mount in op.mounts)
    )


def _is_source(state: VertexState) -> bool:
    return isinstance(state.vertex.op, ImageSourceOp | LocalSourceOp)
