"""`pybuild build` inside the test's own process, for tests that build hundreds of times."""

from __future__ import annotations

import argparse
import io
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from builder.commands import Environment, build


class Built(NamedTuple):
    """What a build printed: the image id, and every event of its progress."""

    image_id: str
    events: list[dict[str, Any]]

    @property
    def ran(self) -> list[str]:
        """The names of the vertices that ran instead of being found, internal ones too."""
        names = {event["vertex"]: event["name"] for event in self.events if event["event"] == "started"}
        done = [event for event in self.events if event["event"] == "done"]
        return [names[event["vertex"]] for event in done if not event["cached"]]


class Builder:
    """Builds on the store `root`. Raises what the command raises."""

    def __init__(self, root: Path, cwd: Path) -> None:
        self.root = root
        self.cwd = cwd

    def __call__(self, *words: str, **environ: str) -> Built:
        out, err = io.StringIO(), io.StringIO()
        env = Environment(out, io.BytesIO(), err, environ, os.fspath(self.cwd), os.fspath(self.root), time.time_ns)
        parser = argparse.ArgumentParser(allow_abbrev=False)
        build.add_arguments(parser)
        build.run(parser.parse_args(["--progress", "json", *words]), env)
        return Built(out.getvalue().strip(), [json.loads(line) for line in err.getvalue().splitlines()])


def image_config(layout: Path) -> dict[str, Any]:
    """The config of the only image of a layout."""

    def document(descriptor: dict[str, Any]) -> dict[str, Any]:
        path = layout / "blobs" / descriptor["digest"].replace(":", "/")
        return dict(json.loads(path.read_text()))

    manifest = document(json.loads((layout / "index.json").read_text())["manifests"][0])
    return document(manifest["config"])
