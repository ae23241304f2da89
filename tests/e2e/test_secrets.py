"""No secret that a build was given is anywhere afterwards: not in the store, not in an output, not in a log."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import shutil
import sqlite3
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import zstandard

from cache.store import Store
from tests.conftest import Pybuild, require
from tests.remotes import GitRepository, Server, serving

FILE, ENV, TOKEN, PASSWORD, PROXY = (
    f"{name}-c0ffee/5eed+{name[::-1]}" for name in ("file", "env", "token", "pw", "proxy")
)


def forms(secret: bytes) -> dict[str, bytes]:
    """The ways in which a secret could be written down."""
    text = secret.decode("latin-1")
    return {
        "as it is": secret,
        "in base64": base64.b64encode(secret),
        "after a user": base64.b64encode(b"user:" + secret),
        "in a URL": quote(text, safe="").encode(),
        "in JSON": text.replace("/", "\\/").encode(),
        "in hex": secret.hex().encode(),
        "hashed": hashlib.sha256(secret).hexdigest().encode(),
        "hashed, as bytes": hashlib.sha256(secret).digest(),
    }


def contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Everything in a file or below a directory, packed and unpacked: files, names, targets of links, attributes."""
    for each in [path, *path.rglob("*")] if path.is_dir() else [path]:
        yield f"name {each}", os.fsencode(each.relative_to(path.parent))
        for name in os.listxattr(each, follow_symlinks=False):
            yield f"{each} {name}", os.getxattr(each, name, follow_symlinks=False)
        if each.is_symlink():
            yield f"link {each}", os.fsencode(os.readlink(each))
        elif each.is_file():
            yield from unpacked(str(each), each.read_bytes())


def unpacked(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """The bytes, and what they hold when they are compressed or a tar."""
    yield name, content
    if content[:2] == b"\x1f\x8b":
        yield from unpacked(f"{name} (gzip)", gzip.decompress(content))
    elif content[:4] == b"\x28\xb5\x2f\xfd":
        yield from unpacked(f"{name} (zstd)", zstandard.ZstdDecompressor().decompressobj().decompress(content))
    elif content[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isreg() else None
                if file is not None:
                    yield from unpacked(f"{name}: {member.name}", file.read())


def values(database: Path) -> Iterator[tuple[str, bytes]]:
    """Every value of every row: SQLite may split one over several pages."""
    connection = sqlite3.connect(database)
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for row in connection.execute(f"SELECT * FROM {table}"):
            for value in row:
                yield f"table {table}", value if isinstance(value, bytes) else str(value).encode()
    connection.close()


def leaks(secrets: list[bytes], *places: Iterator[tuple[str, bytes]]) -> list[str]:
    wanted = [(kind, form) for secret in secrets for kind, form in forms(secret).items()]
    return [
        f"{kind} in {name}" for place in places for name, content in place for kind, form in wanted if form in content
    ]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "served") as running:
        running.password = f"user:{PASSWORD}"
        yield running


def with_password(url: str) -> str:
    return url.replace("//", f"//user:{quote(PASSWORD, safe='')}@")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[tuple[str, list[bytes]]]:
    """The socket of a real ssh agent, and the lines of the private key in it."""
    require(shutil.which("ssh-agent") is not None, "openssh-client is not installed")
    socket, key = tmp_path / "agent", tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "comment", "-f", key], check=True)
    process = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        while not socket.exists():
            pass
        subprocess.run(["ssh-add", "-q", key], env={**os.environ, "SSH_AUTH_SOCK": str(socket)}, check=True)
        yield str(socket), key.read_bytes().splitlines()[2:-2]
    finally:
        process.terminate()
        process.wait()


STEPS = """FROM base
RUN --mount=type=secret,id=f,required test -s /run/secrets/f && wc -c < /run/secrets/f > /size
RUN --mount=type=secret,id=f,target=/etc/token,mode=0444 cp /etc/token /dev/null
RUN --mount=type=secret,id=e,env=VALUE test -n "$VALUE" && echo "$VALUE" | md5sum | cut -c1-3 > /part
RUN --mount=type=ssh test -S "$SSH_AUTH_SOCK"
RUN --mount=type=cache,target=/c --mount=type=secret,id=f echo used >> /c/log
ADD {file} /added/
ADD {git} /repository
COPY --from=named / /named
"""


