"""Contexts that are no directory, and repositories as sources, through the command line."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Completed, Pybuild
from tests.remotes import COMMIT_TIME, GitRepository, Server, serving

COPY_ALL = "FROM scratch\nCOPY . /\n"
PASSWORD = "s3cr3t-w0rd"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "served") as served:
        yield served


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    return GitRepository(tmp_path / "x")


def entry(name: str, content: str = "", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mtime = COMMIT_TIME
    for field, value in fields.items():
        setattr(member, field, value)
    return member, content.encode()


def link(name: str, target: str, type: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=type, linkname=target)


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def piped(pybuild: Pybuild, stdin: bytes, *words: str) -> Completed:
    """Run a build with bytes on its standard input."""
    path = pybuild.cwd.parent / "stdin"
    path.write_bytes(stdin)
    with open(path, "rb") as file:
        return pybuild("build", *words, stdin=file)


def tree_of(pybuild: Pybuild, *words: str, stdin: bytes = b"") -> dict[str, tarfile.TarInfo]:
    """Build and return the entries of the flattened root; regular files have their text in `pax_headers`."""
    dest = pybuild.cwd.parent / "flat.tar"
    done = piped(pybuild, stdin, "-o", f"type=tar,dest={dest}", *words)
    assert done.returncode == 0, done.stderr
    found = {}
    with tarfile.open(dest) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            member.pax_headers = {"text": content.read().decode(errors="replace")} if content is not None else {}
            found[member.name.removeprefix("./").rstrip("/")] = member
    return found


def texts(tree: dict[str, tarfile.TarInfo]) -> dict[str, str]:
    return {name: member.pax_headers["text"] for name, member in tree.items() if member.isreg()}


def cached(done: Completed) -> bool:
    return "CACHED" in done.stderr and "DONE" not in done.stderr


def refused(done: Completed, *words: str, code: int = 1) -> None:
    """The command ended with an error that says all this, without a traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def leaks(directory: Path, secret: str) -> list[str]:
    files = [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    return [str(path) for path in files if secret.encode() in path.read_bytes() or secret in path.name]


# Standard input


def zstd(content: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor().compress(content)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress, zstd])
def test_a_tar_on_standard_input(pybuild: Pybuild, compress: type[bytes]) -> None:
    stdin = compress(archive(entry("./Dockerfile", COPY_ALL), entry("./d/f", "f")))
    assert texts(tree_of(pybuild, "-", stdin=stdin)) == {"Dockerfile": COPY_ALL, "d/f": "f"}


def test_what_a_tar_says_of_its_files_is_kept(pybuild: Pybuild) -> None:
    owned = {"uid": 1000, "gid": 1001, "mode": 0o4750}
    stdin = archive(
        entry("Dockerfile", COPY_ALL),
        entry(".dockerignore", "ignored\n"),
        entry("ignored", "as BuildKit does it"),
        entry("f", "f", **owned),
        link("l", "f"),
        entry("h", type=tarfile.LNKTYPE, linkname="f", **owned),
        entry("d", type=tarfile.DIRTYPE, mode=0o700, uid=5),
        entry("p", type=tarfile.FIFOTYPE, mode=0o600),
    )
    tree = tree_of(pybuild, "-", stdin=stdin)
    assert sorted(tree) == [".dockerignore", "Dockerfile", "d", "f", "h", "ignored", "l", "p"]
    first = next(member for name, member in tree.items() if name in ("f", "h"))
    assert (first.uid, first.gid, first.mode, first.mtime) == (1000, 1001, 0o4750, COMMIT_TIME)
    assert (tree["d"].uid, tree["d"].mode) == (5, 0o700)
    assert tree["p"].isfifo()
    assert {tree["f"].islnk(), tree["h"].islnk()} == {False, True}


