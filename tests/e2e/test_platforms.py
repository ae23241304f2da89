"""Several results of one build: images for several platforms in one index, several targets, and foreign programs."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.ops.foreign import BINFMT_DIR, advice, find_handler
from tests.conftest import Pybuild, require

BOTH = "linux/amd64,linux/arm64"
ARM64, UNKNOWN = 183, 0xFEED
_CODE = (0xD2800020, 0x100000E1, 0xD2800082, 0xD2800808, 0xD4000001, 0xD2800000, 0xD2800BA8, 0xD4000001)
"""write(1, "arm\n", 4); exit(0)."""


def program(machine: int) -> bytes:
    """A static ELF program for a processor; for arm64 one that prints `arm`."""
    code = b"".join(struct.pack("<I", word) for word in _CODE) + b"arm\n"
    size, start = 120 + len(code), 0x400000
    ident = b"\x7fELF\2\1\1" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, start + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, start, start, size, size, 0x1000) + code


class Layout:
    """What an OCI layout in a directory or an archive holds."""

    def __init__(self, path: Path) -> None:
        with tarfile.open(path) as tar:
            self.files = {m.name: tar.extractfile(m).read() for m in tar if m.isreg()}  # type: ignore[union-attr]
        self.entries: list[dict[str, Any]] = self.json("index.json")["manifests"]

    def json(self, name: str) -> Any:
        return json.loads(self.files[name])

    def blob(self, descriptor: dict[str, Any]) -> Any:
        return self.json("blobs/sha256/" + descriptor["digest"].partition(":")[2])

    def configs(self, entry: dict[str, Any]) -> list[dict[str, Any]]:
        """The config of every image below an entry."""
        document = self.blob(entry)
        if "manifests" not in document:
            return [self.blob(document["config"])]
        return [self.blob(self.blob(each)["config"]) for each in document["manifests"]]


def titles(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The names of all vertices."""
    found = [line.partition(" ")[2] for line in done.stderr.splitlines() if line.startswith("#")]
    return [name for name in found if name.startswith("[")]


def platforms_of(entries: list[dict[str, Any]]) -> list[str]:
    return [f"{entry['platform']['os']}/{entry['platform']['architecture']}" for entry in entries]


def test_one_index_has_an_image_for_each_platform(pybuild: Pybuild) -> None:
    text = "FROM scratch\nARG TARGETPLATFORM TARGETARCH BUILDPLATFORM\nCOPY $TARGETARCH /arch\n"
    pybuild.write(Dockerfile=text + "LABEL platform=$TARGETPLATFORM\n", amd64="a", arm64="b")
    dest = pybuild.cwd.parent / "out.tar"
    words = ["--platform", BOTH, "-o", f"type=oci,dest={dest}", "-t", "app:1", "--iidfile", "id", "."]
    done = pybuild.ok("build", "--metadata-file", "meta.json", *words)
    layout = Layout(dest)
    (entry,) = layout.entries
    index = layout.blob(entry)
    assert platforms_of(index["manifests"]) == BOTH.split(",")
    configs = layout.configs(entry)
    assert [config["architecture"] for config in configs] == ["amd64", "arm64"]
    assert [config["config"]["Labels"]["platform"] for config in configs] == BOTH.split(",")
    assert configs[0]["rootfs"] != configs[1]["rootfs"]
    metadata = json.loads((pybuild.cwd / "meta.json").read_text())
    # The store's index: it lists layers that are not compressed.
    assert done.stdout.strip() == (pybuild.cwd / "id").read_text() == metadata["containerimage.digest"]
    assert [image["ID"] for image in listed(pybuild)] == [metadata["containerimage.digest"]]
    alone = pybuild.ok("build", *words[:3], f"type=oci,dest={dest},name=app:1", *words[6:])
    assert alone.stdout.strip() == entry["digest"] == (pybuild.cwd / "id").read_text()
    assert metadata["containerimage.descriptor"]["mediaType"].endswith("index.v1+json")
    assert metadata["image.name"] == "docker.io/library/app:1"
    assert "[linux/amd64 1/1] COPY amd64 /arch" in titles(done)
    assert "[linux/arm64 1/1] COPY arm64 /arch" in titles(done)


