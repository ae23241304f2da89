"""A sandbox on a root of one static program, for the tests of the sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sandboxes import Box, make_root


@pytest.fixture(scope="module")
def lower_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_root(tmp_path_factory.mktemp("base"))


@pytest.fixture
def box(tmp_path: Path, lower_dir: str) -> Iterator[Box]:
    box = Box(tmp_path, lower_dir)
    yield box
    box.launcher.close()
