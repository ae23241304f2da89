"""Small images made by hand, in every form that an importer may meet."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

from cache.snapshot import Snapshot
from cache.store import Store

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
MTIME = 1_600_000_000
REF_NAME = "org.opencontainers.image.ref.name"


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def layer_tar(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content.encode())
            tar.addfile(member, io.BytesIO(content.encode()))
    return buffer.getvalue()


class Image(NamedTuple):
    """One image: its manifest's descriptor and everything that it refers to."""

    descriptor: dict[str, Any]
    config_digest: str
    layers: list[str]
    blobs: dict[str, bytes]

    def named(self, name: str) -> dict[str, Any]:
        return {**self.descriptor, "annotations": {REF_NAME: name}}


def make_image(*tars: bytes, compress: bool = True, architecture: str = "amd64", **changes: Any) -> Image:
    """An image of these layers; `changes` replace fields of the config, or with `manifest_` of the manifest."""
    blobs: dict[str, bytes] = {}

    def put(media_type: str, content: bytes) -> dict[str, Any]:
        blobs[digest_of(content)] = content
        return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}

    config = {
        "architecture": architecture,
        "os": "linux",
        "created": "2020-01-02T03:04:05Z",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
        "history": [{"created_by": f"layer {n}", "created": "2020-01-02T03:04:05Z"} for n in range(len(tars))],
        **{key: value for key, value in changes.items() if not key.startswith("manifest_")},
    }
    layers = [put(LAYER + "+gzip", gzip.compress(tar, mtime=0)) if compress else put(LAYER, tar) for tar in tars]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": put(CONFIG, json.dumps(config).encode()),
        "layers": layers,
        **{key.removeprefix("manifest_"): value for key, value in changes.items() if key.startswith("manifest_")},
    }
    descriptor = put(MANIFEST, json.dumps(manifest).encode())
    return Image(descriptor, manifest["config"]["digest"], [layer["digest"] for layer in layers], blobs)


def layout_files(entries: list[dict[str, Any]], *blobs: dict[str, bytes]) -> dict[str, bytes]:
    """The files of an OCI layout by name."""
    files = {f"blobs/sha256/{digest[7:]}": content for group in blobs for digest, content in group.items()}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    return {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode(), **files}


def write_layout(directory: Path, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return str(directory)


def write_tar(path: Path, files: dict[str, bytes | str], mode: str = "w") -> str:
    """A tar of these files in this order; a str is a symbolic link."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return str(path)


def commit_files(store: Store, parent: Snapshot, files: dict[str, str]) -> Snapshot:
    """A snapshot with some more files than `parent`, all of one time, so that it is the same in every store."""
    active = store.snapshots.prepare(parent)
    for name, content in files.items():
        path = Path(active.upper_dir) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    for path in Path(active.upper_dir).rglob("*"):
        os.utime(path, (MTIME, MTIME))
    return store.snapshots.commit(active)
