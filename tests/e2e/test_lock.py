"""The lock file: what is in it, that builds use exactly that, and what they refuse; with tags, files and branches that
move at real servers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Pybuild
from tests.e2e.test_budget import loaded
from tests.faultproxy import FaultProxy
from tests.registries import Registry
from tests.remotes import GitRepository, Server, serving


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "served") as running:
        yield running


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    made = GitRepository(tmp_path / "code")
    made.commit(f="commit one")
    return made


class Publisher:
    """Somebody else, who builds images and moves tags."""

    def __init__(self, directory: Path, plain: Registry) -> None:
        directory.mkdir()
        self._pybuild = Pybuild(directory / "store", directory)
        self._plain = plain

    def publish(self, path: str, content: str, *words: str, lines: str = "") -> str:
        """Push an image with a file `/f`; returns its digest, of the index if there is one."""
        self._pybuild.write(Dockerfile=f"FROM scratch\nCOPY f /f\n{lines}", f=content)
        note = self._pybuild.cwd / "metadata"
        output = f"type=registry,name={self._plain.name(path)}"
        self._pybuild.ok("build", *words, "--metadata-file", str(note), "-o", output, ".")
        return str(json.loads(note.read_text())["containerimage.digest"])


@pytest.fixture
def publisher(tmp_path: Path, plain: Registry) -> Publisher:
    return Publisher(tmp_path / "publisher", plain)


def lock_of(pybuild: Pybuild, name: str = "Dockerfile.lock") -> Any:
    return json.loads((pybuild.cwd / name).read_text())


def elsewhere(pybuild: Pybuild, name: str = "elsewhere") -> Pybuild:
    """The same directory on a machine whose store is empty."""
    return Pybuild(pybuild.root.parent / name, pybuild.cwd)


def content(pybuild: Pybuild, *words: str) -> dict[str, str]:
    """The files of what a build writes."""
    out = pybuild.root.parent / "out"
    pybuild.ok("build", *words, "-o", f"type=local,dest={out},mode=delete", "--allow", "buildx.local.delete", ".")
    return {str(path.relative_to(out)): path.read_text() for path in sorted(out.rglob("*")) if path.is_file()}


def test_everything_that_is_referred_to(
    pybuild: Pybuild, proxy: FaultProxy, publisher: Publisher, server: Server, repository: GitRepository, busybox: Path
) -> None:
    digests = {name: publisher.publish(f"all/{name}:1", name) for name in ("base", "copied", "mounted", "context")}
    frontend = publisher.publish("all/dockerfile:1", "frontend")
    unused = publisher.publish("all/unused:1", "unused")
    remote, url = server.smart(repository), server.file("/file", b"bytes")
    server.headers = {"Last-Modified": "Fri, 14 Jul 2017 02:40:00 GMT"}
    pybuild.write(
        Dockerfile=f"# syntax={proxy.name('all/dockerfile:1')}\n"
        f"FROM {proxy.name('all/unused:1')} AS unused\n"
        f"FROM {proxy.name('all/base:1')}\n"
        f"COPY --from={proxy.name('all/copied:1')} /f /copied\nCOPY --from=named /f /named\n"
        f"ADD {url} /file\nADD {remote}#main /code\n"
        f'RUN --mount=from={proxy.name("all/mounted:1")},target=/m ["/bin/true"]\n'
    )
    named = ("--build-context", f"named=docker-image://{proxy.name('all/context:1')}")
    lines = pybuild.ok("lock", *named, ".").stdout.splitlines()
    commit = repository.git("rev-parse", "HEAD")
    assert lock_of(pybuild) == {
        "version": 1,
        "frontend": {proxy.name("all/dockerfile:1"): {"digest": frontend, "used": False}},
        "images": {proxy.name(f"all/{name}:1"): {"digest": digest} for name, digest in digests.items()},
        "git": {f"{remote}#main": {"commit": commit, "object": commit, "ref": "refs/heads/main"}},
        "http": {url: {"digest": f"sha256:{hashlib.sha256(b'bytes').hexdigest()}", "mtime": 1500000000}},
    }
    assert len(lines) == 7 and all(line.startswith("added ") for line in lines)
    assert unused not in (pybuild.cwd / "Dockerfile.lock").read_text()
    written = (pybuild.cwd / "Dockerfile.lock").read_bytes()
    assert written == json.dumps(json.loads(written), indent=2, sort_keys=True).encode() + b"\n"
    before = os.stat(pybuild.cwd / "Dockerfile.lock").st_mtime_ns
    assert pybuild.ok("lock", *named, ".").stdout == ""
    assert os.stat(pybuild.cwd / "Dockerfile.lock").st_mtime_ns == before
    pybuild.ok("lock", *named, "--check", ".")


def test_a_locked_build_is_the_same_when_all_has_moved(
    pybuild: Pybuild, proxy: FaultProxy, publisher: Publisher, server: Server, repository: GitRepository
) -> None:
    publisher.publish("moving/base:1", "one")
    publisher.publish("moving/other:1", "other one")
    pybuild.write(
        Dockerfile=f"FROM {proxy.name('moving/base:1')}\nCOPY --from={proxy.name('moving/other:1')} /f /other\n"
        f"ADD {server.smart(repository)} /code\n"
    )
    pybuild.ok("lock", ".")
    publisher.publish("moving/base:1", "two")
    publisher.publish("moving/other:1", "other two")
    repository.commit(f="commit two")
    wanted = {"f": "one", "other": "other one", "code/f": "commit one"}
    assert content(pybuild, "--locked") == wanted
    assert content(elsewhere(pybuild), "--locked") == wanted
    assert content(elsewhere(pybuild, "third")) == {"f": "two", "other": "other two", "code/f": "commit two"}
    done = pybuild("lock", "--check", ".")
    assert done.returncode == 1
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["changed", f"{server.smart(repository)}#"],
        ["changed", proxy.name("moving/base:1")],
        ["changed", proxy.name("moving/other:1")],
    ]
    assert content(pybuild, "--locked") == wanted  # the check has written nothing
    old = lock_of(pybuild)
    pybuild.ok("lock", "--update", proxy.name("moving/base:1"), ".")
    new = lock_of(pybuild)
    assert new["images"].pop(proxy.name("moving/base:1")) != old["images"].pop(proxy.name("moving/base:1"))
    assert new == old
    assert content(pybuild, "--locked") == {**wanted, "f": "two"}
    pybuild.ok("lock", "--update", server.smart(repository), ".")
    assert content(pybuild, "--locked") == {**wanted, "f": "two", "code/f": "commit two"}


def test_a_warm_locked_build_asks_nobody(
    pybuild: Pybuild, proxy: FaultProxy, publisher: Publisher, server: Server, repository: GitRepository
) -> None:
    publisher.publish("warm:1", "one")
    url = server.file("/file", b"bytes")
    sources = f"ADD {url} /file\nADD {server.smart(repository)}#main /code\n"
    syntax = f"# syntax={proxy.name('warm:1')}\n"
    pybuild.write(Dockerfile=f"{syntax}FROM {proxy.name('warm:1')}\n{sources}")
    pybuild.ok("lock", ".")
    pybuild.ok("build", "--locked", "-t", "x", ".")
    proxy.forget()
    server.requests.clear()
    modules = loaded(pybuild, "build", "--locked", "-t", "x", ".")
    assert (proxy.passed, server.requests) == ([], [])
    assert not modules & {"lark", "networkx", "urllib3", "ssl", "http.client", "builder.registry.client"}
    assert "grammar.directives" not in modules
    explained = pybuild.ok("explain", "--locked", "--format", "json", ".").stdout
    assert {each["status"] for each in json.loads(explained)["instructions"]} == {"hit"}
    pybuild.ok("graph", "--locked", ".")
    assert (proxy.passed, server.requests) == ([], [])
    pybuild.write(Dockerfile=f"FROM {proxy.name('warm:1')}\n{sources}LABEL a=b\n")
    pybuild.ok("build", "--locked", "-t", "x", ".")
    assert (proxy.passed, server.requests) == ([], [])


def test_a_remembered_plan_is_held_against_the_lock(
    pybuild: Pybuild, proxy: FaultProxy, publisher: Publisher, server: Server
) -> None:
    publisher.publish("held:1", "one")
    url = server.file("/file", b"bytes")
    syntax = f"# syntax={proxy.name('held:1')}\n"
    pybuild.write(Dockerfile=f"{syntax}FROM {proxy.name('held:1')}\nADD {url} /file\n")
    pybuild.ok("lock", ".")
    pybuild.ok("build", "--locked", ".")
    whole = lock_of(pybuild)
    for section in ("frontend", "images", "http"):
        pybuild.write(**{"Dockerfile.lock": json.dumps({**whole, section: {}})})
        done = pybuild("build", "--locked", ".")
        assert done.returncode == 1 and "is not in Dockerfile.lock" in done.stderr, section
    pybuild.write(**{"Dockerfile.lock": json.dumps(whole)})
    pybuild.ok("build", "--locked", ".")


def test_keys_are_those_of_an_unlocked_build(
    pybuild: Pybuild, proxy: FaultProxy, publisher: Publisher, server: Server, repository: GitRepository
) -> None:
    publisher.publish("keys:1", "one")
    repository.git("tag", "-a", "v1", "-m", "v1")
    server.headers = {"Last-Modified": "Fri, 14 Jul 2017 02:40:00 GMT"}
    url, remote = server.file("/file", b"bytes"), server.smart(repository)
    pybuild.write(
        Dockerfile=f"FROM {proxy.name('keys:1')}\nADD {url} /file\nADD {remote}#v1 /code\n"
        f"ADD --keep-git-dir=true {remote}#v1 /whole\n"
    )
    image = pybuild.ok("build", "-t", "x", ".").stdout
    pybuild.ok("lock", ".")
    done = pybuild.ok("build", "--locked", "--progress=plain", "-t", "x", ".")
    assert done.stdout == image
    assert "DONE" not in done.stderr and "CACHED" in done.stderr
    other = elsewhere(pybuild)
    image = other.ok("build", "--locked", "-t", "x", ".").stdout
    done = other.ok("build", "--progress=plain", "-t", "x", ".")
    assert done.stdout == image
    assert "DONE" not in done.stderr and "CACHED" in done.stderr


def test_what_is_missing_is_refused(pybuild: Pybuild, proxy: FaultProxy, publisher: Publisher, server: Server) -> None:
    publisher.publish("missing/a:1", "a")
    publisher.publish("missing/b:1", "b")
    publisher.publish("missing/dockerfile:1", "frontend")
    first = f"FROM {proxy.name('missing/a:1')}\n"
    pybuild.write(Dockerfile=first)
    done = pybuild("build", "--locked", ".")
    assert done.returncode == 1 and "Dockerfile.lock does not exist" in done.stderr
    assert pybuild("lock", "--check", ".").returncode == 1
    pybuild.ok("lock", ".")
    url = server.file("/file", b"bytes")
    for lines, name, line in (
        (f"{first}COPY --from={proxy.name('missing/b:1')} /f /g\n", proxy.name("missing/b:1"), 2),
        (f"{first}\nADD {url} /file\n", url, 3),
        (f"{first}ADD {server.url}/smart/code.git#main /c\n", f"{server.url}/smart/code.git#main", 2),
        (f"# syntax={proxy.name('missing/dockerfile:1')}\n{first}", proxy.name("missing/dockerfile:1"), 1),
    ):
        pybuild.write(Dockerfile=lines)
        server.requests.clear()
        done = pybuild("build", "--locked", ".")
        assert done.returncode == 1
        assert f"{name} is not in Dockerfile.lock" in done.stderr
        assert f"Dockerfile:{line}\n" in done.stderr
        assert f"pybuild lock --update {name}" in done.stderr
        assert server.requests == []
    pybuild.write(Dockerfile=f"{first}ADD {url} /file\n")
    pybuild.ok("lock", "--update", url, ".")
    assert content(pybuild, "--locked") == {"f": "a", "file": "bytes"}


def test_a_file_that_has_changed_is_refused(pybuild: Pybuild, server: Server) -> None:
    url = server.file("/file", b"bytes")
    pybuild.write(Dockerfile=f"FROM scratch\nADD {url} /file\n")
    pybuild.ok("lock", ".")
    server.file("/file", b"other")
    assert content(pybuild, "--locked") == {"file": "bytes"}  # the store has them
    done = elsewhere(pybuild)("build", "--locked", ".")
    assert done.returncode == 1
    expected, got = (hashlib.sha256(each).hexdigest() for each in (b"bytes", b"other"))
    assert f"{url} has changed: got sha256:{got}, locked to sha256:{expected}" in done.stderr
    assert "Dockerfile:2\n" in done.stderr and f"pybuild lock --update {url}" in done.stderr
    pybuild.ok("lock", "--update", url, ".")
    assert content(elsewhere(pybuild), "--locked") == {"file": "other"}


def test_a_commit_that_is_gone_is_refused(pybuild: Pybuild, server: Server, repository: GitRepository) -> None:
    remote = server.smart(repository)
    pybuild.write(Dockerfile=f"FROM scratch\nADD {remote}#main /code\n")
    pybuild.ok("lock", ".")
    commit = repository.git("rev-parse", "HEAD")
    repository.git("checkout", "--quiet", "--orphan", "fresh")
    repository.commit(f="rewritten")
    repository.git("branch", "-M", "main")
    repository.git("reflog", "expire", "--expire=now", "--all")
    repository.git("gc", "--quiet", "--prune=now")
    done = pybuild("build", "--locked", ".")
    assert done.returncode == 1
    assert commit in done.stderr and "Dockerfile:2\n" in done.stderr
    assert f"pybuild lock --update {remote}#main" in done.stderr
    pybuild.ok("lock", "--update", f"{remote}#main", ".")
    assert content(pybuild, "--locked") == {"code/f": "rewritten"}


def test_an_image_that_is_gone_is_refused(pybuild: Pybuild, proxy: FaultProxy, publisher: Publisher) -> None:
    digest = publisher.publish("gone:1", "one")
    name = proxy.name("gone:1")
    pybuild.write(Dockerfile=f"FROM {name}\n")
    pybuild.ok("lock", ".")
    lock = pybuild.cwd / "Dockerfile.lock"
    lock.write_text(lock.read_text().replace(digest, f"sha256:{'0' * 64}"))
    done = pybuild("build", "--locked", ".")
    assert done.returncode == 1
    assert "Dockerfile:1\n" in done.stderr and f"pybuild lock --update {name}" in done.stderr


def test_platforms_share_the_index(pybuild: Pybuild, proxy: FaultProxy, publisher: Publisher) -> None:
    platforms = "linux/amd64,linux/arm64"
    index = publisher.publish("many:1", "one", "--platform", platforms)
    name = proxy.name("many:1")
    pybuild.write(Dockerfile=f"FROM {name}\n")
    pybuild.ok("lock", ".")
    assert lock_of(pybuild)["images"] == {name: {"digest": index}}
    pybuild.ok("lock", "--check", "--platform", platforms, ".")
    publisher.publish("many:1", "two", "--platform", platforms)
    for platform in platforms.split(","):
        assert content(pybuild, "--locked", "--platform", platform) == {"f": "one"}
    assert content(elsewhere(pybuild), "--locked", "--platform", platforms) == {
        "linux_amd64/f": "one",
        "linux_arm64/f": "one",
    }


def test_every_target_that_is_named(pybuild: Pybuild, proxy: FaultProxy, publisher: Publisher) -> None:
    names = {}
    for letter in "abc":
        publisher.publish(f"targets/{letter}:1", letter)
        names[letter] = proxy.name(f"targets/{letter}:1")
    pybuild.write(Dockerfile="".join(f"FROM {name} AS {letter}\n" for letter, name in names.items()))
    pybuild.ok("lock", "--target", "a", "--target", "b", ".")
    assert list(lock_of(pybuild)["images"]) == [names["a"], names["b"]]
    assert content(pybuild, "--locked", "--target", "b") == {"f": "b"}
    done = pybuild("build", "--locked", ".")
    assert done.returncode == 1 and f"{names['c']} is not in Dockerfile.lock" in done.stderr
    assert pybuild.ok("lock", "--target", "c", ".").stdout.split()[::3] == ["removed", "removed", "added"]


def test_names_with_digests(pybuild: Pybuild, proxy: FaultProxy, publisher: Publisher) -> None:
    first, second = (publisher.publish("fixed:1", each) for each in ("one", "two"))
    name = f"{proxy.name('fixed:1')}@{first}"
    pybuild.write(Dockerfile=f"FROM {name}\n")
    pybuild.ok("lock", ".")
    assert lock_of(pybuild)["images"] == {name: {"digest": first}}
    assert content(pybuild, "--locked") == {"f": "one"}
    lock = pybuild.cwd / "Dockerfile.lock"
    lock.write_text(lock.read_text().replace(f'"digest": "{first}"', f'"digest": "{second}"'))
    done = pybuild("build", "--locked", ".")
    assert done.returncode == 1 and f"{name} is locked to {second}" in done.stderr


def test_a_lock_moves_no_unlocked_build(pybuild: Pybuild, proxy: FaultProxy, publisher: Publisher) -> None:
    publisher.publish("still:1", "one")
    pybuild.write(Dockerfile=f"FROM {proxy.name('still:1')}\n")
    assert content(pybuild) == {"f": "one"}
    publisher.publish("still:1", "two")
    pybuild.ok("lock", ".")
    assert content(pybuild) == {"f": "one"}
    assert content(pybuild, "--locked") == {"f": "two"}
    assert content(pybuild) == {"f": "one"}
    pybuild.ok("pull", proxy.name("still:1"))
    publisher.publish("still:1", "three")
    pybuild.ok("lock", ".")  # a pulled image is asked for as well
    assert content(pybuild) == {"f": "two"}
    assert content(pybuild, "--locked") == {"f": "three"}


def test_an_image_that_was_built_here(pybuild: Pybuild) -> None:
    pybuild.write(Dockerfile="FROM scratch\nCOPY f /f\n", f="one")
    pybuild.ok("build", "-t", "own:1", ".")
    pybuild.write(Dockerfile_child="FROM own:1\n")
    words = ("-f", "Dockerfile_child")
    pybuild.ok("lock", *words, ".")
    assert list(lock_of(pybuild, "Dockerfile_child.lock")["images"]) == ["docker.io/library/own:1"]
    pybuild.write(f="two")
    pybuild.ok("build", "-t", "own:1", ".")
    assert content(pybuild, *words) == {"f": "two"}
    assert content(pybuild, *words, "--locked") == {"f": "one"}
    pybuild.ok("lock", *words, "--update", "own:1", ".")
    assert content(pybuild, *words, "--locked") == {"f": "two"}


def test_triggers_are_followed(pybuild: Pybuild, proxy: FaultProxy, publisher: Publisher) -> None:
    publisher.publish("trigger/in:1", "in")
    publisher.publish("trigger/base:1", "base", lines=f"ONBUILD COPY --from={proxy.name('trigger/in:1')} /f /in\n")
    pybuild.write(Dockerfile=f"FROM {proxy.name('trigger/base:1')}\n")
    pybuild.ok("lock", ".")
    publisher.publish("trigger/in:1", "moved")
    assert content(pybuild, "--locked") == {"f": "base", "in": "in"}


def test_contexts_that_are_fetched(pybuild: Pybuild, server: Server, repository: GitRepository) -> None:
    repository.commit(Dockerfile="FROM scratch\nCOPY f /f\nCOPY --from=named f /named\n")
    other = GitRepository(repository.path.parent / "other")
    other.commit(f="named one")
    remote = server.smart(repository)
    words = ("--build-context", f"named={server.smart(other)}", f"{remote}#main")
    assert pybuild("lock", *words).returncode == 2
    pybuild.ok("lock", "-o", "x.lock", *words)
    assert sorted(lock_of(pybuild, "x.lock")["git"]) == sorted([f"{remote}#main", f"{server.smart(other)}#"])
    repository.commit(f="commit two")
    other.commit(f="named two")
    assert pybuild("build", "--locked", *words).returncode == 2
    out = pybuild.cwd / "out"
    pybuild.ok("build", "--locked=x.lock", "-o", str(out), *words)
    assert ((out / "f").read_text(), (out / "named").read_text()) == ("commit one", "named one")


def test_a_checksum_that_the_lock_does_not_have(pybuild: Pybuild, server: Server) -> None:
    url = server.file("/file", b"bytes")
    pybuild.write(Dockerfile=f"FROM scratch\nADD {url} /file\n")
    pybuild.ok("lock", ".")
    other = f"sha256:{hashlib.sha256(b'other').hexdigest()}"
    pybuild.write(Dockerfile=f"FROM scratch\nADD --checksum={other} {url} /file\n")
    done = pybuild("build", "--locked", ".")
    assert done.returncode == 1 and f"its checksum is {other}" in done.stderr


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("{", "not a lock file"),
        ("[]", "not a lock file: it has no version"),
        ('{"version": 2}', "version 2 is not known, expected 1"),
        ('{"version": 1, "imges": {}}', '"imges" is not a section'),
        ('{"version": 1, "images": {"docker.io/library/a:1": {"digest": "sha256:12"}}}', "a:1"),
        ('{"version": 1, "git": {"u#": {"commit": "--upload-pack=x", "object": "", "ref": ""}}}', '"u#" of git'),
        ('{"version": 1, "http": {"u": {"digest": "sha256:' + "0" * 64 + '", "mtime": "1"}}}', '"u" of http'),
    ],
)
def test_malformed_locks(pybuild: Pybuild, source: str, complaint: str) -> None:
    pybuild.write(Dockerfile="FROM scratch\nCOPY . /\n", **{"Dockerfile.lock": source})
    done = pybuild("build", "--locked", ".")
    assert done.returncode == 1 and complaint in done.stderr and "Traceback" not in done.stderr


def test_options_that_contradict(pybuild: Pybuild) -> None:
    pybuild.write(Dockerfile="FROM scratch\nCOPY . /\n")
    pybuild.ok("lock", ".")
    assert lock_of(pybuild) == {"version": 1, "frontend": {}, "git": {}, "http": {}, "images": {}}
    for words in (
        ("build", "--locked", "--pull"),
        ("build", "--locked", "--call=outline"),
        ("lock", "--check", "--update", "x"),
        ("lock", "--update", "x", "--pull"),
        ("lock", "--update", "x"),
        ("lock", "-o", "-"),
    ):
        assert pybuild(*words, ".").returncode == 2, words


def test_no_password_is_written(pybuild: Pybuild, server: Server) -> None:
    server.password = "user:hidden"
    url = server.file("/file", b"bytes").replace("//", "//user:hidden@")
    pybuild.write(Dockerfile=f"FROM scratch\nADD {url} /file\n")
    done = pybuild.ok("lock", ".")
    assert "hidden" not in (pybuild.cwd / "Dockerfile.lock").read_text() + done.stdout + done.stderr
    assert content(elsewhere(pybuild), "--locked") == {"file": "bytes"}
