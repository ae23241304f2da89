"""What holds for every build: over random edits a cached build's image is a cold build's, and one after which nothing
can have changed runs nothing.

$PYBUILD_PROPERTY_EXAMPLES multiplies the number of edits.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from builder.errors import BuildError
from tests.e2e import trees
from tests.e2e.edits import Source
from tests.e2e.inprocess import Builder, image_config

FACTOR = int(os.environ.get("PYBUILD_PROPERTY_EXAMPLES", "1"))
WALKS = 50 * FACTOR
EDITS = 42
"""In each walk: 2,100 in all."""


@pytest.fixture(scope="session")
def layouts(base_layout: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Three bases: one, the same files with other times (another digest), and one with a file more."""
    scratch = tmp_path_factory.mktemp("bases")
    builder, found = Builder(scratch / "store", scratch), {}
    for name, lines in {
        "base": "RUN mkdir /w && echo one > /w/f0",
        "rebuilt": "RUN mkdir /w && echo one > /w/f0 && touch -d 2001-01-01 /w/f0",
        "other": "RUN mkdir /w && echo one > /w/f0 && echo two > /w/base",
    }.items():
        (scratch / "Dockerfile").write_text(f"FROM start\n{lines}\n")
        found[name] = scratch / name
        context = f"start=oci-layout://{base_layout}"
        builder("--build-context", context, "-o", f"type=oci,tar=false,dest={found[name]}", ".")
    return found


@pytest.fixture(autouse=True)
def quick_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as settled after some ticks of the kernel's clock, so that what is remembered of them is used."""
    monkeypatch.setattr("cache.statcache.RACY_NS", 12 * 10**6)
    monkeypatch.setattr("builder.ops.localtree.RACY_NS", 12 * 10**6)


@pytest.mark.parametrize("seed", range(WALKS))
def test_cached_build_is_a_cold_build_after_every_edit(seed: int, layouts: Mapping[str, Path], tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    source = Source(tmp_path / "context", random.Random(seed), layouts, runs=seed % 5 == 0)
    warm, cold = Builder(tmp_path / "warm", source.context), Builder(tmp_path / "cold", source.context)
    before = _outcome(warm, source)
    history = []
    for _ in range(EDITS):
        what, is_idle = source.edit()
        history.insert(0, what)
        found = _outcome(warm, source)
        if is_idle and not before[0].startswith("failed"):
            assert found[1] == [], (history, source.lines)
            assert found[0] == before[0], (history, source.lines)
        expected = _outcome(cold, source, "--no-cache", "--jobs", "1")
        if expected[0] != found[0]:
            assert "failed" not in expected[0] + found[0], (expected, found, history, source.lines)
            assert _files(warm, source, tmp_path) == _files(cold, source, tmp_path), (history, source.lines)
        before = _outcome(warm, source)
        assert before == (found[0], []) or found[0].startswith("failed"), (history, source.lines)


def _files(builder: Builder, source: Source, scratch: Path) -> tuple[dict[str, Any], dict[bytes, trees.Entry]]:
    """The image's config without its layers, and its files without their times.

    A file that was only touched is not copied again, so a layer may hold a file again of which nothing but the time is
    not as below: in the cold build it is, and the layer does not hold it.
    """
    layout, tar = scratch / "layout", scratch / "flat.tar"
    shutil.rmtree(layout, ignore_errors=True)
    outputs = ("-o", f"type=oci,tar=false,dest={layout}", "-o", f"type=tar,dest={tar}")
    builder(*outputs, *source.words, SOURCE_DATE_EPOCH="1")
    config = image_config(layout)
    del config["rootfs"]
    return config, {path: entry._replace(time=-1) for path, entry in trees.in_tar(tar).items()}


def _outcome(builder: Builder, source: Source, *words: str) -> tuple[str, list[str]]:
    """The image's id and what ran, without putting linked layers together; for a failure its message."""
    try:
        built = builder(*words, *source.words, SOURCE_DATE_EPOCH="1")
    except BuildError as error:
        return f"failed: {error}", []
    return built.image_id, [name for name in built.ran if not name.startswith("LINK ")]
