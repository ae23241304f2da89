"""A store as an older format left it, from text: the rows as SQL, the files as JSON."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import zlib
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"
FORMATS = sorted(int(path.name.partition("-")[2]) for path in GOLDEN.glob("store-*"))


def restore(version: int, root: Path) -> Path:
    """Make the golden store of a format at `root`; returns it."""
    source = GOLDEN / f"store-{version}"
    root.mkdir(0o700)
    entries = json.loads((source / "files.json").read_text())
    for entry in entries:
        path = root / entry["path"]
        if "text" in entry or "zlib" in entry:
            packed = entry.get("zlib")
            path.write_bytes(zlib.decompress(base64.b64decode(packed)) if packed else entry["text"].encode())
        else:
            path.mkdir()
    for entry in reversed(entries):
        path = root / entry["path"]
        path.chmod(int(entry["mode"], 8))
        os.utime(path, ns=(entry["mtime"], entry["mtime"]))
    connection = sqlite3.connect(root / "index.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.executescript((source / "index.sql").read_text())
    connection.close()
    return root
