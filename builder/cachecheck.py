"""Asking the cache to prove itself (--cache-check): some of what was found is made again and compared.

A step that makes something else each time is told from a record that is wrong: it is run once more, and what the two
runs made is compared. Times of files are no difference in content. What the runs made stays behind unreferenced.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import ceil

from builder.errors import BuildError
from builder.explain.difference import Difference
from builder.explain.notes import text_of
from builder.explain.words import place, sentences, shown
from builder.ops import definition
from builder.plan import ExecOp, FileOp, LocalSourceOp
from builder.solver import Solver
from builder.state import VertexState
from builder.treediff import tree_differences
from cache.namedtuple import NamedTuple
from cache.snapshots import Layer, Snapshot

SAME, TIMES, UNSTABLE, WRONG = "same", "times", "unstable", "wrong"
_SAID = {
    SAME: "the same again",
    TIMES: "the same again but for times of files",
    UNSTABLE: "not the same each time it runs",
    WRONG: "not what the cache has",
}


class Checked(NamedTuple):
    """What came of one step, and the files that differ from the record."""

    state: VertexState
    verdict: str
    differences: tuple[Difference, ...] = ()

    def text(self) -> str:
        """One line about it."""
        vertex, where = self.state.vertex, self.state.vertex.location
        label = shown(text_of(vertex)) + (place(where.file, (where.start_line, where.end_line)) if where else "")
        return "; ".join([f"cache check: {label}: {_SAID[self.verdict]}", *sentences(self.differences)])


RunAll = Callable[[list[VertexState], Callable[[VertexState], None]], None]


def check_cache(solver: Solver, percent: float, run_all: RunAll) -> list[Checked]:
    """Make again a random part of what was found, at least one step of it, and report each to the reporter.

    Raises BuildError when a step does not even run.
    """
    found = [state for state in solver.states if _can_run(solver, state)]
    count = ceil(len(found) * percent / 100)
    chosen = random.SystemRandom().sample(found, count)
    checked: list[Checked] = []

    def run_one(state: VertexState) -> None:
        with definition.located(state.vertex):
            solver.bring(state)
            if _is_found(state):  # else it could not be had, and was made just now
                checked.append(_check(solver, state))

    if chosen:
        run_all(sorted(chosen, key=lambda state: state.index), run_one)
    checked.sort(key=lambda each: each.state.index)
    for each in checked:
        solver.worker.reporter.message(each.text())
    return checked


def require_same(checked: Sequence[Checked]) -> None:
    """Raise BuildError if something that was made again has another content than its record says."""
    wrong = [each for each in checked if each.verdict in (WRONG, UNSTABLE)]
    if not wrong:
        return
    hint = "--no-cache makes records anew; --cache-check=…,warn only reports"
    if all(each.verdict == UNSTABLE for each in wrong):
        hint = "steps that are not the same each time cannot be checked; --cache-check=…,warn only reports"
    raise BuildError(
        f"cache check: {len(wrong)} of {len(checked)} steps that were run again made something else",
        hint=hint,
        location=wrong[0].state.vertex.location,
    )


def _can_run(solver: Solver, state: VertexState) -> bool:
    """Whether a vertex was found, can be made again, and has its inputs here."""
    if not _is_found(state) or not isinstance(state.vertex.op, ExecOp | FileOp):
        return False
    inputs = solver.inputs(state)
    return all(each is None or each.result is not None or isinstance(each.vertex.op, LocalSourceOp) for each in inputs)


def _is_found(state: VertexState) -> bool:
    return state.outcome in ("hit", "content")


def _check(solver: Solver, state: VertexState) -> Checked:
    assert state.result is not None, "only what was found is checked"
    recorded, made = state.result.layers[-1], _make(solver, state)
    verdict, differences = _compare(solver, recorded, made)
    if verdict == WRONG and _compare(solver, made, _make(solver, state))[0] == WRONG:
        verdict = UNSTABLE
    return Checked(state, verdict, tuple(differences))


def _make(solver: Solver, state: VertexState) -> Layer:
    return solver.execute(state).layers[-1]


def _compare(solver: Solver, recorded: Layer, made: Layer) -> tuple[str, list[Difference]]:
    """Whether two layers are the same, and the files that are not."""
    if recorded.diff_id == made.diff_id:
        return SAME, []
    snapshots = solver.worker.store.snapshots
    was, now = (snapshots.lower_dirs(Snapshot("", (layer,)))[0] for layer in (recorded, made))
    changes, only_times = tree_differences(was, now)
    if only_times or (not changes and recorded.content_digest == made.content_digest):
        return TIMES, []
    return WRONG, [Difference("file", change.path, None, None, change.what) for change in changes]
