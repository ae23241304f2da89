"""Well-known public Dockerfiles on a base that is made here: they build, and what they made is what they say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import Pybuild
from tests.e2e.test_real_program import debian
from tests.shared import shared_dir

__all__ = ["debian"]

pytestmark = pytest.mark.xdist_group("debian")
PREFIX = "GoogleContainerTools__kaniko__integration__dockerfiles__Dockerfile_test_"


def build(debian: Pybuild, name: str, *words: str) -> None:
    """Build one file of the parse corpus with the base that it names, under its own name."""
    shared = shared_dir()
    if shared is None:
        pytest.skip("the shared Dockerfiles are not there")
    context = debian.cwd / f"public-{name}"
    (context / "context").mkdir(parents=True, exist_ok=True)
    (context / "context" / "foo").write_text("foo\n")
    shutil.copy(shared / "conformance" / "parse" / "files" / (PREFIX + name), context / "Dockerfile")
    base = "debian:10.13=docker-image://debian"
    debian.ok("build", "--build-context", base, *words, "-t", name, str(context))


def output(debian: Pybuild, name: str, script: str, *words: str) -> str:
    return debian.ok("run", "--rm", *words, name, "sh", "-c", script).stdout


def test_run(debian: Pybuild) -> None:
    build(debian, "run", "--build-arg", "file=/argument")
    script = "cat /etc/foo /etc/bar /argument ~/file /foo; ls /etc/baz 2>/dev/null || echo gone"
    assert output(debian, "run", script).split() == ["hey", "baz", "run", "test", "home", "foo", "gone"]


def test_user_home(debian: Pybuild) -> None:
    build(debian, "user_home")
    script = "ls /root /home/alice /home/john; stat -c '%U %G %n' /home/john/* /home/alice/*"
    shown = output(debian, "user_home", script, "-u", "root")
    assert "bob testgroup /home/john/hello" in shown
    assert "bob testgroup /home/john/world" in shown
    assert "alice testgroup /home/alice/hello" in shown


def test_workdir_with_user(debian: Pybuild, tmp_path: Path) -> None:
    build(debian, "workdir_with_user", "-o", str(tmp_path / "tree"))
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in (tmp_path / "tree/workdir/w").iterdir()}
    assert owners["uid_gid"] == (9999, 9999)
    assert owners["root_uid"] == owners["root_username"] == (0, 0)
    assert owners["foo_username"] == owners["foo_uid_gid"] == owners["foo_uid_groupname"] == (10000, 10000)
