"""Inputs that once were a defect, repeated; each is a file of bytes in cases/TARGET."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.seeds import kept_cases
from tests.fuzz.targets import TARGETS

CASES = [(target, path) for target in TARGETS for path in kept_cases(target)]


def test_there_are_cases() -> None:
    assert CASES


@pytest.mark.parametrize(("target", "path"), CASES, ids=[f"{target}-{path.name}" for target, path in CASES])
def test_a_finding_stays_fixed(target: str, path: Path) -> None:
    TARGETS[target](path.read_bytes())
