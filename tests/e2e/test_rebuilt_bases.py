"""A base image is what its layers are: what is the same of one that was built anew, and what is another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Pybuild
from tests.e2e.cachetools import machine, ran

BASE = "FROM start\nRUN mkdir /w && echo one > /w/f\n"
DOCKERFILE = "FROM base\nCOPY --from=base /w/f /g\nRUN cat /g > /h\n"
STEPS = ["COPY --from=base /w/f /g", "RUN cat /g > /h"]


@pytest.fixture
def start(base_layout: Path) -> list[str]:
    return ["--build-context", f"start=oci-layout://{base_layout}"]


def made(pybuild: Pybuild, start: list[str], dockerfile: str, directory: Path) -> list[str]:
    """A base image, made on a machine of its own; the words that give `FROM base` its meaning."""
    maker = machine(pybuild, "maker")
    pybuild.write(base__Dockerfile=dockerfile)
    where = "base/Dockerfile"
    maker.ok("build", "-q", *start, "-f", where, "-o", f"type=oci,tar=false,dest={directory}", ".")
    return ["--build-context", f"base=oci-layout://{directory}"]


REBUILT = {
    "another config": (BASE + "LABEL built=today\nVOLUME /v\n", []),
    "an empty layer more": (BASE + "RUN true\n", []),
    "other times of files": (BASE.replace("/w/f\n", "/w/f && touch -d 2001-01-01 /w/f\n"), STEPS),
    "the same files in other layers": ("FROM start\nRUN mkdir /w\nRUN echo one > /w/f\n", STEPS),
}


@pytest.mark.parametrize("how", REBUILT)
def test_a_base_that_was_rebuilt(pybuild: Pybuild, start: list[str], tmp_path: Path, how: str) -> None:
    first = made(pybuild, start, BASE, tmp_path / "first")
    pybuild.write(Dockerfile=DOCKERFILE)
    pybuild.ok("build", "-q", *first, ".")
    dockerfile, expected = REBUILT[how]
    second = made(pybuild, start, dockerfile, tmp_path / "second")
    done = pybuild.ok("build", "--progress", "json", *second, ".")
    assert ran(done) == expected
