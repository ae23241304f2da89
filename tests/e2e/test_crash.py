"""Builds that are killed at random, or that fill the disk: what they leave works, and the next build is right.

PYBUILD_CRASH_KILLS and PYBUILD_CRASH_SECONDS make it more and longer; PYBUILD_CRASH_SEED another one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import PROJECT, Pybuild
from tests.e2e.test_failures import assert_error

KILLS = int(os.environ.get("PYBUILD_CRASH_KILLS", "150"))
SECONDS = float(os.environ.get("PYBUILD_CRASH_SECONDS", "40"))
SEED = os.environ.get("PYBUILD_CRASH_SEED", "1")


def crash(layout: Path, scratch: Path, *words: str) -> dict[str, float]:
    """Run the loop in a process of its own, which ends with 0 when nothing was wrong."""
    command = [sys.executable, "-m", "tests.e2e.crash", "--layout", str(layout), "--scratch", str(scratch), *words]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


def test_killed_builds_leave_a_store_that_works(base_layout: Path, tmp_path: Path) -> None:
    found = crash(base_layout, tmp_path, "--kills", str(KILLS), "--seconds", str(SECONDS), "--seed", SEED)
    assert found["kills"] >= 25
    assert found["in_time"] >= found["kills"] / 3


def test_full_disks_leave_a_store_that_works(base_layout: Path, tmp_path: Path) -> None:
    words = ["--disk", "24", "--kills", str(KILLS // 8), "--seconds", str(SECONDS / 2), "--seed", SEED]
    assert crash(base_layout, tmp_path, *words)["full"] >= 1


def test_check_finds_and_repairs_damage(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN echo one > /one\nRUN echo two > /two\n")
    words = ["build", *based, "-t", "x", "."]
    first = pybuild.ok(*words, env={"SOURCE_DATE_EPOCH": "1"}).stdout
    assert pybuild.ok("store", "check").stdout.startswith("0 damaged")
    (one,) = pybuild.root.glob("snapshots/*/diff/one")
    one.write_text("changed\n")
    (pybuild.root / "run/tmp/0123.1").write_bytes(b"x" * 5000)
    (pybuild.root / "snapshots/77").mkdir()
    (pybuild.root / "run").chmod(0o755)
    config = first.strip().removeprefix("sha256:")
    (pybuild.root / "blobs/sha256" / config).write_text("{}")
    found = [json.loads(line) for line in pybuild("store", "check", "--format", "json").stdout.splitlines()]
    subjects = {each["subject"]: each["severity"] for each in found}
    assert subjects.pop("run") == "damage"
    assert subjects.pop(f"blobs/sha256/{config}") == "damage"
    assert subjects.pop(f"snapshots/{one.parts[-3]}") == "damage"
    assert subjects.pop("run/tmp/0123.1") == subjects.pop("snapshots/77") == "leftover"
    assert subjects.pop("image x:latest") == "damage"
    assert_error(pybuild("store", "check", "-q"), 1)
    assert "lost" in pybuild("store", "check").stdout
    pybuild.ok("store", "check", "--repair")
    assert pybuild.ok("store", "check").stdout == "0 damaged, 0 left over, 0B lost to leftovers\n"
    assert pybuild.ok(*words, env={"SOURCE_DATE_EPOCH": "1"}).stdout == first
    assert pybuild.ok("run", "--rm", "x", "cat", "/one", "/two").stdout == "one\ntwo\n"


def test_a_database_that_cannot_be_read_is_set_aside(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN echo one > /one\n")
    pybuild.ok("build", *based, "-t", "x", ".")
    (pybuild.root / "index.db").write_bytes(b"not a database at all, " * 1000)
    assert_error(pybuild("store", "check"), 1, "index.db", "hint: ")
    done = pybuild.ok("store", "check", "--repair")
    assert "set aside" in done.stderr
    assert pybuild.ok("store", "check").stdout.startswith("0 damaged, 0 left over")
    pybuild.ok("build", *based, "-t", "x", ".")


def test_there_is_no_store_to_check(pybuild: Pybuild) -> None:
    assert_error(pybuild("store", "check"), 2, "there is no store")
    assert not pybuild.root.exists()
