"""`pybuild import`: tarballs of root filesystems become images."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import tarfile
from pathlib import Path

import pytest
import zstandard

from builder.errors import BuildError, UsageError
from cache.store import Store
from tests.builder.commandline import Shell
from tests.builder.image_factory import digest_of, layer_tar
from tests.remotes import serving

TAR = layer_tar({"etc/motd": "hello\n", "bin/sh": "#!"})
PACKED = {
    "plain": TAR,
    "gzip": gzip.compress(TAR, mtime=0),
    "zstd": zstandard.ZstdCompressor().compress(TAR),
    "bzip2": bz2.compress(TAR),
    "xz": lzma.compress(TAR),
}


def write(shell: Shell, content: bytes, name: str = "root.tar") -> str:
    (shell.directory / name).write_bytes(content)
    return name


def inspected(shell: Shell, name: str) -> dict[str, object]:
    [document] = json.loads(shell("inspect", name))
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize("kind", PACKED)
def test_the_tar_is_the_layer_however_it_is_compressed(shell: Shell, kind: str) -> None:
    image_id = shell("import_", write(shell, PACKED[kind]), "root:1").strip()
    document = inspected(shell, "root:1")
    assert document["Id"] == image_id
    assert document["RootFS"] == {"Type": "layers", "Layers": [digest_of(TAR)]}
    [layer] = document["Layers"]  # type: ignore[misc]
    assert layer["mediaType"].rpartition("+")[2] == ("zstd" if kind == "zstd" else "gzip")
    if kind in ("gzip", "zstd"):
        assert layer["digest"] == digest_of(PACKED[kind])
    with Store.open(str(shell.directory / "store")) as store:
        chain = hashlib.sha256(TAR).hexdigest()
        snapshot = store.snapshots.get(f"sha256:{chain}")
        assert snapshot is not None
        [tree] = store.snapshots.lower_dirs(snapshot)
        assert Path(tree, "etc/motd").read_text() == "hello\n"
        assert store.blobs.read(layer["digest"])


def test_what_is_said_of_the_image(shell: Shell) -> None:
    changes = ["CMD echo hi", "ENV A=1 B='x y'", "EXPOSE 80", "WORKDIR /w", "USER me", 'ENTRYPOINT ["/bin/sh", "-c"]']
    changes += ["LABEL a.b=c", "VOLUME /data", "STOPSIGNAL TERM", "ONBUILD RUN true", "HEALTHCHECK NONE", ""]
    words = [word for change in changes for word in ("--change", change)]
    shell("import_", *words, "-m", "from a disk", "--platform", "linux/arm64", write(shell, TAR), "root")
    document = inspected(shell, "root")
    config = document["Config"]
    assert isinstance(config, dict)
    assert document["Architecture"] == "arm64"
    assert config["Cmd"] == ["/bin/sh", "-c", "echo hi"]
    assert config["Env"][1:] == ["A=1", "B=x y"]
    assert config["Entrypoint"] == ["/bin/sh", "-c"]
    assert (config["WorkingDir"], config["User"]) == ("/w", "me")
    assert (config["ExposedPorts"], config["Volumes"]) == ({"80/tcp": {}}, {"/data": {}})
    assert (config["Labels"], config["StopSignal"], config["OnBuild"]) == ({"a.b": "c"}, "TERM", ["RUN true"])
    assert config["Healthcheck"] == {"Test": ["NONE"]}
    [row] = [json.loads(line) for line in shell("history", "--format", "json", "root").splitlines()]
    assert row["Comment"] == "from a disk"
    assert row["CreatedAt"] == document["Created"] == "2020-09-13T12:26:40Z"


def test_without_a_name_it_has_an_id(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(shell.directory / write(shell, TAR)) as file:
        monkeypatch.setattr("sys.stdin", file)
        image_id = shell("import_", "-").strip()
    assert inspected(shell, image_id)["RepoTags"] == []
    [row] = [json.loads(line) for line in shell("history", "--format", "json", image_id).splitlines()]
    assert row["Comment"] == "Imported from -"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("RUN true", "not an instruction that an import can carry out"),
        ("COPY a b", "not an instruction that an import can carry out"),
        ("FROM x", "not an instruction that an import can carry out"),
        ("CMD a\nRUN b", "not an instruction that an import can carry out"),
        ("NOTHING x", '--change "NOTHING x": unknown instruction'),
        ("ENV", '--change "ENV": '),
        ("STOPSIGNAL NONSENSE", "invalid signal: NONSENSE"),
    ],
)
def test_a_change_that_cannot_be_made_is_an_error(shell: Shell, change: str, message: str) -> None:
    with pytest.raises(BuildError) as caught:
        shell("import_", "--change", change, write(shell, TAR), "root")
    assert message in str(caught.value)
    assert getattr(caught.value, "location", None) is None
    assert shell.lines("images")[1:] == []


def unsafe_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("../outside")
        tar.addfile(member)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"no tar at all" * 100, PACKED["gzip"][:-20], PACKED["xz"][:-30], PACKED["zstd"][:-3], TAR[:700], unsafe_tar()],
)
def test_a_bad_tarball_is_an_error_and_no_image(shell: Shell, content: bytes) -> None:
    with pytest.raises(BuildError, match=r"'root.tar': "):
        shell("import_", write(shell, content), "root")
    assert shell.lines("images")[1:] == []


def test_files_that_are_not_there_are_said(shell: Shell) -> None:
    with pytest.raises(BuildError, match="'nothing' cannot be read: no such file"):
        shell("import_", "nothing")
    with pytest.raises(UsageError, match="has a digest"):
        shell("import_", write(shell, TAR), f"root@sha256:{'0' * 64}")


def test_a_url_is_fetched_once(shell: Shell, tmp_path: Path) -> None:
    """With the password for its host, which is shown nowhere, nor is a query, which may be as good as one."""
    by_file = shell("import_", "-m", "same", write(shell, PACKED["xz"]))
    with serving(tmp_path / "served") as server:
        server.password, server.headers = "somebody:geheim", {"ETag": '"1"'}
        url = server.file("/root.tar.xz", PACKED["xz"]).replace("//", "//somebody:geheim@") + "?signature=abc"
        assert shell("import_", "-m", "same", url) == by_file
        image_id = shell("import_", url, "root:1").strip()
        assert inspected(shell, "root:1")["Id"] == image_id
        assert [headers.get("if-none-match") for _, headers in server.requests] == [None, '"1"']
        [[_, *_, comment]] = shell.lines("history", "root:1")[1:]
        assert comment == f"{server.url}/root.tar.xz"
        with pytest.raises(BuildError, match="the server answered 404") as caught:
            shell("import_", f"{url.replace('root.tar', 'other')}")
        assert "geheim" not in str(caught.value)


def test_the_same_tarball_at_the_same_time_is_the_same_image(shell: Shell) -> None:
    ids = {shell("import_", write(shell, PACKED["plain"])) for _ in range(2)}
    assert len(ids) == 1
