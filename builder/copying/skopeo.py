"""Stores of other programs, through skopeo: an OCI archive is what passes between it and us."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping

from builder.copying.words import Place
from builder.errors import BuildError
from builder.registry.errors import shown


@contextlib.contextmanager
def fetched(place: Place, environ: Mapping[str, str]) -> Iterator[Place]:
    """A foreign image as an archive, which is there as long as the block runs. BuildError."""
    _require(place)
    with tempfile.TemporaryDirectory(prefix="pybuild-copy-") as directory:
        path = os.path.join(directory, "image")
        _copy([*_daemon("--src-daemon-host", place, environ), str(place), f"oci-archive:{path}"], place)
        yield Place("oci-archive", path)


@contextlib.contextmanager
def delivered(place: Place, environ: Mapping[str, str]) -> Iterator[Place]:
    """An archive to write, which becomes a foreign image when the block ends well. BuildError."""
    _require(place)
    with tempfile.TemporaryDirectory(prefix="pybuild-copy-") as directory:
        path = os.path.join(directory, "image")
        yield Place("oci-archive", path)
        _copy([*_daemon("--dest-daemon-host", place, environ), f"oci-archive:{path}", str(place)], place)


def _daemon(option: str, place: Place, environ: Mapping[str, str]) -> list[str]:
    """Docker's own clients look into DOCKER_HOST, skopeo does not."""
    host = environ.get("DOCKER_HOST")
    return [option, host] if place.transport == "docker-daemon" and host else []


def _require(place: Place) -> None:
    if shutil.which("skopeo") is None:
        hint = f"it is what opens {place.transport}: apt install skopeo"
        raise BuildError(f"{place}: skopeo is not installed", hint=hint)


def _copy(words: list[str], place: Place) -> None:
    done = subprocess.run(["skopeo", "copy", "--quiet", *words], capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise BuildError(f"{place}: skopeo fails: {shown(said)}")
