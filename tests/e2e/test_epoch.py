"""SOURCE_DATE_EPOCH through the command line: numbers, the context, a named one, a stage, and what nobody dates."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterator
from datetime import UTC
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Pybuild, require
from tests.remotes import COMMIT_TIME, GitRepository, Server, serving

SHOW = "FROM scratch\nARG SOURCE_DATE_EPOCH\nLABEL epoch=$SOURCE_DATE_EPOCH\nCOPY f /f\n"
FROM_CONTEXT = ["--build-arg", "SOURCE_DATE_EPOCH=context"]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "served") as served:
        yield served


def archive(**files: tuple[str, int]) -> bytes:
    """A tar.gz of files by name: text and time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, (text, mtime) in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(text), mtime
            tar.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(buffer.getvalue())


class Built:
    """What an image says about its time."""

    def __init__(self, pybuild: Pybuild, *words: str, env: dict[str, str] | None = None) -> None:
        layout = pybuild.cwd.parent / "layout.tar"
        self.done = pybuild.ok("build", *words, "-o", f"type=oci,dest={layout}", env=env)
        with tarfile.open(layout) as tar:
            found = {m.name: tar.extractfile(m).read() for m in tar if m.isreg()}  # type: ignore[union-attr]
        blobs = {name.rpartition("/")[2]: content for name, content in found.items()}
        (entry,) = json.loads(found["index.json"])["manifests"]
        manifest = self._json(blobs, entry)
        config = self._json(blobs, manifest["config"])
        self.created: str = config["created"]
        self.label: str = config["config"]["Labels"]["epoch"]
        with tarfile.open(fileobj=io.BytesIO(blobs[manifest["layers"][-1]["digest"].partition(":")[2]])) as layer:
            self.mtime = layer.getmember("f").mtime

    @staticmethod
    def _json(blobs: dict[str, bytes], descriptor: dict[str, Any]) -> Any:
        return json.loads(blobs[descriptor["digest"].partition(":")[2]])


def stamp(seconds: int) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_git_context_gives_its_commits_time(pybuild: Pybuild, server: Server, tmp_path: Path) -> None:
    repository = GitRepository(tmp_path / "x")
    repository.commit(Dockerfile=SHOW, f="1")
    url = server.smart(repository)
    built = Built(pybuild, *FROM_CONTEXT, url)
    assert (built.created, built.label, built.mtime) == (stamp(COMMIT_TIME), str(COMMIT_TIME), COMMIT_TIME)
    # The same Dockerfile is not taken for the same plan when the commit is another.
    repository.commit(g="2")
    built = Built(pybuild, *FROM_CONTEXT, url)
    assert (built.created, built.label) == (stamp(COMMIT_TIME + 1), str(COMMIT_TIME + 1))
    assert Built(pybuild, *FROM_CONTEXT, url).created == built.created


def test_the_variable_of_the_environment_may_say_context(pybuild: Pybuild, server: Server, tmp_path: Path) -> None:
    repository = GitRepository(tmp_path / "x")
    repository.commit(Dockerfile=SHOW, f="1")
    built = Built(pybuild, server.smart(repository), env={"SOURCE_DATE_EPOCH": "context"})
    assert built.created == stamp(COMMIT_TIME)


def test_a_directory_has_no_time(pybuild: Pybuild) -> None:
    pybuild.write(Dockerfile=SHOW, f="1")
    built = Built(pybuild, *FROM_CONTEXT, ".")
    assert built.label == ""
    assert built.created > "2020"


def test_a_plan_of_one_context_is_not_the_others(pybuild: Pybuild, server: Server, tmp_path: Path) -> None:
    repository = GitRepository(tmp_path / "x")
    repository.commit(Dockerfile=SHOW, f="1")
    pybuild.write(Dockerfile=SHOW, f="1")
    assert Built(pybuild, *FROM_CONTEXT, server.smart(repository)).label == str(COMMIT_TIME)
    assert Built(pybuild, *FROM_CONTEXT, ".").label == ""


def test_an_archive_behind_a_url(pybuild: Pybuild, server: Server) -> None:
    packed = archive(Dockerfile=(SHOW, 1_300_000_000), f=("1", 1_200_000_000))
    url = server.file("/context.tar.gz", packed)
    built = Built(pybuild, *FROM_CONTEXT, url)
    assert (built.label, built.mtime) == ("1300000000", 1_200_000_000), "the youngest file"
    server.headers = {"Last-Modified": formatdate(1_400_000_000, usegmt=True)}
    url = server.file("/dated.tar.gz", packed)
    assert Built(pybuild, *FROM_CONTEXT, url).label == "1400000000"


