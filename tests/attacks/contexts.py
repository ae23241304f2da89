"""Attacks by what is built: git repositories, tars from servers, links in directories, Dockerfiles."""

from __future__ import annotations

import os
import tarfile

from tests.attacks.catalogue import attack
from tests.attacks.scene import Member, Scene, printed, tar_of
from tests.remotes import GitRepository

AREA = "Contexts and sources"


@attack(
    AREA,
    "CVE-2026-33748, CVE-2024-32002",
    "a repository whose subdirectory, Dockerfile, .git, .gitmodules or submodule path is a link out, or climbs "
    "with `..`",
    "refused, or a link as any other; nothing outside is read or written",
)
def repositories_with_links(scene: Scene) -> None:
    repository = GitRepository(scene.scratch / "repository")
    repository.write(Dockerfile="FROM base\nCOPY . /c\nRUN cat /c/* /c/*/* ; true\n", real__Dockerfile="FROM base\n")
    for name, target in {
        "sub": str(scene.host),
        "up": "../../../../.." + str(scene.host),
        "g": ".git",
        "root": "/",
    }.items():
        (repository.path / name).symlink_to(target)
    repository.write(**{".gitmodules": f'[submodule "x"]\n\tpath = sub/x\n\turl = {scene.host}\n'})
    repository.commit()
    with scene.server() as server:
        url = server.smart(repository)
        base = ["--build-context", f"base=oci-layout://{scene.base_layout}", "--progress=plain"]
        for part in ("#main:sub", "#main:up", "#main:root", "#main:g", "#main:sub/dir"):
            done = scene.refused(scene("build", *base, url + part))
            assert "alive" not in done.stderr
        done = scene("build", *base, url)
        assert "alive" not in printed(done)
        done = scene.build(f"FROM base\nADD {url}#main:sub /a\n")
        assert "alive" not in done.stderr


@attack(
    AREA,
    "CVE-2017-1000117, CVE-2022-39253, CVE-2018-11235",
    "URLs and references that are options, ext:: transports, local paths; hooks, filters, fsmonitor and "
    "attributes of a "
    "repository",
    "refused; nothing of a repository is run",
)
def programs_of_a_repository(scene: Scene) -> None:
    trap = f"touch {scene.host}/trap"
    repository = GitRepository(scene.scratch / "repository")
    repository.write(Dockerfile="FROM base\n", **{".gitattributes": "* filter=evil\n", ".gitconfig": "[core]\n"})
    repository.commit()
    for name in ("post-checkout", "post-merge", "pre-commit"):
        hook = repository.path / ".git/hooks" / name
        hook.write_text(f"#!/bin/sh\n{trap}\n")
        hook.chmod(0o755)
    repository.git("config", "core.fsmonitor", trap)
    repository.git("config", "filter.evil.smudge", trap)
    with scene.server() as server:
        url = server.smart(repository)
        scene.build(
            f"FROM base\nADD --keep-git-dir=true {url} /git\nRUN cat /git/.git/config; ls /git/.git/hooks; true\n"
        )
        for source in (
            f"ext::sh -c {trap}",
            f"git@--upload-pack={trap}:x.git",
            f"ssh://-oProxyCommand={trap}/x.git",
            f"{url}#--upload-pack={trap}",
            f"git://--upload-pack={trap}/x.git",
            "https://-x/y.git",
        ):
            scene("build", source)
            scene.build(f'FROM base\nADD ["{source}", "/x"]\n')


@attack(
    AREA,
    "CVE-2020-10696, CVE-2026-44517",
    "an HTTP server that gives out tars with links, absolute names and `..`, names with slashes, redirects to "
    "file: and "
    "to metadata addresses",
    "unpacked as any other archive; only http and https are followed",
)
def archives_of_a_server(scene: Scene) -> None:
    tar = tar_of(
        Member("Dockerfile", content=b"FROM scratch\nCOPY . /\n"),
        Member("a", tarfile.SYMTYPE, link=str(scene.host)),
        Member("a/canary", content=b"dead"),
        Member(str(scene.host / "canary"), content=b"dead"),
    )
    up = tar_of(Member("../../../../../../.." + str(scene.host / "canary"), content=b"dead"))
    with scene.server() as server:
        for url in (server.file("/c.tar", tar), server.file("/up.tar", up)):
            scene("build", url)
            scene.build(f"FROM base\nADD --unpack=true {url} /x/\n")
        server.redirects["/file"] = f"file://{scene.host}/canary"
        server.redirects["/dots"] = f"{server.url}/..%2f..%2fcanary"
        server.files["/..%2f..%2fcanary"] = b"dead"
        scene.refused(scene.build(f"FROM base\nADD {server.url}/file /x/\n"))
        scene.build(f"FROM base\nADD {server.url}/dots /x/\n")
        scene.refused(scene("build", f"file://{scene.host}"))


@attack(
    AREA,
    "generic",
    "links in a directory: to the host by name and in directories, as Dockerfile and .dockerignore; a fifo, a "
    "device, a "
    "socket; COPY of `..` and of absolute names",
    "a context ends at its directory: links are copied as links, `..` stays below; nothing hangs",
)
def directories_with_links(scene: Scene) -> None:
    (scene.cwd / "out").symlink_to(scene.host)
    (scene.cwd / "d").mkdir()
    (scene.cwd / "d/canary").symlink_to(scene.host / "canary")
    os.mkfifo(scene.cwd / "fifo")
    scene.give(scene.cwd)
    for line in (
        "COPY out/canary /x",
        "COPY ../scratch/host/canary /x",
        f"COPY {scene.host}/canary /x",
        "COPY d /d\nRUN cat /d/canary",
        "COPY out /x\nRUN cat /x/canary",
        "COPY --parents=true ./out/./canary /x",
        "COPY o*t/c* /x",
    ):
        done = scene.build(f"FROM base\n{line}\nRUN cat /x\n")
        assert "alive" not in printed(done)
        assert done.returncode == 1
    scene.build("FROM base\nCOPY . /c\n")
    (scene.cwd / ".dockerignore").symlink_to(scene.host / "canary")
    assert "alive" not in scene.build("FROM base\nCOPY . /c\n").stderr


@attack(
    AREA,
    "generic",
    "Dockerfiles that are fifos, devices, directories, 100 MB, binary; words that nest and repeat without end; "
    "stages that "
    "name each other",
    "an error in time",
)
def dockerfiles_without_end(scene: Scene) -> None:
    nested = "${a:-" * 5000 + "x" + "}" * 5000
    for text in (
        f"FROM base\nARG a\nENV b={nested}\n",
        "FROM base\n" + "ENV A=$A$A\n" * 5000,
        "FROM a AS b\nFROM b AS a\n",
        "FROM base\nRUN " + "<<A " * 2000 + "\n",
        "FROM base\nENV A=\0\n",
        "# syntax=" + "x" * 100_000 + "\nFROM base\n",
        "FROM base\n" + "\\\n" * 200_000,
        "ARG A=1\n" * 100 + "FROM ${A" + ":-${A" * 200 + "}" * 200 + "\n",
    ):
        scene.build(text, "--call=check")
    for name in ("/dev/zero", ".", "/proc/self/mem"):
        scene.refused(scene("build", "-f", name, "."))
    for kind, link in ((tarfile.FIFOTYPE, ""), (tarfile.SYMTYPE, str(scene.host / "canary")), (tarfile.DIRTYPE, "")):
        archive = scene.file("context.tar", tar_of(Member("Dockerfile", kind, link=link)))
        with archive.open("rb") as stdin:
            assert "alive" not in scene.refused(scene("build", "-", stdin=stdin)).stderr
