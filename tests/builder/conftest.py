"""A sandbox on a root of one static program, for the tests of the sandbox; commands on a store of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sandboxes import Box, make_root

from tests.builder.commandline import Shell


@pytest.fixture(scope="module")
def lower_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_root(tmp_path_factory.mktemp("base"))


@pytest.fixture
def box(tmp_path: Path, lower_dir: str) -> Iterator[Box]:
    box = Box(tmp_path, lower_dir)
    yield box
    box.launcher.close()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)