def test_one_platform_is_put_under_an_index_on_request(pybuild: Pybuild, tmp_path: Path) -> None:
    pybuild.write(Dockerfile="FROM scratch\nCOPY f /\n", f="f")
    words = ["--build-arg", "BUILDKIT_MULTI_PLATFORM=1", "--platform", "linux/arm64/v8"]
    dest = tmp_path / "out.tar"
    done = pybuild("build", *words, "-o", f"type=oci,dest={dest}", "--metadata-file", str(tmp_path / "m.json"), ".")
    layout = Layout(dest)
    (entry,) = layout.entries
    assert platforms_of(layout.blob(entry)["manifests"]) == ["linux/arm64"]
    assert "[linux/arm64 1/1] COPY f /" in titles(done)
    assert done.stdout == f"{entry['digest']}\n"
    assert "containerimage.config.digest" not in json.loads((tmp_path / "m.json").read_text())
    pybuild("build", *words, "-o", str(tmp_path / "tree"), ".")
    assert os.listdir(tmp_path / "tree") == ["linux_arm64"]
    kept = pybuild.ok("build", *words, "-t", "x", ".")
    (image,) = listed(pybuild)
    assert (image["ID"], image["Platforms"]) == (kept.stdout.strip(), ["linux/arm64"])
    assert inspected(pybuild, "x")["Index"]["Digest"] == image["ID"]


@pytest.fixture
def indexed(pybuild: Pybuild, based: list[str]) -> Pybuild:
    """`app:1` for two platforms in the local store; its program says for which it is."""
    text = "FROM base\nARG TARGETPLATFORM TARGETARCH\nCOPY $TARGETARCH /arch\nCMD cat /arch\n"
    pybuild.write(Dockerfile=text + "LABEL platform=$TARGETPLATFORM\n", amd64="a\n", arm64="b\n")
    layout = pybuild.cwd.parent / "both"
    pybuild.write(base__Dockerfile="FROM base\n")
    # A base that claims to be for either: what is run is the same busybox.
    pybuild.ok("build", *based, "-t", "onebase", "base")
    pybuild.write(base__Dockerfile="FROM --platform=$BUILDPLATFORM onebase AS b\nFROM scratch\nCOPY --from=b / /\n")
    pybuild.ok("build", "--platform", BOTH, "-o", f"type=oci,tar=false,dest={layout}", "base")
    words = ["--platform", BOTH, "--build-context", f"base=oci-layout://{layout}", "--annotation", "index:a=i"]
    pybuild.ok("build", *words, "-t", "app:1", "--iidfile", "id", ".")
    return pybuild


def listed(pybuild: Pybuild, *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in pybuild.ok("images", "--format", "json", *words).stdout.splitlines()]


def inspected(pybuild: Pybuild, *words: str) -> dict[str, Any]:
    (document,) = json.loads(pybuild.ok("inspect", *words).stdout)
    return dict(document)


def test_an_index_is_kept_under_a_name(indexed: Pybuild) -> None:
    index_id = (indexed.cwd / "id").read_text()
    (image,) = listed(indexed, "app")
    assert (image["ID"], image["Digest"], image["Platforms"]) == (index_id, index_id, BOTH.split(","))
    own, other = inspected(indexed, "app:1"), inspected(indexed, "--platform", "linux/arm64", "app:1")
    assert (own["Architecture"], other["Architecture"]) == ("amd64", "arm64")
    assert own["Config"]["Labels"]["platform"] == "linux/amd64"
    assert own["Index"] == other["Index"] == {"Digest": index_id, "Platforms": BOTH.split(",")}
    assert own["RepoTags"] == ["app:1"]
    assert "COPY arm64 /arch" in indexed.ok("history", "--platform", "linux/arm64", "app:1").stdout
    refused = indexed("inspect", "--platform", "linux/s390x", "app:1")
    assert (refused.returncode, "it is for linux/amd64, linux/arm64" in refused.stderr) == (1, True)


def test_an_image_of_an_index_is_run_by_platform(indexed: Pybuild) -> None:
    require(os.uname().machine == "x86_64", "the images hold programs of this machine under both names")
    for words, shown in (((), "a\n"), (("--platform", "linux/arm64"), "b\n"), (("--platform", "linux/amd64"), "a\n")):
        assert indexed.ok("run", "--rm", *words, "app:1").stdout == shown
    refused = indexed("run", "--rm", "--platform", "linux/s390x", "app:1")
    assert (refused.returncode, "it is for linux/amd64, linux/arm64" in refused.stderr) == (125, True)