def test_tars_that_begin_with_an_extended_header(pybuild: Pybuild, repository: GitRepository) -> None:
    repository.commit(Dockerfile=COPY_ALL, f="f")
    repository.git("archive", "--output=../of-git.tar", "HEAD")
    assert texts(tree_of(pybuild, "-", stdin=(repository.path.parent / "of-git.tar").read_bytes()))["f"] == "f"
    long = "/".join(["long" * 40] * 8)
    tree = tree_of(pybuild, "-", stdin=archive(entry(long, "l"), entry("Dockerfile", COPY_ALL)))
    assert texts(tree)[long] == "l"


def test_the_same_tar_is_all_cached_and_another_only_where_it_matters(pybuild: Pybuild, based: list[str]) -> None:
    dockerfile = "FROM base\nCOPY a /\nRUN echo ran\n"
    first, same, other, changed = (
        archive(entry("Dockerfile", dockerfile), entry("a", text), entry("b", rest, mtime=time))
        for text, rest, time in (("1", "1", 1), ("1", "1", 1), ("1", "2", 2), ("2", "2", 2))
    )
    assert not cached(piped(pybuild, first, *based, "-"))
    assert cached(piped(pybuild, same, *based, "-"))
    assert "[2/3] COPY a /\n#1 CACHED" in piped(pybuild, other, *based, "-").stderr.replace("#2", "#1")
    assert not cached(piped(pybuild, changed, *based, "-"))


def test_the_dockerfile_of_a_tar_is_where_f_says(pybuild: Pybuild) -> None:
    stdin = archive(entry("d/x.Dockerfile", COPY_ALL), entry("f", "f"), link("l", "/d/x.Dockerfile"))
    for name in ("d/x.Dockerfile", "/d/x.Dockerfile", "l"):
        assert "f" in tree_of(pybuild, "-f", name, "-", stdin=stdin)
    refused(piped(pybuild, stdin, "-"), "open Dockerfile: no such file or directory", "name the Dockerfile with -f")


def test_a_lower_case_dockerfile_will_do(pybuild: Pybuild, tmp_path: Path) -> None:
    assert "f" in tree_of(pybuild, "-", stdin=archive(entry("dockerfile", COPY_ALL), entry("f", "f")))
    pybuild.write(dockerfile=COPY_ALL, f="f")
    assert "f" in tree_of(pybuild, ".")


def test_a_dockerfile_on_standard_input_has_no_context(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(f="not in the context")
    dockerfile = b"FROM base\nCOPY <<x /inline\ninline\nx\nRUN test -f /inline\nCOPY . /d/\n" + b"# " + b"x" * 3000
    tree = tree_of(pybuild, *based, "-", stdin=dockerfile)
    assert tree["inline"].pax_headers["text"] == "inline\n"
    assert not any(name.startswith("d/") for name in tree)
    refused(piped(pybuild, b"FROM scratch\nCOPY f /\n", "-"), '"/f": not found', ":2")


def test_a_dockerfile_on_standard_input_with_another_context(
    pybuild: Pybuild, repository: GitRepository, server: Server
) -> None:
    pybuild.write(f="directory")
    repository.commit(f="git")
    url = server.file("/c.tar", archive(entry("f", "tar")))
    for context, text in ((".", "directory"), (server.smart(repository), "git"), (url, "tar")):
        stdin = b"FROM scratch\nCOPY f /g\n"
        assert texts(tree_of(pybuild, "-f", "-", context, stdin=stdin)) == {"g": text}


def test_standard_input_is_only_one_thing(pybuild: Pybuild) -> None:
    refused(piped(pybuild, b"FROM scratch\n", "-f", "-", "-"), "both the context and the Dockerfile", code=2)
    refused(piped(pybuild, b"FROM scratch\n", "-f", "x", "-"), "two Dockerfiles", code=2)
    refused(piped(pybuild, b"", "-"), "standard input is empty")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (archive(entry("Dockerfile", COPY_ALL), entry("f", "x" * 5000))[:3000], "truncated"),
        (gzip.compress(archive(entry("Dockerfile", COPY_ALL)))[:-20], "truncated"),
        (gzip.compress(b"FROM scratch\n" * 100), "tar stream"),
        (b"\x1f\x8b\x08" + b"\0" * 7 + b"\xff" * 600, "gzip stream is broken"),
        (archive(entry("Dockerfile", COPY_ALL), entry("Dockerfile/f", "")), "Dockerfile/f"),
        (archive(link(".", "/tmp")), "only a directory can be the destination"),
        (archive(entry("Dockerfile", type=tarfile.DIRTYPE)), "is a directory"),
        (archive(entry("Dockerfile", type=tarfile.FIFOTYPE)), "failed to read dockerfile"),
        (archive(entry("x", type=b"Z")), 'type "Z" is not supported'),
    ],
    ids=range(9),
)
def test_a_broken_tar_is_an_error(pybuild: Pybuild, broken: bytes, words: str) -> None:
    refused(piped(pybuild, broken, "-"), words)
    assert [path.name for path in (pybuild.root / "snapshots").iterdir()] in (["empty"], ["1", "empty"], ["empty", "1"])


