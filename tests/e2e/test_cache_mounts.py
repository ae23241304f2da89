"""RUN --mount=type=cache: which mounts mean the same directory, and what a new one starts with."""

from __future__ import annotations

import pytest

from tests.conftest import Pybuild

SHOWN = "stat -c '%a %u:%g' /c > /seen; ls /c >> /seen; touch /c/left"


def seen(pybuild: Pybuild, based: list[str], text: str) -> list[str]:
    """What the last step found in /c: mode and owner, then names."""
    pybuild.write(Dockerfile=text)
    pybuild.ok("build", *based, "-t", "x", ".")
    return pybuild.ok("run", "--rm", "x", "cat", "/seen").stdout.split("\n")[:-1]


def test_a_step_may_mount_one_directory_several_times(pybuild: Pybuild, based: list[str]) -> None:
    mounts = " ".join(
        f"--mount=type=cache,id=one,target=/{mode},sharing={mode}" for mode in ("shared", "private", "locked")
    )
    assert seen(
        pybuild, based, f"FROM base\nRUN {mounts} touch /shared/f; ls /private /locked | grep -c f > /seen\n"
    ) == ["2"]


def test_an_owner_or_a_mode_makes_it_another_directory(pybuild: Pybuild, based: list[str]) -> None:
    text = f"FROM base\nRUN --mount=type=cache,id=i,target=/c,uid=5,mode=0750 {SHOWN}\n"
    assert seen(pybuild, based, text) == ["750 5:0"]
    assert seen(pybuild, based, text + f"RUN --mount=type=cache,id=i,target=/c {SHOWN}\n") == ["755 0:0"]
    assert seen(pybuild, based, text + f"RUN --mount=type=cache,id=i,target=/c,uid=5,mode=0750 : ; {SHOWN}\n") == [
        "750 5:0",
        "left",
    ]


STAGE = "FROM base AS s\nRUN mkdir -p /src && echo 1 > /src/f && chown -R 3:4 /src && chmod 711 /src\nFROM base\n"


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ("from=s,source=/src", ["711 3:4", "f"]),
        ("from=s,source=/src,uid=9,mode=0700", ["711 3:4", "f"]),
        ("from=s,uid=9,mode=0700", ["700 9:0"]),
    ],
)
def test_a_part_of_a_stage_keeps_its_own_owner_and_mode(
    pybuild: Pybuild, based: list[str], fields: str, found: list[str]
) -> None:
    assert seen(pybuild, based, f"{STAGE}RUN --mount=type=cache,id=i,target=/c,{fields} {SHOWN}\n") == found


def test_another_base_is_another_directory(pybuild: Pybuild, based: list[str]) -> None:
    text = f"{STAGE}RUN --mount=type=cache,id=i,target=/c,from=s,source=/src {SHOWN}\n"
    assert seen(pybuild, based, text) == ["711 3:4", "f"]
    assert seen(pybuild, based, text.replace("echo 1", "echo 2")) == ["711 3:4", "f"]
    assert seen(pybuild, based, f"FROM base\nRUN --mount=type=cache,id=i,target=/c {SHOWN}\n") == ["755 0:0"]


def test_a_source_needs_something_that_it_is_in(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN --mount=type=cache,target=/c,source=/sub true\n")
    failed = pybuild("build", *based, ".")
    assert failed.returncode == 1
    assert 'cache mount source "/sub" not found' in failed.stderr
    assert "Dockerfile:2" in failed.stderr