def test_an_index_is_a_base_and_has_several_names(indexed: Pybuild) -> None:
    indexed.ok("tag", "app:1", "app:2")
    indexed.write(Dockerfile="FROM app:2\nCOPY Dockerfile /d\n")
    dest = indexed.cwd.parent / "trees"
    indexed.ok("build", "--platform", BOTH, "-o", str(dest), ".")
    assert [(dest / name / "arch").read_text() for name in ("linux_amd64", "linux_arm64")] == ["a\n", "b\n"]
    again = indexed.ok("build", "--platform", BOTH, "-o", str(dest), ".")
    assert "DONE" not in again.stderr
    assert indexed.ok("rmi", "app:1").stdout == "Untagged: app:1\n"
    assert [image["Tag"] for image in listed(indexed, "app")] == ["2"]
    index_id = (indexed.cwd / "id").read_text()
    assert f"Deleted: {index_id}" in indexed.ok("rmi", index_id).stdout
    assert listed(indexed, "app") == []


def test_an_index_is_saved_whole_or_in_part(indexed: Pybuild) -> None:
    dest = indexed.cwd.parent / "saved.tar"
    indexed.ok("save", "--format", "oci", "-o", str(dest), "app:1")
    layout = Layout(dest)
    (entry,) = layout.entries
    index = layout.blob(entry)
    assert index["annotations"] == {"a": "i"}
    assert platforms_of(index["manifests"]) == BOTH.split(",")
    for words, architecture in ((("--platform", "linux/arm64"), "arm64"), (("--format", "docker"), "amd64")):
        indexed.ok("save", *words, "-o", str(dest), "app:1")
        (config,) = Layout(dest).configs(Layout(dest).entries[0])
        assert config["architecture"] == architecture


def test_an_annotation_for_a_platform_that_is_not_there(pybuild: Pybuild) -> None:
    pybuild.write(Dockerfile="FROM scratch\nCOPY Dockerfile /\n")
    for words in (["-t", "app"], ["-o", "type=oci,dest=out.tar"]):
        done = pybuild("build", *words, "--platform", BOTH, "--annotation", "manifest[linux/s390x]:a=b", ".")
        assert done.returncode == 1
        assert "no platform linux/s390x found" in done.stderr


def test_a_base_is_chosen_by_platform(pybuild: Pybuild, busybox: Path) -> None:
    pybuild.write(Dockerfile="FROM scratch\nARG TARGETARCH\nCOPY busybox /bin/\nCOPY $TARGETARCH /arch\n", amd64="a")
    pybuild.write(arm64="b")
    (pybuild.cwd / "busybox").write_bytes(busybox.read_bytes())
    layout = pybuild.cwd.parent / "base"
    pybuild.ok("build", "--platform", BOTH, "-o", f"type=oci,tar=false,dest={layout}", ".")
    context = ["--build-context", f"base=oci-layout://{layout}"]
    pybuild.write(Dockerfile="FROM base\nCOPY Dockerfile /copied\nENV A=b\n")
    dest = pybuild.cwd.parent / "tree"
    done = pybuild.ok("build", *context, "--platform", BOTH, "-o", str(dest), ".")
    assert (dest / "linux_amd64" / "arch").read_text() == "a"
    assert (dest / "linux_arm64" / "arch").read_text() == "b"
    assert "[linux/arm64 1/2] FROM base" in titles(done)
    assert "[linux/arm64 2/2] COPY Dockerfile /copied" in titles(done)
    again = pybuild.ok("build", *context, "--platform", BOTH, "-o", str(dest), ".")
    assert "DONE" not in again.stderr
    refused = pybuild("build", *context, "--platform", "linux/amd64,linux/s390x", "-o", str(dest), ".")
    assert refused.returncode == 1
    assert "linux/s390x" in refused.stderr


def test_an_image_of_the_store_is_for_one_platform(pybuild: Pybuild) -> None:
    pybuild.write(Dockerfile="FROM scratch\nCOPY Dockerfile /\n")
    pybuild.ok("build", "--platform", "linux/riscv64", "-t", "app:1", ".")
    pybuild.write(Dockerfile="FROM app:1\nENV A=b\n")
    pybuild.ok("build", "--platform", "linux/riscv64", ".")
    done = pybuild("build", "--platform", "linux/arm64", ".")
    assert done.returncode == 1
    assert "the image is for linux/riscv64, not for linux/arm64" in done.stderr


def test_cross_compiling_stages_run_once(pybuild: Pybuild, based: list[str]) -> None:
    text = "FROM --platform=$BUILDPLATFORM base AS shared\nRUN echo once > /f\n"
    text += "FROM --platform=$BUILDPLATFORM shared AS make\nARG TARGETPLATFORM\nRUN echo $TARGETPLATFORM > /p\n"
    pybuild.write(Dockerfile=text + "FROM scratch\nCOPY --from=make /f /p /\n")
    dest = pybuild.cwd.parent / "tree"
    done = pybuild.ok("build", *based, "--platform", BOTH, "-o", str(dest), ".")
    assert len([name for name in titles(done) if "RUN echo once" in name]) == 1
    assert (dest / "linux_arm64" / "p").read_text() == "linux/arm64\n"
    assert (dest / "linux_amd64" / "p").read_text() == "linux/amd64\n"
    assert any(name.startswith("[linux/amd64->arm64 make") for name in titles(done))