def test_nothing_in_a_tar_leaves_the_context(pybuild: Pybuild, tmp_path: Path) -> None:
    """CVE-2020-10696, CVE-2026-44517."""
    canary = tmp_path / "host"
    canary.mkdir()
    (canary / "kept").write_text("canary")
    members = [
        entry("Dockerfile", COPY_ALL),
        entry(f"{canary}/absolute", "absolute"),
        entry("../" * 40 + str(canary / "climbed")[1:], "climbed"),
        link("a", str(canary)),
        entry("a/b", "through a link"),
        link("up", "../" * 40 + str(canary)[1:]),
        entry("up/c", "through a relative link"),
    ]
    inside = str(canary)[1:]
    tree = tree_of(pybuild, "-", stdin=archive(*members))
    assert {f"{inside}/{name}" for name in ("absolute", "b", "c", "climbed")} <= set(tree)
    stolen = link("read", str(canary / "kept"), tarfile.LNKTYPE)
    refused(piped(pybuild, archive(*members, stolen), "-"), "cannot unpack")
    assert [(path.name, path.read_text()) for path in canary.iterdir()] == [("kept", "canary")]


def test_a_dockerfile_that_is_a_link_stays_in_the_context(pybuild: Pybuild, tmp_path: Path) -> None:
    (tmp_path / "host").write_text("FROM scratch\nLABEL of=host\n")
    for target in (
        str(tmp_path / "host"),
        "../" * 40 + str(tmp_path / "host")[1:],
        "/proc/self/root" + str(tmp_path / "host"),
    ):
        refused(piped(pybuild, archive(link("Dockerfile", target)), "-"), "failed to read dockerfile")


def test_memory_of_a_large_tar(pybuild: Pybuild, tmp_path: Path) -> None:
    member = tarfile.TarInfo("big")
    member.size = 512 << 20
    with open(tmp_path / "big.tar", "wb") as file:
        dockerfile, content = entry("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")
        file.write(archive((dockerfile, content))[:1024] + member.tobuf())
        file.truncate(file.tell() + member.size + 1024)
    measure = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    with open(tmp_path / "big.tar", "rb") as stdin:
        done = subprocess.run(
            [sys.executable, "-c", measure, *pybuild.argv("build", "-")],
            cwd=pybuild.cwd,
            env=pybuild.environment(),
            stdin=stdin,
            capture_output=True,
            text=True,
            check=True,
        )
    assert int(done.stdout) < 150 * 1024


# Git


def test_a_repository_as_context(pybuild: Pybuild, repository: GitRepository, server: Server) -> None:
    repository.commit(Dockerfile=COPY_ALL, f="1", **{".dockerignore": "f\n"})
    repository.git("tag", "v1")
    repository.commit(f="2", sub__Dockerfile="FROM scratch\nCOPY g /\n", sub__g="g", other="FROM scratch\nCOPY f /o\n")
    url = server.smart(repository)
    tree = tree_of(pybuild, url)
    assert texts(tree)["f"] == "2"
    assert (tree["f"].uid, tree["f"].mode, tree["f"].mtime) == (0, 0o644, COMMIT_TIME + 1)
    assert not any(name.startswith(".git/") for name in tree)
    assert texts(tree_of(pybuild, f"{url}#v1"))["f"] == "1"
    assert texts(tree_of(pybuild, f"{url}?tag=v1"))["f"] == "1"
    assert texts(tree_of(pybuild, f"{url}#main:sub")) == {"g": "g"}
    assert texts(tree_of(pybuild, "-f", "other", url)) == {"o": "2"}
    assert texts(tree_of(pybuild, "-f", "sub/../other", f"{url}#:")) == {"o": "2"}
    assert cached(pybuild.ok("build", f"{url}#v1"))


