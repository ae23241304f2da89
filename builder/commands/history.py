"""show how an image of the local store came to be, the newest step first"""

from __future__ import annotations

import argparse
import json
from typing import Any

from builder.commands import Environment
from builder.image.describe import history_rows, human_age, human_size, short_id, table
from builder.image.stored import require_image
from builder.streams import visible

_MAX_WIDTH = 45


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `pybuild history`."""
    parser.add_argument("image", metavar="IMAGE", help="a name, a digest, or the start of an id")
    parser.add_argument("--platform", default="", metavar="OS/ARCH", help="of an image for several, the one for this")
    parser.add_argument("--no-trunc", action="store_true", help="show whole ids and instructions")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="json: one object per line")


def run(args: argparse.Namespace, env: Environment) -> int:
    """Print a line for each step."""
    with env.open_store() as store:
        rows = history_rows(store, require_image(store, args.image, args.platform))
    if args.format == "json":
        env.stdout.write("".join(json.dumps(_document(row, env.clock()), ensure_ascii=False) + "\n" for row in rows))
    else:
        lines = [_line(row, env.clock(), whole=args.no_trunc) for row in rows]
        env.stdout.write(table(["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"], lines))
    return 0


def _document(row: dict[str, Any], now_ns: int) -> dict[str, Any]:
    return {
        "ID": row["id"],
        "CreatedAt": row["created"],
        "CreatedSince": human_age(row["created"], now_ns),
        "CreatedBy": row["created_by"],
        "Size": row["size"],
        "Comment": row["comment"],
    }


def _line(row: dict[str, Any], now_ns: int, *, whole: bool) -> list[str]:
    created_by = visible(" ".join(row["created_by"].split()))
    if not whole and len(created_by) > _MAX_WIDTH:
        created_by = created_by[: _MAX_WIDTH - 1] + "…"
    image_id = row["id"] if whole or not row["id"].startswith("sha256:") else short_id(row["id"])
    return [image_id, human_age(row["created"], now_ns), created_by, human_size(row["size"]), visible(row["comment"])]
