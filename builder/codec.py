"""A Plan as bytes and back, for the plan memo.

The form is JSON: a NamedTuple is {"": class name, "v": fields}, a tuple a list. VERSION changes with any change of the
Plan's types, so that an old memo is a miss and never misread.
"""

from __future__ import annotations

import json
from typing import Any

from builder import plan
from builder.errors import Location

VERSION = 7

_TYPES: dict[str, Any] = {
    cls.__name__: cls
    for cls in (
        Location,
        plan.ImageSourceOp,
        plan.LocalSourceOp,
        plan.HttpSourceOp,
        plan.GitSourceOp,
        plan.MountOp,
        plan.ExecOp,
        plan.MkdirAction,
        plan.MkfileAction,
        plan.CopyAction,
        plan.FileOp,
        plan.MergeOp,
        plan.Vertex,
        plan.HistoryEntry,
        plan.PlannedImage,
        plan.PlanWarning,
        plan.Plan,
    )
}


def encode(value: plan.Plan) -> Any:
    """The plan as plain JSON values."""
    return _encode(value)


def decode(document: Any) -> plan.Plan:
    """The plan that `encode` wrote."""
    value = _decode(document)
    assert isinstance(value, plan.Plan)
    return value


def dumps(document: Any) -> bytes:
    """Compact JSON; odd bytes stay escaped surrogates."""
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def _encode(value: Any) -> Any:
    if isinstance(value, tuple):
        fields = [_encode(item) for item in value]
        return {"": type(value).__name__, "v": fields} if type(value) is not tuple else fields
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple([_decode(item) for item in value])
    if isinstance(value, dict) and "" in value:
        return _TYPES[value[""]](*[_decode(item) for item in value["v"]])
    return value