def test_a_run_of_another_platform_is_another_run(pybuild: Pybuild, busybox: Path) -> None:
    """The roots are equal, and the program is told nothing: only the platform differs."""
    (pybuild.cwd / "busybox").write_bytes(busybox.read_bytes())
    (pybuild.cwd / "busybox").chmod(0o755)
    pybuild.write(Dockerfile='FROM scratch\nCOPY busybox /bin/\nRUN ["/bin/busybox", "touch", "/x"]\n')
    dest = pybuild.cwd.parent / "out.tar"
    done = pybuild.ok("build", "--platform", BOTH, "-o", f"type=oci,dest={dest}", ".")
    assert len([name for name in titles(done) if "RUN" in name]) == 2
    assert len([name for name in titles(done) if "COPY" in name]) == 1


def test_a_foreign_program_without_a_handler(pybuild: Pybuild) -> None:
    (pybuild.cwd / "program").write_bytes(program(UNKNOWN))
    (pybuild.cwd / "program").chmod(0o755)
    pybuild.write(Dockerfile='FROM scratch\nCOPY program /\nRUN ["/program"]\n')
    done = pybuild("build", "--platform", "linux/armbe", ".")
    assert done.returncode == 1
    assert "Dockerfile:3" in done.stderr
    assert 'RUN ["/program"]' in done.stderr
    assert 'process "/program" is for linux/armbe' in done.stderr
    assert "exec format error" in done.stderr
    assert "apt-get install qemu-user-static" in done.stderr


@pytest.fixture
def arm64_handler() -> Iterator[None]:
    """QEMU takes arm64 programs: as the machine is set up, else registered for the time of the test."""
    handler = find_handler("linux/arm64")
    if handler is not None and handler.is_open:
        yield
        return
    interpreter = shutil.which("qemu-aarch64-static")
    require(interpreter is not None and os.geteuid() == 0, "Debian's qemu-user-static is not installed")
    register = Path(BINFMT_DIR, "register")
    is_mounted = register.exists()
    if not is_mounted:
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT_DIR], check=True)
    name = f"pybuild-test-{os.getpid()}"
    magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
    register.write_text(f":{name}:M::{magic}:{mask}:{interpreter}:F")
    try:
        yield
    finally:
        Path(BINFMT_DIR, name).write_text("-1")
        if not is_mounted:
            subprocess.run(["umount", BINFMT_DIR], check=True)


@pytest.mark.usefixtures("arm64_handler")
def test_a_foreign_program_with_a_handler(pybuild: Pybuild) -> None:
    (pybuild.cwd / "program").write_bytes(program(ARM64))
    (pybuild.cwd / "program").chmod(0o755)
    pybuild.write(Dockerfile='FROM scratch\nCOPY program /\nRUN ["/program"]\n')
    done = pybuild.ok("build", "--platform", "linux/arm64", ".")
    assert any(line.endswith(" arm") for line in done.stderr.splitlines())


QEMU = (
    "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: {flags}\noffset 0\n"
    "magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n"
)


