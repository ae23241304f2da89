"""Why vertices were found or not: the solver's states in, one Explanation for each out.

Asks the store for former records only for what was not found. Runs nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from builder.explain.difference import Difference, Told, compare
from builder.explain.files import FileList
from builder.explain.nearest import nearest, told
from builder.explain.notes import CONTENT, DEFINITION, note_of, text_of
from builder.explain.travelling import FormerElsewhere
from builder.explain.words import place, sentences, shown
from builder.ops import definition
from builder.plan import LocalSourceOp, MergeOp
from builder.solver import Solver
from builder.state import VertexState
from cache.errors import CacheError
from cache.keynotes import FormerRecord
from cache.keys import readable
from cache.namedtuple import NamedTuple

HIT, MISS, BELOW = "hit", "miss", "below"


class Explanation(NamedTuple):
    """One instruction. `status` is hit, miss, or below: it had or would have to run because of an input."""

    vertex: int
    text: str
    file: str
    lines: tuple[int, ...]
    stage: str
    status: str
    differences: tuple[Difference, ...] = ()
    note: str = ""
    """What is to be said besides: how it was found, or why there is no more to say."""
    input: str = ""
    """The input because of which it runs."""

    @property
    def label(self) -> str:
        """The instruction and its place, as `RUN make (Dockerfile:7)`."""
        return shown(self.text) + place(self.file, self.lines)

    def reasons(self, *, most: int = 5) -> list[str]:
        """What is said of it, in words."""
        found = [f"its input {self.input} {'runs' if self.note == 'ran' else 'would run'}"] if self.input else []
        found += sentences(self.differences, most=most)
        return found or ([self.note] if self.note and self.note != "ran" else [])

    def document(self) -> dict[str, Any]:
        """The explanation as plain values, for JSON."""
        return {
            "vertex": self.vertex,
            "instruction": self.text,
            "file": self.file or None,
            "lines": list(self.lines) or None,
            "stage": self.stage,
            "status": self.status,
            "note": self.note or None,
            "input": self.input or None,
            "differences": [each._asdict() | {"details": list(each.details)} for each in self.differences],
        }


class Reasons:
    """Explains the vertices of one solver, after its build or, with outcomes that `predict` made, without one."""

    def __init__(self, solver: Solver) -> None:
        self._solver = solver
        self._notes = solver.worker.store.notes
        self._elsewhere: FormerElsewhere | None = None
        self._used = {definition.operation_key(state.vertex) for state in solver.states}
        self._found: dict[int, Explanation] = {}

    def all(self) -> list[Explanation]:
        """Every vertex that a user knows of, in order. What only helps an instruction speaks through that one."""
        return [self.of(state) for state in self._solver.states if _is_shown(state) and (state.outcome or state.cached)]

    def first_miss(self) -> Explanation | None:
        """The first vertex that ran though nothing before it did, None when nothing ran."""
        return next((self.of(state) for state in self._solver.states if self._is_root(state)), None)

    def of(self, state: VertexState) -> Explanation:
        """The explanation of one vertex."""
        if state.index not in self._found:
            self._found[state.index] = self._explain(state)
        return self._found[state.index]

    def _is_root(self, state: VertexState) -> bool:
        return state.outcome == "ran" and not any(each.outcome == "ran" for each in self._inputs(state))

    def _inputs(self, state: VertexState) -> Iterator[VertexState]:
        return (each for each in self._solver.inputs(state) if each is not None)

    def _explain(self, state: VertexState) -> Explanation:
        vertex, where = state.vertex, state.vertex.location
        found = Explanation(
            state.index,
            text_of(vertex),
            where.file if where else "",
            (where.start_line, where.end_line) if where else (),
            vertex.stage,
            HIT,
        )
        if state.outcome not in ("ran", "would run"):
            return found._replace(note=_how(state))
        return self._missed(state, found)

    def _missed(self, state: VertexState, found: Explanation) -> Explanation:
        if state.vertex.no_cache:
            return found._replace(status=MISS, note="--no-cache")
        ran = self._ran_before(state)
        if ran is not None and _helps(ran, state):
            return self.of(ran)._replace(vertex=state.index, text=found.text, stage=found.stage)
        lost = "its layer is not in the store any more" if state.record is not None and not state.tainted else ""
        if lost or state.not_taken:
            return found._replace(status=MISS, note=lost or state.not_taken)
        if ran is not None:
            own = tuple(each for each in self._compared(state, DEFINITION)[1] if each.kind not in ("input", "base"))
            return found._replace(status=BELOW, differences=own, note=_tense(state), input=self.of(ran).label)
        differences = self._differences(state)
        if differences is None:
            return found._replace(status=MISS, note="no former record")
        return found._replace(status=MISS, differences=differences)

    def _ran_before(self, state: VertexState) -> VertexState | None:
        """The input because of which a vertex runs; of layers put on another root, the one that came out of a run."""
        ran = next((each for each in self._inputs(state) if each.outcome == state.outcome), None)
        deeper = self._ran_before(ran) if ran is not None and isinstance(ran.vertex.op, MergeOp) else None
        return deeper or ran

    def _differences(self, state: VertexState) -> tuple[Difference, ...] | None:
        """What differs from the nearest former record; None when there is none. Of a copy from another root, the files
        that differ in it."""
        former, found = self._compared(state, DEFINITION)
        if former is None:
            return None
        if state.content is not None and all(each.kind == "input" for each in found) and state.content.files:
            found = self._compared(state, CONTENT)[1] or found
        if all(each.kind == "input" and each.was == each.now for each in found):
            found = self._above(state, former) or found
        return tuple(each for each in found if each.kind != "input" or each.was != each.now) or tuple(found)

    def _above(self, state: VertexState, former: Told) -> list[Difference]:
        """What differs in the nearest input that is not what it was, where all that is known of a vertex is that: the
        input was built otherwise meanwhile, without this vertex."""
        for _ in self._solver.states:
            position = _changed_input(former, state)
            above = self._solver.inputs(state)[position] if position is not None else None
            if position is None or above is None:
                break
            record = self._record(former.manifest["inputs"][position]["key"])
            if record is None:
                break
            own = note_of(above, self._solver.inputs(above), self._solver.worker)
            former, state = told(record.note, record.manifest), above
            found = compare(former, told(own, readable(state.manifest)), self._list_of(state))
            if any(each.kind != "input" or each.was != each.now for each in found):
                return found
        return []

    def _record(self, key: str) -> FormerRecord | None:
        store = self._solver.worker.store
        record, note = store.records.get(key), store.notes.get((key,)).get(key)
        if record is None or note is None:
            return self._caches().get(key)
        return FormerRecord(note, record.chain_id, record.manifest)

    def _caches(self) -> FormerElsewhere:
        """The records of the caches that this build may take from."""
        if self._elsewhere is None:
            imports = self._solver.worker.imports
            self._elsewhere = FormerElsewhere(imports.caches if imports is not None else ())
        return self._elsewhere

    def _compared(self, state: VertexState, kind: str) -> tuple[Told | None, list[Difference]]:
        note = note_of(state, self._solver.inputs(state), self._solver.worker, kind)
        note = note._replace(made_ns=self._solver.began_ns)
        manifest = state.manifest if kind == DEFINITION or state.content is None else state.content.manifest
        now = told(note, readable(manifest))
        known = [*self._notes.former(note), *self._caches().former(note)]
        former = nearest(note, now, known, self._used)
        return former, [] if former is None else compare(former, now, self._list_of(state))

    def _list_of(self, state: VertexState) -> _Lists:
        return _Lists(self._solver, state)


class _Lists:
    """File lists by digest: those of the vertex itself, which may not be in the store, and those that are."""

    def __init__(self, solver: Solver, state: VertexState) -> None:
        self._solver = solver
        self._state = state
        self._own: dict[str, FileList] | None = None

    def __call__(self, digest: str) -> FileList | None:
        from builder.ops.select import files_of

        if self._own is None:
            self._own = self._of_vertex()
        if digest in self._own:
            return self._own[digest]
        text = None
        with contextlib.suppress(CacheError):
            text = self._solver.worker.store.notes.file_list(digest)
        if text is None and self._solver.worker.imports is not None:
            from builder.cachestore.filelists import read_list

            text = read_list(self._solver.worker.imports, digest)
        return None if text is None else FileList(files_of(text))

    def _of_vertex(self) -> dict[str, FileList]:
        state = self._state
        local = definition.local_files(state.vertex, self._solver.inputs(state), self._solver.worker)
        others = {} if state.content is None else state.content.files
        every = [each for files in (local, others) for found in files.values() for each in found]
        return {each.digest: FileList(each.files, each.sources) for each in every}


def _changed_input(former: Told, state: VertexState) -> int | None:
    """The first input that has another key than it had."""
    pairs = zip(former.manifest["inputs"], state.manifest["inputs"], strict=False)
    keys = ((was.get("key"), now.get("key")) for was, now in pairs)
    return next((number for number, (was, now) in enumerate(keys) if was != now and was and now), None)


def _is_shown(state: VertexState) -> bool:
    op = state.vertex.op
    return not state.vertex.internal and not isinstance(op, LocalSourceOp)


def _helps(ran: VertexState, state: VertexState) -> bool:
    """Whether an input is only there for this instruction: a heredoc, a mounted part of the context, a linked layer."""
    same_place = ran.vertex.location is not None and ran.vertex.location == state.vertex.location
    return same_place and (ran.vertex.internal or isinstance(state.vertex.op, MergeOp))


def _how(state: VertexState) -> str:
    """How a vertex was found, where that is not by its definition in the store."""
    found = ["its inputs came out the same"] if state.outcome == "content" else []
    found += [f"from {state.claim.cache.name}"] if state.claim is not None else []
    return ", ".join(found)


def _tense(state: VertexState) -> str:
    return "ran" if state.outcome == "ran" else ""


def lines(explanations: Sequence[Explanation]) -> list[str]:
    """The explanations as text, one line each and more where much differs."""
    found = []
    for each in explanations:
        reasons = each.reasons(most=10)
        status = {BELOW: "runs" if each.note == "ran" else "would run"}.get(each.status, each.status)
        if len(reasons) > 1:
            found += [f"{status}: {each.label}:", *(f"    {reason}" for reason in reasons)]
        else:
            found.append(f"{status}: {each.label}{f': {reasons[0]}' if reasons else ''}")
    return found