def test_an_absolute_dockerfile_is_one_of_this_machine(
    pybuild: Pybuild, repository: GitRepository, server: Server
) -> None:
    repository.commit(f="f")
    pybuild.write(mine="FROM scratch\nCOPY f /mine\n")
    assert texts(tree_of(pybuild, "-f", str(pybuild.cwd / "mine"), server.smart(repository))) == {"mine": "f"}
    refused(pybuild("build", "-f", "mine", server.smart(repository)), "open mine: no such file or directory")


def test_the_git_directory_of_a_context_can_be_kept(
    pybuild: Pybuild, based: list[str], repository: GitRepository, server: Server
) -> None:
    repository.commit(Dockerfile="FROM base\nRUN --mount=target=/src cp /src/.git/HEAD /head || echo none > /head\n")
    url = server.smart(repository)
    assert texts(tree_of(pybuild, *based, url))["head"] == "none\n"
    keep = ["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"]
    assert texts(tree_of(pybuild, *based, *keep, url))["head"] == repository.git("rev-parse", "HEAD") + "\n"
    assert "head" in tree_of(pybuild, *based, f"{url}?keep-git-dir=1")


def test_a_directory_is_never_taken_for_a_repository(pybuild: Pybuild) -> None:
    pybuild.write(**{"github.com__a__b__Dockerfile": COPY_ALL, "github.com__a__b__f": "local"})
    assert texts(tree_of(pybuild, "github.com/a/b"))["f"] == "local"


@pytest.mark.parametrize(
    ("suffix", "words"),
    [
        ("#nothing", 'no branch or tag "nothing"'),
        ("#main:nothing", 'no directory "nothing"'),
        ("#main:link", '"link" is not a directory of the repository'),
        ("#main:Dockerfile", '"Dockerfile" is not a directory of the repository'),
        ("?bogus=1", 'unexpected git query "bogus"'),
        ("?checksum=1111", "expected commit 1111, got"),
        ("#main:empty", "open Dockerfile: no such file"),
    ],
)
def test_errors_of_a_repository(
    pybuild: Pybuild, repository: GitRepository, server: Server, suffix: str, words: str
) -> None:
    """CVE-2026-33748 is among them."""
    repository.write(Dockerfile=COPY_ALL, empty__f="")
    (repository.path / "link").symlink_to("/etc")
    repository.commit()
    refused(pybuild("build", server.smart(repository) + suffix), words)


def test_errors_of_remote_contexts(pybuild: Pybuild, server: Server) -> None:
    for url, words in (
        ("http://127.0.0.1:1/x.git", "check the address"),
        (f"{server.url}/files/x.git", "not found"),
        (f"{server.url}/files/x.tar", "answered 404"),
        ("http://127.0.0.1:1/x.tar", "check the address"),
        (server.file("/empty", b""), "the Dockerfile cannot be empty"),
        ("ftp://127.0.0.1/x.tar", "cannot be read"),
        ("file:///x.git", "cannot be read"),
        (server.file("/b.tar.gz", gzip.compress(b"x" * 2000)), "cannot unpack"),
    ):
        refused(pybuild("build", url), words)


# URLs


def test_an_archive_behind_a_url(pybuild: Pybuild, server: Server) -> None:
    content = archive(entry("Dockerfile", COPY_ALL), entry("f", "f", uid=7), entry("x", "FROM scratch\nCOPY f /x\n"))
    url = server.file("/c.tar.gz", gzip.compress(content))
    tree = tree_of(pybuild, url)
    assert (texts(tree)["f"], tree["f"].uid) == ("f", 7)
    assert texts(tree_of(pybuild, "-f", "x", f"{url}")) == {"x": "f"}
    assert cached(pybuild.ok("build", url))
    server.file("/c.tar.gz", archive(entry("Dockerfile", COPY_ALL), entry("f", "new")))
    assert texts(tree_of(pybuild, url))["f"] == "new"