def test_handlers_are_found_by_what_they_take(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("enabled\n")
    (tmp_path / "python3").write_text("enabled\ninterpreter /usr/bin/python3\nflags: \noffset 0\nmagic 6f0d0d0a\n")
    assert find_handler("linux/arm64", str(tmp_path)) is None
    (tmp_path / "any").write_text(QEMU.format(flags="OCF"))
    found = find_handler("linux/arm64", str(tmp_path))
    assert found is not None
    assert found.is_open
    assert advice("linux/arm64", str(tmp_path)) is None
    assert find_handler("linux/riscv64", str(tmp_path)) is None
    assert "qemu-user-static" in str(advice("linux/riscv64", str(tmp_path)))
    (tmp_path / "any").write_text(QEMU.format(flags="OC"))
    assert "flag F" in str(advice("linux/arm64", str(tmp_path)))
    (tmp_path / "any").write_text(QEMU.format(flags="F").replace("enabled", "disabled"))
    assert find_handler("linux/arm64", str(tmp_path)) is None
    assert find_handler("linux/arm64", str(tmp_path / "missing")) is None


TARGETS = "FROM base AS shared\nRUN echo x > /shared\nFROM shared AS api\nRUN echo a > /a\nFROM shared AS worker\n"
TARGETS += "RUN echo w > /w\n"


@pytest.fixture
def both(pybuild: Pybuild, based: list[str]) -> list[str]:
    """The words that build two targets."""
    pybuild.write(Dockerfile=TARGETS)
    return [*based, "--target", "api", "--target", "worker"]


def test_targets_share_stages_and_are_images_of_their_own(pybuild: Pybuild, both: list[str]) -> None:
    dest = pybuild.cwd.parent / "out.tar"
    done = pybuild.ok(
        "build", *both, "-t", "app", "-t", "localhost:5000/app:1", "-o", f"type=oci,dest={dest}",
        "--iidfile", "ids", "--metadata-file", "meta.json", ".",
    )  # fmt: skip
    assert len([name for name in titles(done) if "/shared" in name]) == 1
    names = {entry["annotations"]["io.containerd.image.name"] for entry in Layout(dest).entries}
    assert names == {
        "docker.io/library/app:api", "docker.io/library/app:worker",
        "localhost:5000/app:1-api", "localhost:5000/app:1-worker",
    }  # fmt: skip
    listed = pybuild.ok("images").stdout
    assert "1-worker" in listed
    assert "api" in listed
    assert done.stdout.split() == (pybuild.cwd / "ids").read_text().split("\n")
    assert len(set(done.stdout.split())) == 2
    metadata = json.loads((pybuild.cwd / "meta.json").read_text())
    assert metadata["api"]["image.name"] == "docker.io/library/app:api,localhost:5000/app:1-api"
    assert metadata["worker"]["containerimage.config.digest"] == done.stdout.split()[1]


def test_targets_in_trees(pybuild: Pybuild, both: list[str]) -> None:
    dest = pybuild.cwd.parent / "tree"
    pybuild.ok("build", *both, "-o", str(dest), ".")
    assert (dest / "api" / "a").read_text() == "a\n"
    assert (dest / "worker" / "w").read_text() == "w\n"
    assert not (dest / "worker" / "a").exists()
    archive = pybuild.cwd.parent / "tree.tar"
    pybuild.ok("build", *both, "-o", f"type=tar,dest={archive}", ".")
    with tarfile.open(archive) as tar:
        assert {"api/a", "api/shared", "worker/w"} <= set(tar.getnames())


def test_targets_without_names_are_tagged_by_target(pybuild: Pybuild, both: list[str]) -> None:
    for kind in ("oci", "docker"):
        dest = pybuild.cwd.parent / f"{kind}.tar"
        pybuild.ok("build", *both, "-o", f"type={kind},dest={dest}", ".")
        layout = Layout(dest)
        tags = [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in layout.entries]
        assert tags == ["api", "worker"]
    assert len(layout.json("manifest.json")) == 2


def test_annotations_at_every_level(pybuild: Pybuild) -> None:
    pybuild.write(Dockerfile="FROM scratch\nCOPY Dockerfile /\n")
    dest = pybuild.cwd.parent / "out.tar"
    words = ["--annotation", "a=m", "--annotation", "index,manifest-descriptor:b=c", "--annotation"]
    words += ["index-descriptor:d=e", "--annotation", "manifest[linux/arm64]:only=arm"]
    pybuild.ok("build", "--platform", BOTH, *words, "-o", f"type=oci,dest={dest}", ".")
    layout = Layout(dest)
    (entry,) = layout.entries
    index = layout.blob(entry)
    assert entry["annotations"]["d"] == "e"
    assert index["annotations"] == {"b": "c"}
    assert [each["annotations"]["b"] for each in index["manifests"]] == ["c", "c"]
    manifests = [layout.blob(each)["annotations"] for each in index["manifests"]]
    assert manifests == [{"a": "m"}, {"a": "m", "only": "arm"}]
    refused = pybuild("build", "--annotation", "index:k=v", "-o", f"type=oci,dest={dest}", ".")
    assert "no index" in refused.stderr


def test_annotations_are_kept_in_the_store(pybuild: Pybuild) -> None:
    pybuild.write(Dockerfile="FROM scratch\nCOPY Dockerfile /\n")
    pybuild.ok("build", "--annotation", "a=b", "-t", "x", "--load", ".")
    dest = pybuild.cwd.parent / "saved.tar"
    pybuild.ok("save", "-o", str(dest), "x")
    layout = Layout(dest)
    assert layout.blob(layout.entries[0])["annotations"] == {"a": "b"}
