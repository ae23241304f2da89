"""What a command is started with: closed and full streams, no working directory, a locale that shows little."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Pybuild

CLOSED = ("", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-")


def in_shell(pybuild: Pybuild, words: str, redirection: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """A command with what a shell makes of its streams."""
    script = f'exec "$@" {words} {redirection}'
    return subprocess.run(
        ["sh", "-c", script, "sh", *pybuild.argv()],
        cwd=pybuild.cwd,
        env=pybuild.environment(PYTHONUNBUFFERED="", **env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("redirection", CLOSED)
def test_a_build_needs_no_streams(pybuild: Pybuild, based: list[str], redirection: str) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN echo a >/a && cat /a\nCOPY . /c\n")
    done = in_shell(pybuild, f"build {' '.join(based)} -t x .", redirection)
    assert done.returncode == 0, done.stderr
    assert pybuild.ok("run", "--rm", "x", "cat", "/a").stdout == "a\n"
    assert pybuild.ok("store", "check", "-q").stdout == ""


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
@pytest.mark.parametrize("words", ["build -q -o type=tar .", "fmt", "build -q -o type=oci ."])
def test_bytes_that_cannot_be_written_are_an_error(pybuild: Pybuild, words: str, redirection: str) -> None:
    pybuild.write(Dockerfile="FROM scratch\nCOPY . /\n")
    done = in_shell(pybuild, words, redirection)
    assert done.returncode == 1
    assert b"cannot be written" in done.stderr or b"bad file descriptor" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("words", ["images", "--help", "graph .", "build -q ."])
def test_text_that_cannot_be_written_is_an_error(pybuild: Pybuild, words: str) -> None:
    pybuild.write(Dockerfile="FROM scratch\nCOPY . /\n")
    done = in_shell(pybuild, words, ">/dev/full")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1,
        b"pybuild: standard output cannot be written: no space left on device",
    )


def test_a_reader_that_is_gone_is_not_talked_about(pybuild: Pybuild) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        pybuild.argv("images"),
        env=pybuild.environment(PYTHONUNBUFFERED=""),
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_locale_without_a_character_shows_an_escape(pybuild: Pybuild) -> None:
    done = in_shell(pybuild, "--help", "", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, b"usage: pybuild [COMMAND] [OPTIONS] \\u2026")


def test_a_working_directory_that_is_gone_is_an_error(pybuild: Pybuild, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    pybuild.cwd = tmp_path / "gone"
    script = 'rmdir "$PWD"; exec "$@" images'
    gone = subprocess.run(
        ["sh", "-c", script, "sh", *pybuild.argv()],
        cwd=pybuild.cwd,
        env=pybuild.environment(),
        capture_output=True,
        check=False,
    )
    assert gone.returncode == 1
    assert gone.stderr.startswith(b"pybuild: the working directory cannot be told: no such file or directory\n")


@pytest.mark.parametrize(("value", "first"), [("plain", "#1 [1/1] COPY . /"), ("none", ""), ("json", '{"event"')])
def test_buildx_s_variable_says_how_to_show_progress(pybuild: Pybuild, value: str, first: str) -> None:
    pybuild.write(Dockerfile="FROM scratch\nCOPY . /\n")
    assert pybuild.ok("build", ".", env={"BUILDKIT_PROGRESS": value}).stderr.startswith(first)
    assert (value == "none") is (pybuild.ok("build", ".", env={"BUILDKIT_PROGRESS": value}).stderr == "")
    assert pybuild.ok("build", "--progress=none", ".", env={"BUILDKIT_PROGRESS": value}).stderr == ""


def test_an_unknown_way_to_show_progress_is_a_usage_error(pybuild: Pybuild) -> None:
    done = pybuild("build", ".", env={"BUILDKIT_PROGRESS": "loud"})
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, 'pybuild: BUILDKIT_PROGRESS is "loud"')


@pytest.mark.parametrize("words", [("build", "--nope", "."), ("images", "a", "b"), ("cache", "mounts", "nope")])
def test_a_usage_error_is_one_line_and_a_hint(pybuild: Pybuild, words: tuple[str, ...]) -> None:
    done = pybuild(*words)
    error, hint = done.stderr.splitlines()
    assert (done.returncode, error.partition(":")[0]) == (2, "pybuild")
    assert hint.startswith(f"hint: pybuild {words[0]}")