def test_a_dockerfile_behind_a_url(pybuild: Pybuild, server: Server) -> None:
    url = server.file("/some/Dockerfile", b"FROM scratch\nCOPY context /f\n")
    assert texts(tree_of(pybuild, url)) == {"f": "FROM scratch\nCOPY context /f\n"}
    pybuild.write(context="from the directory")
    assert texts(tree_of(pybuild, "-f", url, ".")) == {"f": "from the directory"}
    refused(pybuild("build", "-f", f"{server.url}/files/no", "."), "answered 404")


# Named contexts


def test_named_contexts_from_elsewhere(
    pybuild: Pybuild, based: list[str], repository: GitRepository, server: Server
) -> None:
    commit = repository.commit(f="git", d__g="g")
    repository.commit(f="newer")
    pybuild.write(
        Dockerfile="FROM base\nCOPY --from=repo f /a\nCOPY --from=file context /b\n"
        "RUN --mount=from=repo,target=/r cp /r/d/g /c\nFROM repo\nCOPY --from=0 /a /b /c /out/\n"
    )
    named = ["--build-context", f"repo={server.smart(repository)}#{commit}"]
    named += ["--build-context", f"file={server.file('/f', b'file')}"]
    named += ["--build-context", "unused=http://127.0.0.1:1/x.git"]
    tree = tree_of(pybuild, *based, *named, ".")
    wanted = {"out/a": "git", "out/b": "file", "out/c": "g", "f": "git", "d/g": "g"}
    assert texts(tree) == wanted
    assert tree["out/b"].mode == 0o600
    assert cached(pybuild.ok("build", *based, *named, "."))


@pytest.mark.parametrize("kind", ["directory", "repository"])
def test_a_stage_replaced_by_a_context_is_a_base_like_any_other(
    pybuild: Pybuild, busybox: Path, repository: GitRepository, server: Server, kind: str
) -> None:
    repository.commit(f="f")
    (repository.path / "sh").write_bytes(busybox.read_bytes())
    (repository.path / "sh").chmod(0o755)
    repository.commit()
    value = server.smart(repository)
    if kind == "directory":
        repository.git("clone", "--quiet", ".", str(pybuild.cwd / "files"))
        value = "files"
        pybuild.write(**{"files__.dockerignore": ".*\n"})
    named = ["--build-context", f"foo={value}"]
    pybuild.write(
        target="FROM nothing AS foo\nRUN nothing\n",
        base='FROM nothing AS foo\nFROM foo\nRUN ["/sh", "-c", "echo ran > /r"]\nCOPY --from=foo f /again\n',
        copied="FROM nothing AS foo\nFROM foo\nCOPY target /t\n",
    )
    assert sorted(texts(tree_of(pybuild, *named, "-f", "target", "."))) == ["f", "sh"]
    assert sorted(texts(tree_of(pybuild, *named, "-f", "base", "."))) == ["again", "f", "r", "sh"]
    assert sorted(texts(tree_of(pybuild, *named, "-f", "copied", "."))) == ["f", "sh", "t"]


def test_a_named_context_that_is_a_stage(pybuild: Pybuild, based: list[str]) -> None:
    text = "FROM base AS made\nENV A=1\nRUN echo one > /one\nFROM nowhere AS over\nRUN nothing\n"
    text += (
        "FROM app:1\nCOPY --from=other /one /two\nRUN --mount=from=app,target=/m cat /m/one /two > /o; echo $A >> /o\n"
    )
    pybuild.write(Dockerfile=text)
    names = [word for name in ("app:1", "app", "other") for word in ("--build-context", f"{name}=target:Made")]
    assert texts(tree_of(pybuild, *based, *names, "."))["o"] == "one\none\n1\n"
    for name, stage in (("app:1", "nosuch"), ("app:1", "later")):
        pybuild.write(Dockerfile="FROM app:1\nFROM scratch AS later\n")
        refused(
            pybuild("build", "--build-context", f"{name}=target:{stage}", "."), f'there is no stage "{stage}" above'
        )


