"""Names of owners: looked up in what a step is made on, and an error where that is an empty root (BuildKit)."""

from __future__ import annotations

import pytest

from tests.conftest import Pybuild


@pytest.mark.parametrize(
    "text",
    [
        "FROM scratch\nCOPY --chown=app f /a\n",
        "FROM scratch\nCOPY --chown=1:staff f /a\n",
        "FROM base\nCOPY --link --chown=app f /a\n",
        "FROM scratch\nUSER app\nWORKDIR /w\n",
    ],
)
def test_a_name_without_a_root_to_look_it_up_in(pybuild: Pybuild, based: list[str], text: str) -> None:
    pybuild.write(Dockerfile=text, f="x")
    failed = pybuild("build", *based, ".")
    assert failed.returncode == 1
    assert "invalid user index: -1" in failed.stderr
    assert f"Dockerfile:{text.count(chr(10))}\n" in failed.stderr


def test_names_are_looked_up_in_what_is_there(pybuild: Pybuild, based: list[str]) -> None:
    text = (
        "FROM scratch AS s\nWORKDIR /w\nCOPY --chown=app f /a\nCOPY --link --chown=root:5 f /b\n"
        "FROM base\nCOPY --from=s / /s/\nCOPY --link --chmod=755 --chown=nobody f /c\n"
    )
    pybuild.write(Dockerfile=text, f="x")
    pybuild.ok("build", *based, "-t", "x", ".")
    shown = pybuild.ok("run", "--rm", "x", "stat", "-c", "%n %u:%g", "/s/a", "/s/b").stdout
    assert shown == "/s/a 0:0\n/s/b 0:5\n"
