"""Attacks on the machine's patience: processes, memory, disk, output, signals, terminals."""

from __future__ import annotations

import os
import signal
import subprocess
import time

from tests.attacks.catalogue import attack
from tests.attacks.scene import Scene, printed

AREA = "Resources"
_ROOT_LIMITS = "an ordinary user has limits only where control groups are delegated to him"


@attack(
    AREA,
    "fork bombs",
    "fork without end under --pids-limit 64",
    "forks fail; the step and every process of it end",
    root_only=_ROOT_LIMITS,
)
def fork_bomb(scene: Scene) -> None:
    lines = scene.step("/probe bomb", "--pids-limit", "64")
    assert 0 < int(lines[-1].split()[0]) < 64


@attack(
    AREA,
    "generic",
    "take 16 GiB of memory under --resource memory=64m",
    "the kernel ends the step, the error names the limit",
    root_only=_ROOT_LIMITS,
)
def memory_without_end(scene: Scene) -> None:
    scene.refused(scene.build("FROM base\nRUN /probe memory\n", "--resource", "memory=64m"), "out of memory", "64 MiB")


@attack(
    AREA,
    "generic",
    "fill the disk, and use up its inodes: in the root, /dev/shm, /tmp, a cache",
    "an error of the step; its files are given back, those of a cache by `pybuild prune`; the next build works",
    root_only="makes a file system of 48 MB",
)
def disk_and_inodes(scene: Scene) -> None:
    with scene.small_disk(48, 6000):
        scene.refused(scene.build("FROM base\nRUN dd if=/dev/zero of=/big bs=1M count=4096\n"))
        many = "i=0; while [ $i -lt 10000 ]; do : > /many$i || exit 1; i=$((i+1)); done"
        scene.refused(scene.build(f"FROM base\nRUN {many}\n"))
        scene.refused(
            scene.build("FROM base\nRUN --mount=type=cache,target=/c dd if=/dev/zero of=/c/x bs=1M count=4096\n")
        )
        scene.ok(scene("prune", "--force", "--all"))
        scene.ok(scene.build("FROM base\nRUN dd if=/dev/zero of=/dev/shm/x bs=1M count=4096 || echo fine\n"))


@attack(
    AREA,
    "log floods",
    "print 1 GB: in one line, in lines of one byte for 32 MB; zero bytes, escape sequences",
    "read as fast as it comes in constant memory; the build ends",
)
def log_flood(scene: Scene) -> None:
    scene.file(
        "Dockerfile",
        "FROM base\nRUN dd if=/dev/zero bs=1M count=1024 2>/dev/null | tr '\\0' x\nRUN yes | head -c 1000000\n",
    )
    base = f"base=oci-layout://{scene.base_layout}"
    words = scene.pybuild.argv("build", "--build-context", base, "--progress=plain", ".")
    done = subprocess.run(
        ["sh", "-c", 'ulimit -v 2000000; exec "$@"', "sh", *words], cwd=scene.cwd, env=scene.pybuild.environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0


@attack(
    AREA,
    "generic",
    "leave processes behind: double fork, setsid, signals ignored, output held open",
    "they end with pid 1 of the step",
)
def daemons(scene: Scene) -> None:
    begun = time.monotonic()
    scene.ok(scene.build(f"FROM base\nRUN /probe daemon {scene.marker}; /probe daemon {scene.marker}; echo started\n"))
    assert time.monotonic() - begun < 40
    assert not scene.processes()


@attack(
    AREA,
    "generic",
    "ignore SIGTERM, SIGINT and SIGHUP, as pid 1 and as its child, while the build is told to end",
    "every process of the build ends within seconds",
)
def ignored_signals(scene: Scene) -> None:
    scene.file("Dockerfile", f"FROM base\nRUN /probe daemon {scene.marker}; exec /probe stay {scene.marker}\n")
    base = f"base=oci-layout://{scene.base_layout}"
    for number in (signal.SIGTERM, signal.SIGINT):
        words = scene.pybuild.argv("build", "--build-context", base, "--progress=plain", ".")
        build = subprocess.Popen(
            words, cwd=scene.cwd, env=scene.pybuild.environment(), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 40
            while not any("stay" in process and "probe" in process for process in scene.processes()):
                assert time.monotonic() < deadline, "the step did not start"
                time.sleep(0.05)
            os.killpg(build.pid, number)
            build.wait(20)
        finally:
            if build.poll() is None:
                os.killpg(build.pid, signal.SIGKILL)
                build.wait()
    deadline = time.monotonic() + 5
    while scene.processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not scene.processes()


@attack(
    AREA,
    "generic",
    "hold the terminal of `run -t` open in a background process, and turn its modes upside down",
    "the command ends with the program; the user's terminal is as before",
)
def held_terminal(scene: Scene) -> None:
    import termios

    scene.ok(scene.build("FROM base\n", "-t", "base"))
    ours, theirs = os.openpty()
    try:
        before = termios.tcgetattr(theirs)
        script = f"stty raw -echo; /probe daemon {scene.marker}; setsid sleep 600 & exit 3"
        words = scene.pybuild.argv("run", "--rm", "-i", "-t", "base", "sh", "-c", script)
        done = subprocess.run(
            words, cwd=scene.cwd, env=scene.pybuild.environment(), stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True, timeout=40, check=False,
        )  # fmt: skip
        assert done.returncode == 3
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)


@attack(
    AREA,
    "generic",
    "sparse files of 8 TiB, 10,000 links to a file, names of 255 bytes in 500 levels, times before 1970 and "
    "after 2400, "
    "in what a step leaves",
    "a layer or an error, in time and without their size on the disk",
)
def odd_files_of_a_step(scene: Scene) -> None:
    script = (
        "dd if=/dev/zero of=/sparse bs=1 count=0 seek=1073741824 2>/dev/null; touch -d @-5000000000 /old; "
        "touch -d @15000000000 /new; cd /tmp; i=0; while [ $i -lt 200 ]; do mkdir " + "d" * 200 + "; cd " + "d" * 200
        + "; i=$((i+1)); done; mkfifo /fifo; ln -s /dev/zero /zero; true"
    )  # fmt: skip
    done = scene.build(f"FROM base\nRUN {script}\n")
    assert done.returncode in (0, 1)
    assert "alive" not in printed(done)
