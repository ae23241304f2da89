"""--cache-check: what is in the cache is made again and compared; poisoned and unstable steps are found."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from builder.commands.build_options import CacheCheck, cache_check
from builder.treediff import tree_differences
from tests.conftest import Pybuild


def checks(pybuild: Pybuild, words: list[str], option: str = "--cache-check") -> tuple[int, list[str], str]:
    """The exit code, what is said of each step that was checked, and all of stderr."""
    done = pybuild("build", option, *words, ".")
    lines = [
        line.removeprefix("cache check: ") for line in done.stderr.splitlines() if line.startswith("cache check: ")
    ]
    return done.returncode, lines, done.stderr


def test_what_is_right_is_the_same(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nCOPY f /f\nCOPY --link f /g\nRUN cp /f /h\n", f="f")
    assert checks(pybuild, based)[:2] == (0, [])
    time.sleep(1.1)  # layers keep times in whole seconds
    code, lines, _ = checks(pybuild, based)
    assert code == 0
    assert lines == [
        "COPY f /f (Dockerfile:2): the same again",
        "COPY --link f /g (Dockerfile:3): the same again",
        "RUN cp /f /h (Dockerfile:4): the same again but for times of files",
    ]


def test_wrong_record_is_found(pybuild: Pybuild, based: list[str]) -> None:
    """A record that leads to another step's layer, as somebody who can write to a shared cache would have it."""
    pybuild.write(Dockerfile="FROM base\nRUN echo evil > /file\n")
    pybuild.ok("build", *based, "-q", ".")
    pybuild.write(Dockerfile="FROM base\nRUN echo right > /file\n")
    pybuild.ok("build", *based, "-q", ".")
    with sqlite3.connect(pybuild.root / "index.db") as database:
        evil, right = (
            row[0]
            for row in database.execute(
                "SELECT DISTINCT chain_id FROM records WHERE CAST(manifest AS TEXT) LIKE '%echo %' ORDER BY created_ns"
            )
        )
        database.execute("UPDATE records SET chain_id = ? WHERE chain_id = ?", (evil, right))
    code, lines, said = checks(pybuild, based)
    assert code == 1
    assert lines == ["RUN echo right > /file (Dockerfile:2): not what the cache has; file changed (content)"]
    assert "1 of 1 steps that were run again made something else" in said
    assert checks(pybuild, based, "--cache-check=warn")[0] == 0
    pybuild.ok("build", *based, "--no-cache", ".")
    assert checks(pybuild, based)[0] == 0


def test_unstable_step_is_told_from_a_wrong_record(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN cat /proc/sys/kernel/random/uuid > /id\n")
    pybuild.ok("build", *based, "-q", ".")
    code, lines, said = checks(pybuild, based)
    assert code == 1
    assert lines[0].endswith("not the same each time it runs; id changed (content)")
    assert "cannot be checked" in said


def test_a_part_of_the_steps(pybuild: Pybuild, based: list[str]) -> None:
    steps = "".join(f"RUN echo {number} > /f{number}\n" for number in range(10))
    pybuild.write(Dockerfile=f"FROM base\n{steps}")
    pybuild.ok("build", *based, "-q", ".")
    assert len(checks(pybuild, based, "--cache-check=30%")[1]) == 3
    assert len(checks(pybuild, based, "--cache-check=1%")[1]) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10%", CacheCheck(10.0)),
        ("0.5", CacheCheck(0.5)),
        ("100%,warn", CacheCheck(100.0, warns=True)),
        ("warn", CacheCheck(100.0, warns=True)),
        ("5%,error", CacheCheck(5.0)),
    ],
)
def test_option(text: str, value: CacheCheck) -> None:
    assert cache_check(text) == value


@pytest.mark.parametrize("text", ["0%", "101%", "half", "10%,never", "nan%"])
def test_option_that_is_not_known(pybuild: Pybuild, text: str) -> None:
    done = pybuild("build", f"--cache-check={text}", ".")
    assert done.returncode == 2
    assert "expected" in done.stderr


def test_what_differs_in_trees(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for directory in (one, two):
        directory.mkdir()
        for name in ("same", "content", "mode", "kind", "gone" if directory == one else "new"):
            (directory / name).write_text("text")
        (directory / "link").symlink_to(directory.name)
    (two / "content").write_text("more")
    (two / "mode").chmod(0o700)
    (two / "kind").unlink()
    (two / "kind").mkdir()
    found, only_times = tree_differences(str(one), str(two))
    assert [(change.path, change.what) for change in found] == [
        ("content", ("content",)),
        ("gone", ("removed",)),
        ("kind", ("type",)),
        ("link", ("target",)),
        ("mode", ("mode",)),
        ("new", ("added",)),
    ]
    assert not only_times
