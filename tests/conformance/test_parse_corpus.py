"""The shared conformance cases of the parser, kind by kind; skipped where they are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.parse import KINDS, run
from tests.shared import shared_dir

AT_LEAST = {
    "ast": 600,
    "instructions": 600,
    "words": 680,
    "dockerignore": 190,
    "refs": 100,
    "platforms": 100,
    "mounts": 110,
    "ports": 50,
    "values": 100,
    "image": 600,
    "lint_all": 600,
    "lint_default": 600,
    "gitrefs": 35,
    "buildopts": 40,
}


@pytest.fixture(scope="module")
def cases_dir() -> Path:
    shared = shared_dir()
    if shared is None:
        pytest.skip("the shared conformance cases are not here")
    return shared / "conformance" / "parse"


@pytest.mark.parametrize("kind", KINDS)
def test_every_case_of_the_kind_passes(cases_dir: Path, kind: str) -> None:
    failures: list[str] = []
    passed, _ = run(cases_dir, [kind], failures.append)
    assert failures == []
    assert passed[kind] >= AT_LEAST[kind]


def test_a_wrong_golden_is_reported(tmp_path: Path) -> None:
    (tmp_path / "values.json").write_text(
        '{"cases": [{"kind": "chmod", "id": "c", "input": "755", "mode": 1, "mode_str": "", "error": null}]}'
    )
    failures: list[str] = []
    passed, failed = run(tmp_path, ["values"], failures.append)
    assert (passed.total(), failed.total()) == (0, 1)
    assert failures == ["FAIL values c: .mode: got 493, expected 1"]
