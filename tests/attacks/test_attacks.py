"""Every attack of the catalogue, by everybody who can try it: it fails, in time, and leaves nothing behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.attacks.catalogue import Attack, catalogue
from tests.attacks.page import ELSEWHERE, page
from tests.attacks.scene import SECONDS, Scene
from tests.conftest import PROJECT

CASES = [(attack, who) for attack in catalogue() for who in attack.who]


@pytest.mark.parametrize(
    ("attack", "scene"), [(a, (a, w)) for a, w in CASES], indirect=["scene"], ids=[f"{w}-{a.id}" for a, w in CASES]
)
def test_the_attack_fails(attack: Attack, scene: Scene) -> None:
    begun = time.monotonic()
    attack.run(scene)
    assert time.monotonic() - begun < SECONDS * busy()


def busy() -> float:
    """How many times slower than alone something is, when others have the processors as well."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def test_attacks_are_told_apart() -> None:
    names = [attack.id for attack in catalogue()]
    assert len(set(names)) == len(names) > 50
    for attack in catalogue():
        assert attack.attempt[-1] != ".", attack.id
        assert "root" in attack.who


def test_the_page_is_up_to_date() -> None:
    assert (PROJECT / "SECURITY.md").read_text(encoding="utf-8") == page(), "python -m tests.attacks.page > SECURITY.md"


@pytest.mark.parametrize("test", [each.test for each in ELSEWHERE])
def test_attacks_that_other_tests_make_are_there(test: str) -> None:
    path, _, name = test.partition("::")
    assert f"def {name}(" in Path(PROJECT / path).read_text() if name else (PROJECT / path).is_file()
