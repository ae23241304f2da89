"""What is kept beside a record so that a later miss can be explained: the instruction, its place, its inputs, files.

Written once, when a vertex ran; read by `reasons`. Values only. A note is not part of any key.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from builder.errors import BuildError
from builder.ops import definition
from builder.plan import ImageSourceOp, LocalSourceOp, Vertex
from builder.redact import redact
from builder.state import VertexState
from cache.errors import CacheError
from cache.keynotes import KeyNote

if TYPE_CHECKING:
    from builder.ops.select import Selection
    from builder.worker import Worker

DEFINITION = "definition"
CONTENT = "content"


def text_of(vertex: Vertex) -> str:
    """The instruction as it is written, on one line; of what belongs to none, its name in the progress."""
    return " ".join((vertex.text or redact(vertex.name)).split())


def note_of(
    state: VertexState, inputs: Sequence[VertexState | None], worker: Worker, kind: str = DEFINITION
) -> KeyNote:
    """The note of a vertex, of its definition key or its content key."""
    from cache.keys import key_of

    vertex = state.vertex
    content = state.content.manifest if state.content is not None else {}
    return KeyNote(
        key=state.key if kind == DEFINITION else key_of(content),
        kind=kind,
        project=worker.inputs.project,
        stage=vertex.stage,
        keyword=f"{text_of(vertex).partition(' ')[0].upper()} {type(vertex.op).__name__}",
        operation=definition.operation_key(vertex),
        parent=inputs[0].key if inputs and inputs[0] is not None else "",
        made_ns=worker.clock(),
        notes=json.dumps(_notes(vertex, inputs)).encode("ascii"),
    )


def take_notes(state: VertexState, inputs: Sequence[VertexState | None], worker: Worker) -> None:
    """Keep the notes of a vertex whose records were just written, and the lists of the files that it read."""
    local: dict[int, list[Selection]] = {}
    with contextlib.suppress(BuildError, CacheError):  # a file that has changed meanwhile is not for here to report
        local = definition.local_files(state.vertex, inputs, worker)
    worker.store.notes.put(note_of(state, inputs, worker), _lists(local))
    if state.content is not None:
        worker.store.notes.put(note_of(state, inputs, worker, CONTENT), _lists(state.content.files))


def _notes(vertex: Vertex, inputs: Sequence[VertexState | None]) -> dict[str, Any]:
    place = vertex.location
    return {
        "text": text_of(vertex),
        "file": place.file if place else "",
        "lines": [place.start_line, place.end_line] if place else [],
        "args": list(vertex.args),
        "inputs": [None if state is None else _input(state.vertex) for state in inputs],
    }


def _input(vertex: Vertex) -> dict[str, Any]:
    found: dict[str, Any] = {"text": text_of(vertex)}
    if isinstance(vertex.op, ImageSourceOp):
        found |= {"image": vertex.op.name, "digest": vertex.op.manifest_digest}
    elif isinstance(vertex.op, LocalSourceOp):
        found["context"] = vertex.op.name
    return found


def _lists(files: Mapping[int, Sequence[Selection]]) -> list[tuple[str, bytes]]:
    return [(each.digest, each.text()) for selections in files.values() for each in selections]