def test_a_named_context_of_another_kind(pybuild: Pybuild) -> None:
    pybuild.write(Dockerfile="FROM x\n")
    refused(pybuild("build", "--build-context", "x=ftp://host/x", "."), "unsupported kind", "git or http URL", code=2)
    refused(pybuild("build", "--build-context", "x=http://127.0.0.1:1/x.git", "."), "git ls-remote failed")


# ADD of a repository


def test_add_of_a_repository(pybuild: Pybuild, repository: GitRepository, server: Server) -> None:
    repository.commit(f="1", d__g="g")
    repository.git("tag", "v1")
    second = repository.commit(f="2")
    url = server.smart(repository)
    pybuild.write(
        Dockerfile=f"FROM scratch\nADD {url} /a\nADD {url}#v1 /b/\nADD {url}#main:d /c\n"
        f"ADD --keep-git-dir {url} /k\nADD --checksum={second} --chown=3:4 --chmod=700 {url} /m\n"
        f"ADD --link {url}?ref=v1&subdir=d /l\nADD --exclude=f {url} /e\n"
    )
    tree = tree_of(pybuild, ".")
    found = {name: text for name, text in texts(tree).items() if "/.git/" not in name}
    whole = {"a": "2", "b": "1", "k": "2", "m": "2"}
    assert found == {
        **{f"{name}/f": text for name, text in whole.items()},
        **{f"{name}/d/g": "g" for name in whole},
        **{"c/g": "g", "l/g": "g", "e/d/g": "g"},
    }
    assert tree["a/f"].mtime == COMMIT_TIME + 1
    assert texts(tree)["k/.git/HEAD"] == second + "\n"
    assert (tree["m/f"].uid, tree["m/f"].gid, tree["m/f"].mode) == (3, 4, 0o700)
    assert cached(pybuild.ok("build", "."))
    repository.commit(f="3")
    refused(pybuild("build", "."), f"expected commit {second}")


def test_a_moved_branch_rebuilds_and_an_unmoved_does_not(
    pybuild: Pybuild, based: list[str], repository: GitRepository, server: Server
) -> None:
    repository.commit(f="1")
    pybuild.write(Dockerfile=f"FROM base\nADD {server.smart(repository)} /a\nRUN cat /a/f > /b\n")
    assert texts(tree_of(pybuild, *based, "."))["b"] == "1"
    assert cached(pybuild.ok("build", *based, "."))
    repository.commit(f="1", other="")
    repository.git("commit", "--quiet", "--amend", "--message=other")
    assert not cached(pybuild.ok("build", *based, "."))
    repository.commit(f="2")
    assert texts(tree_of(pybuild, *based, "."))["b"] == "2"


def test_an_error_of_add_has_its_place(pybuild: Pybuild, repository: GitRepository, server: Server) -> None:
    repository.commit(f="1")
    pybuild.write(Dockerfile=f"FROM scratch\n\nADD {server.smart(repository)}#nothing /a\n")
    refused(pybuild("build", "."), "Dockerfile:3", "ADD http", 'no branch or tag "nothing"')


def test_a_token_for_add_comes_from_a_secret(pybuild: Pybuild, repository: GitRepository, server: Server) -> None:
    repository.commit(Dockerfile=COPY_ALL, f="private")
    server.password = f"x-access-token:{PASSWORD}"
    pybuild.write(Dockerfile=f"FROM scratch\nADD {server.smart(repository)} /\n")
    refused(pybuild("build", "."), "--secret id=GIT_AUTH_TOKEN", "Dockerfile:2")
    secret = ["--secret", "id=GIT_AUTH_TOKEN,env=TOKEN"]
    pybuild.ok("build", *secret, ".", env={"TOKEN": PASSWORD})
    pybuild.ok("build", *secret, server.smart(repository), env={"TOKEN": PASSWORD})
    assert leaks(pybuild.root, PASSWORD) == []


