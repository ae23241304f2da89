"""`--fix` on every Dockerfile of the shared cases: same image, same errors, and nothing more to fix after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builder.check_run import Entry, Report, Subject, check
from builder.errors import BuildError
from builder.lower import lower
from builder.options import BuildOptions
from grammar.errors import DockerfileError
from grammar.lint_fix import AUTHORS, fix
from grammar.stages import parse
from tests.conformance.evaluation import image_of
from tests.conformance.parse import goldens
from tests.conformance.stub_world import HOST, StubWorld
from tests.shared import shared_dir

LARGEST = 200_000


@pytest.fixture(scope="module")
def sources() -> list[tuple[str, bytes]]:
    shared: Path | None = shared_dir()
    if shared is None:
        pytest.skip("the shared conformance cases are not here")
    return [(name, source) for name, source, _ in goldens(shared / "conformance" / "parse") if len(source) < LARGEST]


def report(source: bytes) -> Report:
    return check(Subject("Dockerfile", source), BuildOptions(), StubWorld(), host=HOST)


def errors(found: Report) -> list[Entry]:
    return [entry for entry in found.entries if entry.rule is None]


def image(source: bytes) -> dict[str, Any] | None:
    """The config that the Dockerfile makes, with an author as the label that takes its place."""
    try:
        plan = lower(parse(source), BuildOptions(), StubWorld(), filename="Dockerfile", host=HOST)
    except (BuildError, DockerfileError):
        return None
    config = image_of(plan)
    author = config.pop("author")
    if author:
        config["labels"] = {**config["labels"], AUTHORS: author}
    config["history"] = [entry["empty"] for entry in config["history"]]
    return config


def test_the_meaning_stays(sources: list[tuple[str, bytes]]) -> None:
    changed = 0
    for name, source in sources:
        before = report(source)
        fixed, done = fix(source, before.findings)
        if not done:
            assert fixed == source, name
            continue
        changed += 1
        after = report(fixed)
        assert [entry.message for entry in errors(after)] == [entry.message for entry in errors(before)], name
        assert image(fixed) == image(source), name
        assert fix(fixed, after.findings)[0] == fixed, name
    assert changed > 100
