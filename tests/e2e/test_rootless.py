"""An ordinary user builds what root builds, and where he cannot, the error says what he lacks."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.sandbox import cgroup
from builder.sandbox.limits import fill_cpuset
from tests.conftest import Pybuild, require
from tests.ordinary import OrdinaryUser

LIMITING = {"blkio", "cpu", "cpuset", "memory", "pids"}
PLAIN = """\
FROM base
COPY --chown=12:34 f /f
RUN echo a > /a && chown 1000:50 /a && chmod 751 /a && rm -r /home && mkdir -p /home/new && ln /a /b
RUN rm /b && mv /a /c && chown 7:8 /etc /etc/passwd
"""
"""fuse-overlayfs 1.10 takes set-id bits from a file that it copies up."""
OWNERS = """\
FROM base
COPY --chown=12:34 f /f
RUN echo a > /a && chown 1000:50 /a && chmod 4755 /a && rm -r /home && mkdir -p /home/new && ln /a /b
RUN rm /b && mv /a /c && chown 7:8 /etc /etc/passwd
USER 1000
RUN id -u > /tmp/who && cat /tmp/who
"""
EPOCH = ["--build-arg", "SOURCE_DATE_EPOCH=1700000000"]


@pytest.mark.parametrize("snapshotter", ["overlay", "fuse", "native"])
def test_the_image_is_that_of_root(
    user: OrdinaryUser, pybuild: Pybuild, base_for_all: list[str], snapshotter: str
) -> None:
    if snapshotter == "fuse":
        user.borrow_fuse()
    words = ["build", "-q", *base_for_all, *EPOCH, "-o", "type=oci,rewrite-timestamp=true,dest=out.tar", "."]
    for who in (user, pybuild):
        who.write(Dockerfile=PLAIN if snapshotter == "fuse" else OWNERS, f="f")
        (who.cwd / "f").chmod(0o640)
    mine = user.ok(*words, "--snapshotter", snapshotter)
    assert mine.stdout == pybuild.ok(*words).stdout
    assert (user.cwd / "out.tar").read_bytes() == (pybuild.cwd / "out.tar").read_bytes()
    assert (user.cwd / "out.tar").stat().st_uid == user.uid


@pytest.mark.parametrize("snapshotter", ["fuse", "native"])
def test_snapshotters_are_the_same_to_root(pybuild: Pybuild, based: list[str], snapshotter: str) -> None:
    if snapshotter == "fuse":
        require(os.path.exists("/dev/fuse"), "this kernel has no /dev/fuse")
    pybuild.write(Dockerfile=PLAIN if snapshotter == "fuse" else OWNERS, f="f")
    words = ["build", "-q", *based, *EPOCH, "--no-cache", "."]
    pybuild.ok(*words, "--output", "type=oci,rewrite-timestamp=true,dest=plain.tar")
    pybuild.ok(*words, "--output", "type=oci,rewrite-timestamp=true,dest=other.tar", "--snapshotter", snapshotter)
    assert (pybuild.cwd / "other.tar").read_bytes() == (pybuild.cwd / "plain.tar").read_bytes()


def test_mounts_of_a_step(user: OrdinaryUser, base_for_all: list[str]) -> None:
    user.write(
        Dockerfile="FROM base AS other\nRUN mkdir /d && echo o > /d/o && chown 5:5 /d/o && ln /d/o /d/p\n"
        "FROM base\n"
        "RUN --mount=type=bind,from=other,target=/bound,rw echo new > /bound/d/new && stat -c %u /bound/d/o\n"
        "RUN --mount=type=bind,from=other,source=/d,target=/part cat /part/o && ! touch /part/x\n"
        "RUN --mount=type=cache,target=/cache,uid=9 echo c > /cache/c && stat -c %u /cache\n"
        "RUN --mount=type=tmpfs,target=/mem df /mem | grep -q tmpfs\n"
        "RUN --mount=type=secret,id=s,uid=3 stat -c %u /run/secrets/s\n"
        "COPY --from=other /d /d\n",
        **{"s": "secret"},
    )
    words = ["build", *base_for_all, "--secret", "id=s,src=s", "--progress", "plain", "-o"]
    plain = user.ok(*words, "type=tar,dest=a.tar", ".")
    assert [line.split()[-1] for line in plain.stderr.splitlines() if line.endswith((" 5", " 9", " 3"))] == list("593")
    user.ok(*words, "type=tar,dest=b.tar", "--no-cache", "--snapshotter", "native", ".")
    user.borrow_fuse()
    user.ok(*words, "type=tar,dest=c.tar", "--no-cache", "--snapshotter", "fuse", ".")
    trees = []
    for name in "abc":
        with tarfile.open(user.cwd / f"{name}.tar") as archive:
            trees.append([(m.name, m.type, m.mode, m.uid, m.gid, m.size, m.linkname) for m in archive])
    assert trees[0] == trees[1] == trees[2]
    assert ("d/p", tarfile.LNKTYPE) in [(name, kind) for name, kind, *_ in trees[0]]


def test_files_of_the_store_belong_to_ids_of_the_user(user: OrdinaryUser, base_for_all: list[str]) -> None:
    user.write(Dockerfile="FROM base\nRUN echo a > /a && chown 1000 /a && echo b > /b\n")
    user.ok("build", *base_for_all, "-t", "x", ".")
    (file,) = user.root.glob("snapshots/*/diff/a")
    first = int(
        next(row for row in Path("/etc/subuid").read_text().splitlines() if row.startswith(user.name)).split(":")[1]
    )
    assert file.stat().st_uid == first + 999
    assert file.with_name("b").stat().st_uid == user.uid


def test_local_output_belongs_to_the_user(user: OrdinaryUser, base_for_all: list[str]) -> None:
    user.write(Dockerfile="FROM base\nRUN echo a > /a && chown 1000 /a && chmod 640 /a\n")
    for _ in ("cold", "warm"):
        user.ok("build", *base_for_all, "-o", "type=local,dest=out", ".")
        assert {path.lstat().st_uid for path in (user.cwd / "out").rglob("*")} == {user.uid}
        assert (user.cwd / "out/a").stat().st_mode & 0o777 == 0o640
        shutil.rmtree(user.cwd / "out")


NAMESPACE = """
import os, sys
from builder.cli import main
code = main(sys.argv[1:])
print(os.readlink("/proc/self/ns/user"), "ctypes" in sys.modules, file=sys.stderr)
raise SystemExit(code)
"""


def test_a_cached_build_enters_no_namespace(user: OrdinaryUser, base_for_all: list[str]) -> None:
    user.write(Dockerfile="FROM base\nCOPY f /f\nRUN cp /f /g\n", f="f")
    words = ["build", *base_for_all, "-t", "x", "."]
    own = os.readlink("/proc/self/ns/user")
    cold = user.run(user.python, "-c", NAMESPACE, *words, check=True)
    assert own not in cold.stderr.splitlines()[-1]
    warm = user.run(user.python, "-c", NAMESPACE, *words, check=True)
    assert warm.stderr.splitlines()[-1] == f"{own} False"


def test_a_cached_build_is_exported_and_run(user: OrdinaryUser, base_for_all: list[str]) -> None:
    user.write(Dockerfile="FROM base\nRUN echo a > /a && chown 1000 /a && chmod 600 /a\nCMD cat /a\n")
    user.ok("build", *base_for_all, "-t", "x", ".")
    done = user.ok("build", *base_for_all, "-t", "x", "-o", "type=oci,dest=x.tar", ".")
    assert "DONE" not in done.stderr
    assert user.ok("run", "--rm", "x.tar").stdout == "a\n"
    assert user.ok("run", "--rm", "-v", f"{user.cwd}:/host", "x", "sh", "-c", "id -u && ls /host").stdout.startswith(
        "0\n"
    )
    user.ok("save", "-o", "saved.tar", "x")
    for word in ("images", "history x", "inspect x", "rmi x"):
        user.ok(*word.split())


def test_a_file_that_only_its_owner_could_make_readable(user: OrdinaryUser, base_for_all: list[str]) -> None:
    user.write(Dockerfile="FROM base\nCOPY none /none\n", none="n")
    (user.cwd / "none").chmod(0)
    user.ok("build", *base_for_all, ".")


def test_one_id_is_enough_for_what_has_one_owner(lone_user: OrdinaryUser, busybox: Path) -> None:
    shutil.copy(busybox, lone_user.cwd / "busybox")
    start = 'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "--install", "-s", "/bin"]\n'
    lone_user.write(Dockerfile=f"{start}RUN id -u && echo x > /x && mkdir /d && rm /x\n")
    lone_user.ok("build", "-t", "x", ".")
    lone_user.write(Dockerfile=f"{start}RUN echo x > /x && chown 5 /x\n")
    _fails(lone_user, "Dockerfile:4", "chown", "only one user is mapped", "usermod --add-subuids")
    lone_user.write(Dockerfile=f"{start}COPY --chown=5:5 busybox /b\n")
    _fails(lone_user, "Dockerfile:4", "only one user is mapped", "usermod --add-subuids")
    lone_user.write(Dockerfile=f"{start}USER 5\nRUN id\n")
    _fails(lone_user, "Dockerfile:5", "user 5:0: id 5 is not mapped here", "only one user is mapped")


def test_one_id_and_a_base_with_more(lone_user: OrdinaryUser, base_for_all: list[str]) -> None:
    lone_user.write(Dockerfile="FROM base\nRUN true\n")
    _fails(lone_user, "home/app", "only one user is mapped", words=base_for_all)


def test_ids_beyond_the_range(user: OrdinaryUser, base_for_all: list[str]) -> None:
    user.write(Dockerfile="FROM base\nRUN echo x > /x && chown 65537 /x\n")
    _fails(user, "chown", "users up to 65536 are mapped", words=base_for_all)
    user.write(Dockerfile="FROM base\nRUN mknod /null c 1 3\n")
    _fails(user, "mknod", "no device can be made", words=base_for_all)


def test_device_nodes_of_an_image_are_left_out_and_that_is_said(user: OrdinaryUser, busybox: Path) -> None:
    with tarfile.open(user.cwd / "rootfs.tar", "w") as archive:
        for name, kind in (("a\x1b[2J", tarfile.CHRTYPE), ("b", tarfile.BLKTYPE), ("c", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(f"dev/{name}")
            member.type, member.devmajor, member.devminor, member.linkname = kind, 10, 175, "dev/b"
            archive.addfile(member)
        archive.add(busybox, "bin/busybox")
    said = "warning: 3 device nodes of a layer left out, only root can make them: '/dev/a\\x1b[2J', …"
    assert user.ok("import", "rootfs.tar", "devices").stderr.count(said) == 1
    assert "warning" not in user.ok("run", "--rm", "devices", "/bin/busybox", "ls", "/dev").stderr
    user.ok("save", "-o", "image.tar", "devices")
    user.root = user.root.with_name("another-store")
    user.ok("load", "-i", "image.tar")
    user.write(Dockerfile='FROM devices\nRUN ["/bin/busybox", "true"]\n')
    assert user.ok("build", ".").stderr.count(said) == 1
    assert "warning" not in user.ok("build", "--no-cache", ".").stderr


def test_another_users_store(user: OrdinaryUser, pybuild: Pybuild) -> None:
    user.write(Dockerfile="FROM scratch\nLABEL a=b\n")
    user.ok("build", ".")
    done = pybuild("images", env={"PYBUILD_ROOT": str(user.root)})
    assert done.returncode == 1
    assert f"the store belongs to user {user.uid}: expected user 0" in done.stderr
    pybuild.write(Dockerfile="FROM scratch\nLABEL a=b\n")
    theirs = user.home / "roots"
    pybuild.ok("build", ".", env={"PYBUILD_ROOT": str(theirs)})
    done = user("images", env={"PYBUILD_ROOT": str(theirs)})
    assert done.returncode == 1
    assert "permission denied" in done.stderr
    theirs.chmod(0o755)
    done = user("images", env={"PYBUILD_ROOT": str(theirs)})
    assert "the store belongs to root" in done.stderr
    assert "PYBUILD_ROOT" in done.stderr


def test_the_store_is_in_the_users_home(user: OrdinaryUser) -> None:
    user.write(Dockerfile="FROM scratch\nLABEL a=b\n")
    home = str(user.home / "somewhere")
    user.ok("build", ".", env={"PYBUILD_ROOT": "", "HOME": home, "XDG_DATA_HOME": ""})
    assert (user.home / "somewhere/.local/share/pybuild/version").is_file()
    user.ok("build", ".", env={"PYBUILD_ROOT": "", "XDG_DATA_HOME": str(user.home / "data")})
    assert (user.home / "data/pybuild/version").is_file()


def test_the_choice_of_a_snapshotter_is_said_once(user: OrdinaryUser, base_for_all: list[str]) -> None:
    """A store on an overlay, as the root of a container is, which cannot be the upper layer of another one."""
    top = user.home / "overlay"
    for name in ("upper", "work"):
        (top / name).mkdir(parents=True, exist_ok=True)
    user.give(top)
    mount = f"mount -t overlay -o lowerdir={user.cwd},upperdir={top}/upper,workdir={top}/work none {top}/upper"
    user.prefix = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    env = {"PYBUILD_ROOT": f"{top}/upper/store"}
    user.write(Dockerfile="FROM base\nRUN echo x > /x\nRUN echo y > /y && ! test -e /z\n")
    done = user.ok("build", *base_for_all, "-t", "x", ".", env=env)
    assert done.stderr.count("snapshotter native: overlayfs: invalid argument; ") == 1, done.stderr
    assert "snapshotter" not in user.ok("build", *base_for_all, "-t", "x", ".", env=env).stderr
    user.write(Dockerfile="FROM base\nRUN rm /etc/group\n")
    done = user("build", *base_for_all, ".", env=env)
    assert done.returncode == 1
    assert "'group' was deleted, which the store's filesystem cannot note" in done.stderr
    assert "--volume pybuild:" in done.stderr
    done = user("build", *base_for_all, "--snapshotter", "overlay", ".", env=env)
    assert done.returncode == 125
    assert "--snapshotter native" in done.stderr


def _fails(user: OrdinaryUser, *parts: str, words: list[str] | None = None) -> None:
    done = user("build", *(words or []), "--progress", "plain", ".")
    assert done.returncode in (1, 125), done.stderr
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr, done.stderr


def test_what_looks_after_the_store_sees_all_of_it(user: OrdinaryUser, base_for_all: list[str]) -> None:
    user.write(Dockerfile="FROM base\nRUN mkdir /p && echo a > /p/a && chown -R 1000 /p && chmod 700 /p\n")
    user.ok("build", *base_for_all, "-t", "x", ".")
    user.ok("store", "check")
    assert user.ok("du").stderr == ""
    user.ok("rmi", "x")
    user.ok("prune", "-a", "-f")
    assert not [path for path in (user.root / "snapshots").iterdir() if path.name != "empty"]


def test_a_file_that_may_not_be_read_is_told_with_a_way_out(user: OrdinaryUser) -> None:
    user.write(Dockerfile="FROM scratch\nCOPY . /\n", mine="m", unreadable="u")
    os.chown(user.cwd / "unreadable", 0, 0)
    (user.cwd / "unreadable").chmod(0o600)
    done = user("build", ".")
    assert done.returncode == 1
    assert f"{user.cwd}/unreadable: permission denied\nhint: let it be read, or leave it out of" in done.stderr
    user.write(**{".dockerignore": "unreadable\n"})
    user.ok("build", ".")


@pytest.fixture
def given_group(user: OrdinaryUser) -> Iterator[str]:
    """A group of v1 that root made for the user under each controller."""
    hierarchies = [each for each in cgroup.find_hierarchies() if LIMITING.intersection(each.controllers)]
    if not any("memory" in each.controllers for each in hierarchies):
        pytest.skip("only v1 has groups that root gives away; of v2 one is delegated")
    name = f"pybtest-{os.getpid()}"
    directories = [f"{each.root_dir}/{name}" for each in hierarchies]
    try:
        for directory in directories:
            os.mkdir(directory)
            user.give(Path(directory))
            if os.path.exists(f"{directory}/cpuset.cpus"):
                fill_cpuset(directory)
        yield f"/{name}"
    finally:
        for directory in directories:
            os.rmdir(directory)


def test_limits_in_a_group_that_root_gave_away(user: OrdinaryUser, base_for_all: list[str], given_group: str) -> None:
    user.write(Dockerfile="FROM base\nRUN a=x; while true; do a=$a$a; done\n")
    words = ["build", *base_for_all, "-m", "20m", "--cpus", ".5", "."]
    failed = user(*words, "--cgroup-parent", given_group)
    assert "killed: out of memory, the limit is 20 MiB" in failed.stderr
    failed = user(*words)
    assert re.search(r"no limit on (cpu|memory) can be set", failed.stderr)
    assert "name it with --cgroup-parent" in failed.stderr
