"""Where the shared conformance cases lie, when they are there at all."""

from __future__ import annotations

import os
from pathlib import Path


def shared_dir() -> Path | None:
    """The folder with `conformance/`: $PYBUILD_SHARED, else `shared` beside the checkout, else None."""
    named = os.environ.get("PYBUILD_SHARED")
    path = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    return path if (path / "conformance").is_dir() else None
