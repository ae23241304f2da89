"""Root's builds with --userns=auto: the same image, made by users that own nothing on the machine."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.sandbox.idmap import subordinate_ids
from builder.snapshotters import idmapped
from tests.conftest import Pybuild

DOCKERFILE = """\
FROM base AS other
RUN mkdir -p /d/e && echo o > /d/o && chown 5:6 /d/o && chmod 4750 /d/o
FROM base
COPY --chown=12:34 --from=other /d /d
RUN echo a > /a && chown 1000:50 /a && chmod 4755 /a && rm -r /home && mkdir -p /home/new && ln /a /b
RUN rm -r /d/e && mkdir /d/e && mv /a /c && chown 7:8 /etc /etc/passwd && mkfifo /p
RUN --mount=type=bind,from=other,source=/d,target=/bound,rw echo new > /bound/n && stat -c %u:%g /bound/o > /seen
RUN --mount=type=cache,target=/cache,uid=9 touch /cache/c && stat -c %u /cache >> /seen
RUN --mount=type=secret,id=s,uid=3 stat -c %u /run/secrets/s >> /seen && echo out > /dev/stdout
RUN --mount=type=tmpfs,target=/mem touch /mem/x && stat -c %u /mem >> /seen
USER 1000
RUN id -u >> /tmp/who && echo err > /dev/stderr
"""
EPOCH = ["--build-arg", "SOURCE_DATE_EPOCH=1700000000"]


def test_the_image_is_the_same(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile=DOCKERFILE, s="secret")
    words = ["build", *based, *EPOCH, "--no-cache", "--secret", "id=s,src=s", "."]
    for mode in ("host", "auto"):
        pybuild.ok(*words, f"--userns={mode}", "-o", f"type=oci,rewrite-timestamp=true,dest={mode}.tar")
    assert (pybuild.cwd / "auto.tar").read_bytes() == (pybuild.cwd / "host.tar").read_bytes()


def test_ids_outside_are_nobodys(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN cat /proc/self/uid_map && echo x > /x && chown 7 /x\n")
    done = pybuild.ok("build", *based, "--userns=auto", "--progress", "plain", ".")
    found = re.search(r" 0 +(\d+) +65536\n", done.stderr)
    assert found is not None, done.stderr
    assert int(found[1]) >= 0x80000
    (file,) = pybuild.root.glob("snapshots/*/diff/x")
    assert file.stat().st_uid == 7


def test_what_belongs_to_root_is_out_of_reach(pybuild: Pybuild, based: list[str]) -> None:
    """Even through a descriptor or a mount: the machine's root is no user in there."""
    pybuild.write(Dockerfile="FROM base\nRUN stat -c %u /proc/sys/kernel && ! echo x > /proc/sys/kernel/hostname\n")
    done = pybuild.ok("build", *based, "--userns=auto", "--progress", "plain", ".")
    assert " 65534\n" in done.stderr


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "agent"))
        yield tmp_path / "agent"


def test_what_it_cannot_do_is_said(pybuild: Pybuild, based: list[str], agent: Path) -> None:
    words = ["build", *based, "--userns=auto", "."]
    pybuild.write(Dockerfile="FROM base\nRUN --mount=type=ssh true\n")
    done = pybuild(*words, "--ssh", f"default={agent}")
    assert done.returncode == 1
    assert "ssh agent does not answer other users" in done.stderr
    pybuild.write(Dockerfile="FROM base\nRUN --security=insecure true\n")
    done = pybuild(*words, "--allow", "security.insecure")
    assert done.returncode == 1
    assert "leave out --userns=auto" in done.stderr
    pybuild.write(Dockerfile="FROM base\nRUN true\n")
    done = pybuild(*words, "-m", "64m")
    assert done.returncode == 1
    assert "remapped users have no limits" in done.stderr
    assert "leave out --userns=auto" in done.stderr
    done = pybuild(*words, "--snapshotter", "native")
    assert done.returncode == 2


def test_the_range_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    assert os.geteuid() == 0
    rows = {"/etc/subuid": [("someone", 0x80000 + 5, 10)], "/etc/subgid": []}
    monkeypatch.setattr(idmapped, "_names_in", lambda path: {name for name, _, _ in rows[path]})
    monkeypatch.setattr(
        idmapped,
        "subordinate_ids",
        lambda path, names: [(first, size) for name, first, size in rows[path] if name in names],
    )
    assert idmapped.free_range() == 0x90000
    rows["/etc/subuid"].append(("containers", 2_000_000, 65536))
    assert idmapped.free_range() == 0x90000
    rows["/etc/subgid"].append(("containers", 2_000_000, 65536))
    assert idmapped.free_range() == 2_000_000


def test_reading_subuid(tmp_path: Path) -> None:
    path = tmp_path / "subuid"
    path.write_text("# comment\nme:100000:65536\n1000:5:6\nme:x:1\nme:7:0\nother:1:2\nme:300000:10\n")
    assert subordinate_ids(str(path), ("me", "1000")) == [(100000, 65536), (5, 6), (300000, 10)]
    assert subordinate_ids(str(tmp_path / "missing"), ("me",)) == []