def test_a_named_context_and_a_stage(pybuild: Pybuild, server: Server, tmp_path: Path) -> None:
    repository = GitRepository(tmp_path / "x")
    repository.commit(a="1")
    pybuild.write(Dockerfile=SHOW, f="1")
    named = ["--build-context", f"Source={server.smart(repository)}", "--build-arg", "SOURCE_DATE_EPOCH=source"]
    assert Built(pybuild, *named, ".").label == str(COMMIT_TIME)
    stage = "FROM scratch AS when\nARG URL\nADD ${URL}#main /\n"
    pybuild.write(Dockerfile=stage + SHOW)
    arguments = ["--build-arg", f"URL={server.smart(repository)}", "--build-arg", "SOURCE_DATE_EPOCH=When"]
    assert Built(pybuild, *arguments, ".").label == str(COMMIT_TIME)
    repository.commit(a="2")
    assert Built(pybuild, *arguments, ".").label == str(COMMIT_TIME + 1)
    # An ARG before the first FROM is as good as a --build-arg.
    pybuild.write(Dockerfile="ARG SOURCE_DATE_EPOCH=when\n" + stage + SHOW)
    built = Built(pybuild, *arguments[:2], ".")
    assert (built.label, built.created) == (str(COMMIT_TIME + 1), stamp(COMMIT_TIME + 1))


def test_a_number_in_the_dockerfile(pybuild: Pybuild) -> None:
    pybuild.write(Dockerfile="ARG SOURCE_DATE_EPOCH=1234567890\n" + SHOW, f="1")
    built = Built(pybuild, ".")
    assert (built.created, built.label, built.mtime) == ("2009-02-13T23:31:30Z", "1234567890", 1234567890)


def test_layers_keep_their_times_on_request(pybuild: Pybuild) -> None:
    import os

    pybuild.write(Dockerfile=SHOW, f="1")
    os.utime(pybuild.cwd / "f", (1_600_000_000, 1_600_000_000))
    dest = pybuild.cwd.parent / "kept"
    words = ["--build-arg", "SOURCE_DATE_EPOCH=1", "-o", f"type=oci,tar=false,rewrite-timestamp=false,dest={dest}"]
    pybuild.ok("build", *words, ".")
    times = set()
    for blob in (dest / "blobs/sha256").iterdir():
        if tarfile.is_tarfile(blob):
            with tarfile.open(blob) as tar:
                times |= {member.mtime for member in tar}
    assert times == {1_600_000_000}


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("FROM scratch AS when\nRUN x\n", "unsupported run instruction"),
        ("FROM scratch AS when\n", "must contain exactly one remote ADD"),
        ("FROM scratch AS when\nADD f /\n", "must be a single HTTP(S) or Git ADD"),
        ("FROM scratch AS when\nADD http://a/b http://a/c /\n", "exactly one remote ADD source"),
        ("FROM scratch AS when\nADD http://a/b /\nADD http://a/c /\n", "exactly one remote ADD"),
        ("FROM when2 AS when\nADD http://a/b /\n", "must use FROM scratch"),
        ("FROM scratch AS other\n", "invalid SOURCE_DATE_EPOCH: when"),
    ],
)
def test_what_gives_no_time_is_refused(pybuild: Pybuild, stage: str, words: str) -> None:
    pybuild.write(Dockerfile=stage + SHOW, f="1")
    done = pybuild("build", "--build-arg", "SOURCE_DATE_EPOCH=when", ".")
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_steps_do_not_see_for_how_long_the_machine_runs(pybuild: Pybuild, based: list[str]) -> None:
    require(os.path.exists("/proc/self/ns/time"), "this kernel has no time namespaces")
    own = os.readlink("/proc/self/ns/time")
    pybuild.write(Dockerfile="FROM base\nRUN echo =$(readlink /proc/self/ns/time)\n")
    assert f"={own}" in pybuild.ok("build", *based, "--no-cache", ".").stderr
    assert "=time:[" in (said := pybuild.ok("build", *based, "--no-cache", ".", env={"SOURCE_DATE_EPOCH": "5"}).stderr)
    assert own not in said
