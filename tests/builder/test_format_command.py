from __future__ import annotations

import argparse
import io
import os
import stat
from pathlib import Path

import pytest

from builder.commands import Environment, fmt
from builder.errors import BuildError, UsageError

UGLY, NEAT = b"from a\nrun b \\\n c\n", b"FROM a\nRUN b \\\n    c\n"


class Result:
    """What `pybuild fmt` printed in a directory, and how it ended."""

    def __init__(self, directory: Path, *words: str) -> None:
        parser = argparse.ArgumentParser(exit_on_error=False)
        fmt.add_arguments(parser)
        stdout, binary, stderr = io.StringIO(), io.BytesIO(), io.StringIO()
        environment = Environment(stdout, binary, stderr, {}, str(directory), "", lambda: 0)
        self.code = fmt.run(parser.parse_args(words), environment)
        self.text, self.binary, self.errors = stdout.getvalue(), binary.getvalue(), stderr.getvalue()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_bytes(UGLY)
    (tmp_path / "neat").write_bytes(NEAT)
    (tmp_path / "bad").write_bytes(b"FROM a\nNOPE\n")
    return tmp_path


def test_the_default_file_is_printed_and_not_written(files: Path) -> None:
    result = Result(files)
    assert (result.code, result.binary) == (0, NEAT)
    assert (files / "Dockerfile").read_bytes() == UGLY


def test_standard_input(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(UGLY)))
    assert Result(files, "-").binary == NEAT


def test_check_names_what_would_change(files: Path) -> None:
    result = Result(files, "--check", "neat", "Dockerfile")
    assert (result.code, result.text, result.binary) == (1, "Dockerfile\n", b"")
    assert Result(files, "--check", "neat").code == 0


def test_diff_shows_what_would_change(files: Path) -> None:
    result = Result(files, "--diff", "Dockerfile", "neat")
    assert result.code == 0
    assert result.binary.splitlines() == [
        *(b"--- Dockerfile", b"+++ Dockerfile (formatted)", b"@@ -1,3 +1,3 @@"),
        *(b"-from a", b"-run b \\", b"- c", b"+FROM a", b"+RUN b \\", b"+    c"),
    ]
    assert Result(files, "--diff", "--check").code == 1


def test_write_replaces_the_file_behind_a_link_and_keeps_its_mode(files: Path) -> None:
    (files / "Dockerfile").chmod(0o640)
    (files / "link").symlink_to("Dockerfile")
    result = Result(files, "-w", "link")
    assert (result.code, result.binary) == (0, b"")
    assert (files / "link").is_symlink()
    assert (files / "Dockerfile").read_bytes() == NEAT
    assert stat.S_IMODE((files / "Dockerfile").stat().st_mode) == 0o640
    assert sorted(os.listdir(files)) == ["Dockerfile", "bad", "link", "neat"]


def test_write_leaves_a_canonical_file_alone(files: Path) -> None:
    before = (files / "neat").stat()
    Result(files, "-w", "neat")
    assert (files / "neat").stat().st_ino == before.st_ino


def test_a_file_that_is_no_dockerfile_is_reported_and_the_others_are_done(files: Path) -> None:
    result = Result(files, "bad", "neat")
    assert (result.code, result.binary) == (1, NEAT)
    assert result.errors.startswith("pybuild: bad:2:1: unknown instruction: NOPE\n")


def test_a_missing_file_and_options_that_exclude_each_other(files: Path) -> None:
    with pytest.raises(BuildError, match="nowhere: no such file"):
        Result(files, "nowhere")
    with pytest.raises(UsageError):
        Result(files, "-w", "-")
    with pytest.raises(UsageError):
        Result(files, "-w", "--check")
