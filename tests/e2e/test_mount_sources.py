"""RUN --mount=type=bind from the context, and mounts that want the same place."""

from __future__ import annotations

import pytest

from tests.conftest import Pybuild


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("lf", "x"),
        ("d", "700 d"),
        ("ld", "700 d"),
        ("ld/g", "y"),
        ("d/up/d/g", "y"),
        ("/d/../ld", "700 d"),
        ("we*rd", "w"),
    ],
)
def test_a_source_is_followed_in_the_context(pybuild: Pybuild, based: list[str], source: str, found: str) -> None:
    pybuild.write(
        f="x",
        Dockerfile=f"FROM base\nRUN --mount=source={source},target=/m if [ -d /m ]; then "
        "stat -c '%a d' /m; cat /m/g; else cat /m; fi > /seen\n",
    )
    directory = pybuild.cwd / "d"
    directory.mkdir()
    (directory / "g").write_text("y")
    directory.chmod(0o700)
    (pybuild.cwd / "lf").symlink_to("f")
    (pybuild.cwd / "ld").symlink_to("/d")
    (directory / "up").symlink_to("..")
    (pybuild.cwd / "we*rd").write_text("w")
    (pybuild.cwd / "weird").write_text("other")
    pybuild.ok("build", *based, "-t", "x", ".")
    assert pybuild.ok("run", "--rm", "x", "cat", "/seen").stdout.splitlines()[0] == found


def test_another_mode_of_the_source_is_another_step(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN --mount=source=d,target=/m stat -c %a /m > /seen\n")
    (pybuild.cwd / "d").mkdir()
    for mode in (0o700, 0o711):
        (pybuild.cwd / "d").chmod(mode)
        pybuild.ok("build", *based, "-t", "x", ".")
        assert pybuild.ok("run", "--rm", "x", "cat", "/seen").stdout == f"{mode:o}\n"


def test_of_mounts_at_one_place_the_last_counts_and_secrets_before_others(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(
        s="secret",
        Dockerfile="FROM base\n"
        "RUN --mount=type=secret,id=s,target=/m --mount=type=tmpfs,target=/m cat /m > /seen\n"
        "RUN --mount=source=.,target=/n --mount=type=tmpfs,target=/n ls /n >> /seen\n",
    )
    pybuild.ok("build", *based, "--secret", "id=s,src=s", "-t", "x", ".")
    assert pybuild.ok("run", "--rm", "x", "cat", "/seen").stdout == "secret"