@pytest.mark.parametrize("progress", ["plain", "json"])
def test_passwords_in_urls_are_shown_and_kept_nowhere(
    pybuild: Pybuild, repository: GitRepository, server: Server, tmp_path: Path, progress: str
) -> None:
    """CVE-2023-26054."""
    server.password = f"user:{PASSWORD}"
    server.file("/f", b"file")
    user = f"user:{PASSWORD}"
    url = server.smart(repository, user)
    file = server.url.replace("//", f"//{user}@") + "/f"
    repository.commit(Dockerfile="", f="f", d__g="g")
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(
        f"FROM scratch\nCOPY .git /.git\nADD {url}?keep-git-dir=1 /a/\nADD {url}#main:d /c/\nADD {file} /b\n"
    )
    words = ["--progress", progress, "--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", "-f", str(dockerfile)]
    for attempt in range(2):
        done = pybuild.ok("build", *words, "-o", f"type=oci,tar=false,dest={tmp_path / 'out'}", url)
        assert PASSWORD not in done.stdout + done.stderr, attempt
    assert leaks(tmp_path / "out", PASSWORD) == []
    assert leaks(pybuild.root, PASSWORD) == []


def test_passwords_are_not_in_errors(pybuild: Pybuild, repository: GitRepository, server: Server) -> None:
    server.password = "user:other"
    repository.commit(f="f")
    url = server.smart(repository, f"user:{PASSWORD}")
    pybuild.write(Dockerfile=f"FROM scratch\nADD {url} /\n", named="FROM n\n")
    for words in (
        [url],
        ["."],
        ["-f", "named", "--build-context", f"n={url}", "."],
        [f"{url}?bogus=1"],
        [url + ".tar"],
    ):
        done = pybuild("build", *words)
        assert done.returncode == 1
        assert PASSWORD not in done.stdout + done.stderr
    assert leaks(pybuild.root, PASSWORD) == []


def test_ssh_for_a_context_uses_the_users_agent(
    pybuild: Pybuild, repository: GitRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssh").write_text(
        '#!/bin/sh\ntest "$SSH_AUTH_SOCK" = "$WANTED" || exit 1\nfor last; do :; done\nexec sh -c "$last"\n'.replace(
            "$WANTED", str(tmp_path / "agent")
        )
    )
    (tmp_path / "bin/ssh").chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "agent"))
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SSH_AUTH_SOCK": str(tmp_path / "agent")}
    repository.commit(Dockerfile=COPY_ALL)
    context = f"git@host:{repository.path / '.git'}"
    pybuild.ok("build", context, env=env)
    pybuild.write(Dockerfile=f"FROM scratch\nADD {context} /\n")
    refused(pybuild("build", ".", env=env), "no ssh agent", "--ssh default")
    pybuild.ok("build", "--ssh", "default", ".", env=env)


@pytest.mark.parametrize("where", ["context", "ADD"])
def test_an_interrupt_ends_git_too(pybuild: Pybuild, where: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.git"
        pybuild.write(Dockerfile=f"FROM scratch\nADD {url}#{'1' * 40} /\n")
        context = url if where == "context" else "."
        argv = pybuild.argv("build", context)
        process = subprocess.Popen(argv, cwd=pybuild.cwd, env=pybuild.environment(), stderr=subprocess.PIPE)
        connection, _ = silent.accept()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 130, stderr.decode()
        with connection:
            while connection.recv(4096):  # ends only when nobody holds the other end any more
                pass


def test_other_commands_take_every_context(pybuild: Pybuild, repository: GitRepository, server: Server) -> None:
    repository.commit(Dockerfile="FROM scratch AS one\nCOPY . /\n")
    url = server.smart(repository)
    assert "COPY . /" in pybuild.ok("graph", url).stdout
    assert "one" in pybuild.ok("build", "--call=targets", url).stdout
    assert pybuild.ok(url).stdout.startswith("sha256:")
