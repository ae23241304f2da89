"""Attacks on what must not get out: secrets, passwords of URLs, agents."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from tests.attacks.catalogue import attack
from tests.attacks.scene import Scene
from tests.remotes import GitRepository

AREA = "Secrets"
SECRET = "kGz7-canary-secret-Qw3"


def found_in(top: Path, secret: str = SECRET) -> list[str]:
    """The files below a directory that hold the secret."""
    return [str(path) for path in top.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@attack(
    AREA,
    "generic; CVE-2019-13139",
    "find a secret after the build: in layers, the store, the history, the manifest, logs and errors; as a file, as a "
    "variable, in a cache, after a crash, after a failed step, in what `--metadata-file` and `-o` write",
    "nowhere; a mount point that was made for it is gone",
)
def secrets_that_stay(scene: Scene) -> None:
    scene.file("s", SECRET)
    dockerfile = (
        "FROM base\n"
        "RUN --mount=type=secret,id=s test -s /run/secrets/s\n"
        "RUN --mount=type=secret,id=s,target=/made/for/it,mode=0444 cd /; test -s /made/for/it; /probe crash; true\n"
        'RUN --mount=type=secret,id=s,env=TOKEN test -n "$TOKEN"; /probe crash; true\n'
        "RUN --mount=type=secret,id=s --mount=type=cache,target=/run/secrets test -e /run/secrets/s; true\n"
        "RUN --mount=type=secret,id=s,target=/etc/hosts2 ln /etc/hosts2 /stolen || mv /etc/hosts2 /stolen; true\n"
        "CMD ls -R /run /made; ls /stolen /core* \n"
    )
    words = ["--secret=id=s,src=s", "-t", "x", "--metadata-file", "meta.json", "-o", "type=oci,dest=out.tar"]
    words += ["-o", "type=local,dest=out"]
    done = scene.ok(scene.build(dockerfile, *words))
    failing = "FROM base\nRUN --mount=type=secret,id=s,env=TOKEN sh -c 'false'\n"
    failed = scene.refused(scene.build(failing, "--secret=id=s,src=s", "--progress=json"))
    assert SECRET not in done.stdout + done.stderr + failed.stdout + failed.stderr
    assert SECRET not in scene("history", "x").stdout + scene("inspect", "x").stdout
    (scene.cwd / "s").unlink()
    assert not found_in(scene.root)
    assert not found_in(scene.cwd)
    assert "/run/secrets/s" not in scene("run", "--rm", "x").stdout


@attack(
    AREA,
    "CVE-2023-26054",
    "a password in the URL of a context, of ADD, in the origin of a repository; builds that work and builds that fail",
    "it is in no image, log, error, key, or file of the store",
)
def passwords_of_urls(scene: Scene) -> None:
    repository = GitRepository(scene.scratch / "repository")
    repository.commit(Dockerfile="FROM scratch\nCOPY . /\n", f="f")
    with scene.server() as server:
        url = server.smart(repository, f"user:{SECRET}")
        server.password = f"user:{SECRET}"
        words = ("--metadata-file", "meta.json", "-o", "type=oci,dest=out.tar")
        said = [scene.ok(scene("build", *words, url))]
        said.append(scene.ok(scene.build(f"FROM scratch\nADD --keep-git-dir=true {url} /git\n", *words)))
        said.append(scene("build", url.replace("repository", "nowhere")))
        said.append(scene.build(f"FROM scratch\nADD {url.replace('.git', '.tar')} /x\n"))
        server.password = "other"
        said.append(scene.refused(scene("build", url + "#other")))
    (scene.cwd / "Dockerfile").unlink()
    assert not [done.args for done in said if SECRET in done.stdout + done.stderr.replace(f"ADD {url}", "")]
    assert not found_in(scene.root)
    assert not found_in(scene.cwd)


@attack(
    AREA,
    "generic",
    "--ssh with a file that is no socket: private keys, host files; the socket left in the image",
    "only a socket is handed in, and only to steps that ask for it",
)
def agents_that_are_files(scene: Scene) -> None:
    done = scene.build("FROM base\nRUN --mount=type=ssh cat $SSH_AUTH_SOCK\n", f"--ssh=default={scene.host}/canary")
    assert "alive" not in [line.rpartition(" ")[2] for line in done.stderr.splitlines()]
    path = scene.scratch / "agent"
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(path))
        scene.give(path)
        dockerfile = "FROM base\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK\nRUN ! ls /run/buildkit\n"
        scene.ok(scene.build(dockerfile, f"--ssh=default={path}", "-o", "type=local,dest=out"))
    assert not os.path.exists(scene.cwd / "out/run/buildkit/ssh_agent.0")