def test_no_secret_is_anywhere(
    pybuild: Pybuild, based: list[str], server: Server, agent: tuple[str, list[bytes]], tmp_path: Path
) -> None:
    socket, key = agent
    repository = GitRepository(tmp_path / "repository")
    repository.commit(Dockerfile="FROM base\nCOPY . /all\n", data="data\n")
    git, file = server.smart(repository), server.file("/files/x", b"content\n")
    (tmp_path / "secret").write_text(FILE)
    pybuild.write(Dockerfile=STEPS.format(file=with_password(file), git=with_password(git)))
    pybuild.write(failing=f"FROM base\nADD {with_password(server.url)}/files/missing /x\n")
    pybuild.write(broken="FROM base\nRUN --mount=type=secret,id=f,required false\n")
    words = [*based, "--secret", f"id=f,src={tmp_path}/secret", "--secret", "id=e,env=THE_SECRET"]
    words += ["--ssh", f"default={socket}"]
    words += ["--build-arg", f"HTTP_PROXY=http://user:{quote(PROXY, safe='')}@127.0.0.1:9"]
    words += ["--build-arg", "NO_PROXY=127.0.0.1", "--build-context", f"named={with_password(git)}"]
    outputs = [f"type=oci,dest={tmp_path}/x.tar", f"type=docker,compression=zstd,dest={tmp_path}/z.tar"]
    outputs += [f"type=local,dest={tmp_path}/tree", "type=image,name=x"]
    words += [word for output in outputs for word in ("-o", output)]
    env = {"THE_SECRET": ENV, "THE_TOKEN": TOKEN, "NO_PROXY": "127.0.0.1"}
    with Store.open(str(pybuild.root)):  # keeps the journal of the database from being folded into it
        done = [pybuild("build", *words, ".", env=env)]
        assert done[0].returncode == 0, done[0].stderr
        done += [pybuild("build", *words, "--progress", "json", ".", env=env)]
        done += [pybuild("build", *words, "--no-cache", "--metadata-file", f"{tmp_path}/metadata", ".", env=env)]
        done += [pybuild("build", *based, "-o", "type=image,name=y", with_password(git), env=env)]
        server.password = f"x-access-token:{TOKEN}"
        token = ["--secret", "id=GIT_AUTH_TOKEN,env=THE_TOKEN", "-o", "type=image,name=z"]
        done += [pybuild("build", *based, *token, f"{git}#main", env=env)]
        assert [each.returncode for each in done] == [0] * 5, done[-1].stderr
        failed = [pybuild("build", *words, "-f", name, ".", env=env) for name in ("failing", "broken")]
        assert [each.returncode for each in failed] == [1, 1]
        done += [*failed, pybuild("graph", *based, ".", env=env), pybuild("history", "--no-trunc", "x")]
        done += [pybuild("du", "-v"), pybuild("du", "--format", "json"), pybuild("inspect", "x"), pybuild("images")]
        done += [pybuild("store", "check")]
        shown = [(f"output of {each.args[3:]}", (each.stdout + each.stderr).encode()) for each in done]
        places = [iter(shown), contents(pybuild.root), values(pybuild.root / "index.db")]
        places += [contents(tmp_path / name) for name in ("x.tar", "z.tar", "tree", "metadata")]
        assert (pybuild.root / "index.db-wal").stat().st_size > 0
        secrets = [*(text.encode() for text in (FILE, ENV, TOKEN, PASSWORD, PROXY)), *key]
        assert leaks(secrets, *places) == []


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "packed").write_bytes(gzip.compress(b"before " + FILE.encode() + b" after"))
    (tmp_path / "hash").write_text(hashlib.sha256(ENV.encode()).hexdigest())
    (tmp_path / "link").symlink_to(quote(PASSWORD, safe=""))
    database = sqlite3.connect(tmp_path / "index.db")
    database.execute("CREATE TABLE x (a)")
    database.execute("INSERT INTO x VALUES (?)", ("-" * 10_000 + TOKEN,))
    database.commit()
    database.close()
    secrets = [text.encode() for text in (FILE, ENV, PASSWORD, TOKEN)]
    found = leaks(secrets, contents(tmp_path), values(tmp_path / "index.db"))
    assert {each.partition(" in /")[0].partition(" in link")[0] for each in found} >= {"hashed", "in a URL"}
    assert any("(gzip)" in each for each in found)
    assert any("table x" in each for each in found)
