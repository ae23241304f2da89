"""Which of some former records is the nearest to a key that was not found. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from builder.explain.difference import Difference, Told, compare
from cache.keynotes import FormerRecord, KeyNote

_COSTS = {"instruction": 3.0, "input": 1.5, "files": 0.5, "file": 0.5}
"""What a difference counts when the least different record is looked for; others count 1."""
_TOO_DIFFERENT = 0.5
"""How much of an instruction's text has to be alike for it to have been the same one once."""
_COMPARED = 2000


def told(note: KeyNote, manifest: bytes) -> Told:
    """A record as it can be compared."""
    return Told(json.loads(manifest), json.loads(note.notes))


def nearest(note: KeyNote, now: Told, former: Sequence[FormerRecord], used: Collection[str]) -> Told | None:
    """The former record that differs least, the newest of several, None when none is the same instruction once.

    `used` are the operations of this build: a record of another one that is still there was not this instruction.
    """
    best: tuple[float, int] | None = None
    found = None
    for record in former:
        is_same = record.note.operation == note.operation
        if not is_same and record.note.operation in used:
            continue
        candidate = told(record.note, record.manifest)
        cost = _cost(compare(candidate, now, _no_list))
        if cost is None:
            continue
        cost += 0 if record.note.project == note.project else 1.5
        cost += 0 if record.note.stage == note.stage else 0.5
        rank = cost, -record.note.made_ns
        if best is None or rank < best:
            best, found = rank, candidate
    return found


def _cost(differences: Sequence[Difference]) -> float | None:
    """How much the differences count, None when it is another instruction altogether."""
    total = 0.0
    for each in differences:
        total += _COSTS.get(each.kind, 1.0)
        if each.kind == "instruction":
            likeness = _likeness(each.was or "", each.now or "")
            if likeness < _TOO_DIFFERENT:
                return None
            total += 4 * (1 - likeness)
    return total


def _likeness(was: str, now: str) -> float:
    """How much of two instructions is alike, 0 to 1; nothing when they have different keywords."""
    from difflib import SequenceMatcher

    if was.partition(" ")[0].upper() != now.partition(" ")[0].upper():
        return 0.0
    matcher = SequenceMatcher(
        None, was.partition(" ")[2][:_COMPARED], now.partition(" ")[2][:_COMPARED], autojunk=False
    )
    return matcher.ratio() if matcher.quick_ratio() >= _TOO_DIFFERENT else 0.0


def _no_list(_digest: str) -> None:
    """Which files they are does not matter for the choice."""
