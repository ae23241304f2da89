"""Attacks by what a step runs: on the program that runs builds, on descriptors, namespaces, devices, the kernel."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.attacks.catalogue import attack
from tests.attacks.scene import Member, Scene, compile_program, printed, results, tar_of

AREA = "What a step runs"


@attack(
    AREA,
    "CVE-2019-5736",
    "an image with a dynamic loader of its own runs /proc/self/exe, which is the program that makes sandboxes, and "
    "writes that file from inside",
    "the file lies on a read-only mount (EROFS); it has not changed",
)
def overwrite_the_runtime(scene: Scene) -> None:
    loader = compile_program("loader", scene.scratch, "-nostdlib", "-static-pie", "-fPIE", "-ffreestanding")
    place = _interpreter_of(os.path.realpath(sys.executable)).lstrip("/")
    parents = [Member(f"{parent}", tarfile.DIRTYPE) for parent in list(map(str, Path(place).parents))[-2::-1]]
    tar = tar_of(*parents, Member(place, content=loader.read_bytes()))
    done = scene.build('FROM evil\nRUN ["/proc/self/exe", "-c", ""]\n', *scene.image(tar))
    assert "loader EROFS" in done.stderr, done.stderr
    script = Member("script", content=b"#!/proc/self/exe\n")
    done = scene.build('FROM evil\nENTRYPOINT ["/script"]\nRUN ["/script"]\n', *scene.image(tar, tar_of(script)))
    assert "SUCCEEDED" not in done.stderr + done.stdout


def _interpreter_of(program: str) -> str:
    """The PT_INTERP of a 64-bit ELF file (elf(5))."""
    data = Path(program).read_bytes()
    (offset,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    for number in range(count):
        kind, _, start, _, _, length = struct.unpack_from("<IIQQQQ", data, offset + number * size)
        if kind == 3:
            return data[start : start + length].rstrip(b"\0").decode()
    raise AssertionError("a program without a dynamic loader")


@attack(
    AREA,
    "CVE-2024-21626",
    "look for descriptors that were left open; WORKDIR /proc/self/fd/N and `run --workdir` for N up to 12",
    "descriptors 0, 1 and 2 only; a working directory outside of the root is refused",
)
def leaked_descriptors(scene: Scene) -> None:
    flags = ("", "--network=none", "--mount=type=cache,target=/c", "--mount=type=bind,target=/b")
    dockerfile = "".join(f"RUN {each} exec /probe descriptors\n" for each in flags)
    assert printed(scene.ok(scene.build(f"FROM base\n{dockerfile}"))) == ["0", "1", "2"] * 4
    for number in (3, 7):
        dockerfile = f"FROM base\nWORKDIR /proc/self/fd/{number}\nRUN cat ../../../../..HOST/canary\n"
        scene.refused(scene.build(dockerfile), "working directory")
    scene.ok(scene.build("FROM base\n", "-t", "base"))
    for number in range(3, 13):
        done = scene("run", "--rm", "-w", f"/proc/self/fd/{number}", "base", "cat", f"../../../..{scene.host}/canary")
        scene.refused(done, "working directory")


@attack(
    AREA,
    "generic; CVE-2022-0185, CVE-2022-0492, Copy Fail",
    "37 system calls that reach the kernel or past namespaces: unshare, clone, setns, mounts, bpf, keyrings, modules, "
    "time, names, io_uring, userfaultfd, AF_VSOCK, AF_ALG, also with high bits set that the kernel ignores",
    "every one fails",
)
def system_calls(scene: Scene) -> None:
    found = results(scene.step("/probe calls"))
    assert len(found) > 35
    assert not [name for name, result in found.items() if result == "SUCCEEDED"]
    assert found["clone3"] == "ENOSYS"
    scene.ok(scene.build("FROM base\n", "-t", "base"))
    assert "SUCCEEDED" not in scene.ok(scene("run", "--rm", "base", "/probe", "calls")).stdout


@attack(
    AREA,
    "shocker (2014)",
    "open_by_handle_at of inode 2 of the host's file system",
    "EPERM",
)
def files_by_handle(scene: Scene) -> None:
    assert results(scene.step("/probe handle")) == {"open_by_handle_at": "EPERM"}


@attack(
    AREA, "generic", "leave a chroot by a descriptor of above, 64 times `..`", "the root is the image's, not the host's"
)
def chroot_upwards(scene: Scene) -> None:
    found = results(scene.step(f"/probe chroot {str(scene.host / 'canary').lstrip('/')}"))
    assert "SUCCEEDED" not in [result for name, result in found.items() if "canary" in name]
    assert found["bin/busybox"] == "SUCCEEDED"


@attack(
    AREA,
    "generic",
    "kill -9 -1, and signals to every process in /proc",
    "only processes of the step are seen and hit",
)
def kill_everybody(scene: Scene) -> None:
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        lines = scene.step("sh -c 'ls -d /proc/[0-9]* | wc -l; kill -9 -1; echo still here'; true")
        assert int(lines[0]) < 6
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@attack(
    AREA,
    "generic",
    "write kernel settings and triggers: core_pattern, modprobe, sysrq-trigger, uevent_helper, release_agent, "
    "cgroup.procs, "
    "oom_score_adj of others; remount them writable",
    "all are read-only or not there; the machine's are as before",
)
def kernel_settings(scene: Scene) -> None:
    paths = (
        "/proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/kernel/hostname /proc/sysrq-trigger "
        "/proc/sys/vm/drop_caches /sys/kernel/uevent_helper /sys/fs/cgroup/release_agent /sys/fs/cgroup/cgroup.procs "
        "/sys/kernel/mm/transparent_hugepage/enabled /proc/sys/net/ipv4/ip_forward /proc/irq/default_smp_affinity"
    )
    script = f'for p in {paths}; do (echo 1 > $p) 2>/dev/null && echo "$p WRITTEN"; done; mount -o remount,rw /proc/sys'
    assert not [line for line in scene.step(f"{script}; true") if line.endswith("WRITTEN")]
    lines = scene.step(
        "for p in /proc/kcore /proc/keys /proc/timer_list /sys/firmware /proc/acpi; do cat $p/* $p; done; true"
    )
    assert not [line for line in lines if "directory" not in line and "No such" not in line]


@attack(
    AREA,
    "generic",
    "make nodes of the host's disk, of /dev/mem and /dev/kmsg, and read them",
    "the nodes cannot be made (ordinary user) or not be opened",
)
def device_nodes(scene: Scene) -> None:
    disk = os.stat("/").st_dev
    nodes = [
        f"b {os.major(disk)} {os.minor(disk)}",
        "b 8 0",
        "b 254 0",
        "b 259 0",
        "c 1 1",
        "c 1 11",
        "c 10 237",
        "c 10 229",
    ]
    makes = "; ".join(f"mknod /n{number} {node}" for number, node in enumerate(nodes))
    lines = scene.step(f"sh -c '{makes}; for n in /n*; do head -c 1 $n > /dev/null && echo OPENED $n; done; true'")
    assert not [line for line in lines if line.startswith("OPENED")]


@attack(
    AREA,
    "generic; CVE-2017-2616 and others by TIOCSTI",
    "type into the terminal that the build was started on: TIOCSTI on every descriptor, /dev/tty, /dev/console",
    "there is no terminal in a build; that of `run -t` is the sandbox's own; nothing was typed",
)
def type_into_the_terminal(scene: Scene) -> None:
    import fcntl
    import termios

    scene.file("Dockerfile", "FROM base\nRUN /probe type x\n")
    base = f"base=oci-layout://{scene.base_layout}"
    ours, theirs = os.openpty()
    try:
        words = scene.pybuild.argv("build", "--build-context", base, "--progress=plain", "-t", "base", ".")
        done = subprocess.run(
            words, cwd=scene.cwd, env=scene.pybuild.environment(), stdin=theirs, stderr=subprocess.PIPE, text=True,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), timeout=60, check=True,
        )  # fmt: skip
        assert "SUCCEEDED" not in done.stderr
        assert struct.unpack("i", fcntl.ioctl(theirs, termios.FIONREAD, bytes(4))) == (0,)
        words = scene.pybuild.argv("run", "--rm", "-i", "-t", "base", "/probe", "type", "x")
        subprocess.run(
            words, cwd=scene.cwd, env=scene.pybuild.environment(), stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), timeout=60, check=True,
        )  # fmt: skip
        assert struct.unpack("i", fcntl.ioctl(theirs, termios.FIONREAD, bytes(4))) == (0,)
    finally:
        os.close(ours)
        os.close(theirs)


@attack(
    AREA,
    "CVE-2021-3602",
    "read the builder's environment: /proc/*/environ of every process, the parent's, the step's own",
    "the builder's processes are not there; the environment is the image's and the build's",
)
def environment_of_the_builder(scene: Scene) -> None:
    script = "cat /proc/*/environ /proc/$PPID/environ /proc/1/environ 2>/dev/null | tr '\\0' '\\n'; env; true"
    done = scene.ok(scene.build(f"FROM base\nRUN {script}\n", env={"CANARY_TOKEN": "t0p-s3cret"}))
    assert "PATH=" in done.stderr
    assert "t0p-s3cret" not in done.stderr + done.stdout


@attack(
    AREA,
    "generic",
    "find a key of the user who builds, by name, in every keyring of the process",
    "keyrings cannot be asked, and the step's session keyring is its own",
)
def keyrings(scene: Scene) -> None:
    found = results(scene.step("/probe key pybuild-canary"))
    assert set(found.values()) == {"EPERM"}
    assert scene.step("cat /proc/keys /proc/key-users | grep -c keyring; true") == ["0"]


@attack(
    AREA,
    "core(5)",
    "crash, so that the kernel starts the machine's core dump handler as root with the step's memory, or writes the "
    "memory into the image",
    "the limit for core files is 1 byte, at which the kernel starts no handler; no core file",
)
def core_dumps(scene: Scene) -> None:
    lines = scene.step("sh -c 'cd / && /probe crash; grep core /proc/self/limits; ls -d /core* /tmp/core*; true'")
    assert [line.split()[4:6] for line in lines if line.startswith("Max core")] == [["1", "1"]]
    assert not [line for line in lines if line.startswith(("/core", "/tmp/core"))]


@attack(
    AREA,
    "core(5)",
    "the same with a handler that leaves a trace on the host",
    "the handler is not started",
    root_only="needs a core_pattern of the test's own",
    is_alone=True,
)
def core_dump_handler(scene: Scene) -> None:
    trace, handler = scene.scratch / "trace", scene.scratch / "handler"
    handler.write_text(f"#!/bin/sh\necho started >> {trace}\n")
    handler.chmod(0o755)
    pattern = Path("/proc/sys/kernel/core_pattern")
    before = pattern.read_text()
    pattern.write_text(f"|{handler}\n")
    try:
        subprocess.run(["sh", "-c", "kill -SEGV $$"], check=False)
        scene.step("sh -c 'ulimit -c unlimited; /probe crash; true'; /probe crash; true")
    finally:
        pattern.write_text(before)
    assert trace.read_text() == "started\n", "once, by the crash outside of the sandbox"


@attack(
    AREA,
    "generic",
    "see and change the machine: its name, its processes, users, mounts, network interfaces of others",
    "the name is `buildkitsandbox`, there is no mount of the host",
)
def look_around(scene: Scene) -> None:
    lines = scene.step(
        "sh -c 'hostname evil; hostname; cat /proc/mounts; cat /etc/hostname HOST/canary; true'".replace(
            "HOST", str(scene.host)
        )
    )
    assert "buildkitsandbox" in lines
    targets = [line.split()[1] for line in lines if line.endswith(" 0 0")]
    assert "/" in targets
    assert all(
        each == "/" or each.startswith(("/proc", "/dev", "/sys", "/etc/hosts", "/etc/resolv.conf")) for each in targets
    )
    assert "alive" not in lines


@attack(
    AREA,
    "CVE-2026-53488, CVE-2014-6271",
    "an image whose ENV names programs and libraries (LD_PRELOAD, GIT_SSH_COMMAND, PATH) and whose labels name "
    "handlers",
    "none of it reaches a program outside of the sandbox: git fetches as ever",
)
def environment_of_the_image(scene: Scene) -> None:
    from tests.remotes import GitRepository

    trap = f"touch {scene.host}/trap"
    variables = ["PATH=/evil", "LD_PRELOAD=/evil.so", f"GIT_SSH_COMMAND={trap}", f"GIT_ASKPASS={trap}", f"PAGER={trap}"]
    labels = {"io.containers.logger": trap, "org.opencontainers.image.handler": f"|{trap}", "io.cri-containerd": trap}
    repository = GitRepository(scene.scratch / "repository")
    repository.commit(f="f")
    words = scene.image(config={"Env": variables, "Labels": labels, "StopSignal": trap, "Shell": ["/bin/sh", "-c"]})
    with scene.server() as server:
        dockerfile = f"FROM evil\nADD {server.smart(repository)} /git\nLABEL a=b\n"
        scene.ok(scene.build(dockerfile, *words, "-t", "evil", "-o", "type=oci,dest=out.tar"))
    scene.ok(scene("save", "-o", "saved.tar", "evil"))


@attack(
    AREA,
    "CVE-2019-14271, CVE-2026-41567",
    "an image with gzip, tar, git and C libraries (nss, iconv) of its own; then ADD of archives, COPY --chown by name",
    "archives are unpacked and names looked up by pybuild itself: nothing of the image is run outside of the sandbox",
)
def programs_of_the_image(scene: Scene) -> None:
    script = b"#!/bin/sh\ntouch %s/trap\n" % str(scene.host).encode()
    names = (
        "bin/gzip",
        "bin/tar",
        "bin/git",
        "bin/xz",
        "bin/unpigz",
        "bin/zstd",
        "lib/libnss_files.so.2",
        "lib/libnss_evil.so.2",
    )
    files = [Member(name, content=script) for name in names]
    files.append(Member("etc/nsswitch.conf", content=b"passwd: evil files\n"))
    subprocess.run(["tar", "czf", scene.file("a.tar.gz", b""), "-C", scene.host, "canary"], check=True)
    scene.file("f", "f")
    dockerfile = "FROM evil\nADD a.tar.gz /a/\nCOPY --chown=root:root f /f\nUSER root\n"
    scene.ok(scene.build(dockerfile, *scene.image(tar_of(*files)), "-o", "type=local,dest=out"))
    assert (scene.cwd / "out/a/canary").read_text() == "alive\n"
