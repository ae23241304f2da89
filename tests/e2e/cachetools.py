"""Caches of tests: read, and rewritten the way that somebody who wants to do harm would."""

from __future__ import annotations

import gzip
import io
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cache import tarwriter
from cache.digest import sha256_bytes
from cache.tarcontent import content_digest
from cache.tarwriter import TarEntry
from tests.conftest import Completed, Pybuild


def machine(pybuild: Pybuild, name: str) -> Pybuild:
    """The same sources on another machine: an empty store."""
    return Pybuild(pybuild.root.parent / name, pybuild.cwd)


def ran(done: Completed) -> list[str]:
    """The instructions that ran, in the order in which they began, of a build with --progress json."""
    events = [json.loads(line) for line in done.stderr.splitlines()]
    names = {event["vertex"]: event["name"] for event in events if event["event"] == "started"}
    return [names[e["vertex"]].partition("] ")[2] for e in events if e["event"] == "done" and not e["cached"]]


def messages(done: Completed) -> str:
    """What a build with --progress json said beside its vertices."""
    events = [json.loads(line) for line in done.stderr.splitlines()]
    return "\n".join(event["text"] for event in events if event["event"] == "message")


def cpu_seconds(work: Callable[[], Completed]) -> tuple[float, Completed]:
    """What a process costs, however busy the machine is, and what came of it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done


class Layer(NamedTuple):
    """A layer as whoever made it wants it to be: its blob, and what an index has to say of it to be believed."""

    raw: bytes
    claims: dict[str, Any]


def layer_of(*entries: TarEntry, content: bytes = b"") -> Layer:
    """A layer with these entries; the last one has the content."""
    tar = b"".join(tarwriter.encode(entry) for entry in entries) + content + tarwriter.padding(len(content))
    tar += tarwriter.END
    claims = {
        "diff_id": str(sha256_bytes(tar)),
        "content_digest": content_digest(io.BytesIO(tar)),
        "tar_size": len(tar),
        "media_type": "application/vnd.oci.image.layer.v1.tar+gzip",
    }
    return Layer(gzip.compress(tar, mtime=0), claims)


def file_entry(name: str, content: bytes, **fields: Any) -> TarEntry:
    return TarEntry(name.encode(), tarwriter.REGULAR, 0o644, 0, 0, len(content), 0)._replace(**fields)


class Layout:
    """A cache in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, digest: str) -> Path:
        return self.directory / "blobs/sha256" / digest.removeprefix("sha256:")

    def read(self, digest: str) -> Any:
        return json.loads(self.path(digest).read_bytes())

    @property
    def manifest(self) -> Any:
        entries = json.loads((self.directory / "index.json").read_bytes())["manifests"]
        return self.read(entries[-1]["digest"])

    @property
    def config(self) -> Any:
        return self.read(self.manifest["config"]["digest"])

    def put(self, raw: bytes) -> str:
        digest = str(sha256_bytes(raw))
        self.path(digest).write_bytes(raw)
        return digest

    def forge(self, change: Callable[[Any, Any], None]) -> None:
        """Let `change(manifest, config)` do its worst; every digest above is right again."""
        manifest, config = self.manifest, self.config
        change(manifest, config)
        raw = config if isinstance(config, bytes) else json.dumps(config).encode()
        self.publish(manifest, raw)

    def publish(self, manifest: Any, config_raw: bytes) -> None:
        manifest["config"].update(digest=self.put(config_raw), size=len(config_raw))
        raw = json.dumps(manifest).encode()
        path = self.directory / "index.json"
        index = json.loads(path.read_bytes())
        index["manifests"][-1].update(digest=self.put(raw), size=len(raw))
        path.write_text(json.dumps(index))

    def replace_layer(self, number: int, raw: bytes, **claims: Any) -> None:
        """Put another blob in a layer's place, named as it is; `claims` are what the index says of it."""

        def change(manifest: Any, config: Any) -> None:
            layer = config["layers"][number]
            old = layer["digest"]
            layer.update(digest=self.put(raw), size=len(raw), **claims)
            for entry in manifest["layers"]:
                if entry["digest"] == old:
                    entry.update(digest=layer["digest"], size=len(raw))

        self.forge(change)


def number_of(cache: Layout, step: str) -> int:
    """The number of the layer that a step made."""
    records = cache.config["records"]
    found = [record["layer"] for record in records if any(step in json.dumps(key) for key in record["keys"])]
    return int(found[0])
