"""Telling what was explained: after a build the first miss in one line, or everything."""

from __future__ import annotations

from typing import TextIO

from builder.explain.reasons import Reasons, lines
from builder.solver import Solver


def report_first(solver: Solver) -> None:
    """One line for the first vertex that ran: which, and what differs from the nearest former record."""
    first = Reasons(solver).first_miss()
    if first is not None:
        said = "; ".join(first.reasons(most=3))
        solver.worker.reporter.explained("miss", f"first miss: {first.label}: {said}", first.document())


def report_all(solver: Solver, stream: TextIO | None) -> None:
    """Every instruction on `stream`, or without one as events of the progress."""
    found = Reasons(solver).all()
    if stream is not None:
        solver.worker.reporter.close()
        stream.write("".join(f"{line}\n" for line in lines(found)))
        return
    for each in found:
        solver.worker.reporter.explained("explanation", "\n".join(lines([each])), each.document())
