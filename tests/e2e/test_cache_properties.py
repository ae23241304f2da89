"""What holds for every cache elsewhere: it is invisible but for the time, whatever of it is missing or forged.

$PYBUILD_PROPERTY_EXAMPLES multiplies the number of examples.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from builder.errors import BuildError
from tests.e2e.cachetools import Layout
from tests.e2e.inprocess import Builder
from tests.e2e.test_cached_is_cold import Source

FACTOR = int(os.environ.get("PYBUILD_PROPERTY_EXAMPLES", "1"))


def outcome(builder: Builder, *words: str) -> tuple[str, list[str]]:
    """The image's id and what ran; for a failure its message."""
    try:
        built = builder(*words, SOURCE_DATE_EPOCH="1")
    except BuildError as error:
        return f"failed: {error}", []
    return built.image_id, [name for name in built.ran if "RUN" in name]


def damage(cache: Layout, chance: random.Random) -> None:
    """Lose or break some of a cache's layers, or lie about one."""
    if not (cache.directory / "index.json").exists() or not cache.config["layers"]:
        return
    number = chance.randrange(len(cache.config["layers"]))
    path = cache.path(cache.config["layers"][number]["digest"])
    deed = chance.choice(["nothing", "lose", "break", "lie", "swap"])
    if deed == "lose":
        path.unlink(missing_ok=True)
    elif deed == "break" and path.exists():
        path.write_bytes(path.read_bytes()[::-1])
    elif deed == "lie":
        cache.forge(lambda _, config: config["layers"][number].update(content_digest="1" * 32))
    elif deed == "swap":
        cache.forge(lambda _, config: config["layers"][number].update(diff_id=config["layers"][0]["diff_id"]))


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("seed", range(4 * FACTOR))
def test_a_build_with_a_cache_is_a_cold_build(seed: int, mode: str, base_layout: Path, tmp_path: Path) -> None:
    chance = random.Random(f"{seed} {mode}")
    source = Source(tmp_path / "context", chance)
    contexts = (
        *("--build-context", f"base=oci-layout://{base_layout}"),
        *("--build-context", f"named={source.context}/named"),
    )
    cache, history = Layout(tmp_path / "cache"), []
    giver = Builder(tmp_path / "giver", source.context)
    taker = Builder(tmp_path / "taker", source.context)
    place = f"type=local,src={cache.directory}"
    for number in range(5):
        cold = outcome(Builder(tmp_path / f"cold{number}", source.context), *contexts, ".")[0]
        target = f"type=local,dest={cache.directory},mode={mode}"
        assert outcome(giver, *contexts, "--cache-to", target, ".")[0] == cold, history
        fresh = Builder(tmp_path / f"fresh{number}", source.context)
        found, ran = outcome(fresh, *contexts, "--cache-from", place, ".")
        assert found == cold, history
        assert ran == [] or cold.startswith("failed"), (ran, source.lines, history)
        harmed, bad = Builder(tmp_path / f"harmed{number}", source.context), Layout(tmp_path / f"bad{number}")
        if cache.directory.exists():
            shutil.copytree(cache.directory, bad.directory)
            damage(bad, chance)
        for _ in range(2):
            words = ("--cache-from", f"type=local,src={bad.directory}")
            assert outcome(harmed, *contexts, *words, ".")[0] == cold, history
        assert outcome(harmed, *contexts, ".") == (cold, []) or cold.startswith("failed"), history
        history.append(source.edit())
        cold = outcome(Builder(tmp_path / f"next{number}", source.context), *contexts, ".")[0]
        assert outcome(taker, *contexts, "--cache-from", place, ".")[0] == cold, (history, json.dumps(source.lines))
