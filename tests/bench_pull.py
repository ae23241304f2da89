"""How long it takes to pull and unpack a Debian base, beside docker and buildah: `python -m tests.bench_pull [ROUNDS]`.

As root. The base is what mmdebstrap makes of this machine's release, or a tree of about its shape where that is not to
be had (`--generated`); a registry on loopback has it as one gzip layer. Every round each program pulls it once, in
turn, into a store that is empty. docker's time is its client's, its memory the daemon's. With `--first` clients,
daemon and registry have the highest ordinary priority, which keeps some of a busy machine's other work out of the
figures. (Real-time priority would not do: programs in Go wait for each other by spinning, and may stop each other.)
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.conftest import Pybuild
from tests.e2e.peers import Docker, docker_daemon
from tests.e2e.test_real_program import ACQUIRE, apt_directory, codename
from tests.registries import Registry, registry

MEMORY_BOUND = 150.0
"""MB that a pull may take at its peak."""
_PATIENCE = 120
"""Seconds that one pull may take."""
_MEASURE = """
import json, os, sys, time
null = os.open(os.devnull, os.O_RDWR)
start = time.perf_counter()
moves = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1)]
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=moves)
_, status, usage = os.wait4(child, 0)
seconds = time.perf_counter() - start
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss / 1024]))
"""
"""A small process of its own: a child's peak begins with what its parent had."""


class Pull(NamedTuple):
    """One pull: how long it took, and the peak of its resident memory in MB."""

    seconds: float
    peak: float


class Program(NamedTuple):
    """What pulls: a command that does it, and what makes its store empty before."""

    command: tuple[str, ...]
    empty: Callable[[], object]
    environ: dict[str, str]
    daemon: int = 0


def pull(program: Program) -> Pull:
    """Empty the store and pull."""
    program.empty()
    if program.daemon:
        Path(f"/proc/{program.daemon}/clear_refs").write_text("5")  # proc(5): the peak begins anew
    command = [sys.executable, "-ISc", _MEASURE, *program.command]
    environ = {**os.environ, **program.environ}
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, check=True, text=True, timeout=_PATIENCE)
    code, seconds, peak = json.loads(done.stdout)
    if code:
        raise SystemExit(f"{' '.join(program.command)}: exit {code}")
    return Pull(seconds, _peak_of(program.daemon) if program.daemon else peak)


def _peak_of(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def debian_base(scratch: Path) -> Path:
    """The tarball of a minimal Debian with apt: 60 MB when it is compressed."""
    sources = apt_directory(scratch / "apt")
    dump = ["apt-config", "dump", "--no-empty", "--format", '%F "%v";%n', "Acquire"]
    settings = subprocess.run(dump, capture_output=True, check=True, text=True).stdout
    options = [f"--aptopt={line}" for line in settings.splitlines() if ACQUIRE.match(line)]
    base = scratch / "base.tar"
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=apt", *options, codename(), base, *sources], check=True, timeout=400
    )
    return base


def generated_base(scratch: Path) -> Path:
    """A tarball with as many files, directories and links as that has, about as large and as compressible."""
    chance = random.Random(1)
    words = [chance.randbytes(chance.randrange(3, 12)) for _ in range(4000)]
    base = scratch / "base.tar"
    (scratch / "file").write_bytes(b"")
    with tarfile.open(base, "w", format=tarfile.GNU_FORMAT) as tar:
        for number in range(6000):
            member = tarfile.TarInfo(f"usr/d{number % 600}/f{number}")
            if number % 10 == 9:
                member.type, member.linkname = tarfile.SYMTYPE, f"f{number - 1}"
                tar.addfile(member)
                continue
            content = b"".join(chance.choices(words, k=int(chance.paretovariate(1.1) * 250) % 200_000))
            (scratch / "file").write_bytes(content)
            member.size = len(content)
            with open(scratch / "file", "rb") as file:
                tar.addfile(member, file)
    return base


def compressed(base: Path) -> Path:
    """The same with gzip at its usual level."""
    path = base.with_suffix(".tar.gz")
    with open(base, "rb") as plain, gzip.open(path, "wb", compresslevel=6) as packed:
        shutil.copyfileobj(plain, packed, 1 << 20)
    return path


def publish(scratch: Path, base: Path, running: Registry) -> str:
    """Push the tarball as an image; its name."""
    builder = Pybuild(scratch / "builder", scratch)
    name = running.name("debian:base")
    builder.ok("import", str(base), name)
    builder.ok("push", "-q", name)
    return name


def programs(scratch: Path, name: str, docker: Docker) -> dict[str, Program]:
    """What is compared, by name."""
    store, storage = scratch / "store", scratch / "b"
    puller = Pybuild(store, scratch)
    buildah = ("buildah", "--root", str(storage / "root"), "--runroot", str(storage / "run"))
    words = (*buildah, "--storage-driver", "overlay", "pull", "-q", "--tls-verify=false", name)

    def forget() -> None:
        docker("image", "prune", "--all", "--force")

    return {
        "pybuild": Program(
            tuple(puller.argv("pull", "-q", name)),
            lambda: shutil.rmtree(store, ignore_errors=True),
            dict(puller.environment()),
        ),
        "docker": Program(
            ("docker", "pull", "-q", name), forget, docker.environ, int((scratch / "d" / "pid").read_text())
        ),
        "buildah": Program(words, lambda: _remove_storage(storage), {}),
    }


def _remove_storage(storage: Path) -> None:
    subprocess.run(["umount", "-q", str(storage / "root" / "overlay")], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(storage, ignore_errors=True)


@contextmanager
def servers(scratch: Path) -> Iterator[tuple[Registry, Docker]]:
    """A registry and a docker daemon."""
    with registry(scratch / "registry") as running, contextmanager(docker_daemon)(scratch / "d") as docker:
        yield running, docker


def report(found: dict[str, list[Pull]]) -> bool:
    """Print the table; whether pybuild keeps its bounds: no slower than the others, not more memory than it may."""
    ours = statistics.median(each.seconds for each in found["pybuild"])
    peak = max(each.peak for each in found["pybuild"])
    print(f"{'program':<10}{'median s':>10}{'least s':>10}{'most s':>10}{'peak MB':>10}{'to pybuild':>12}")
    is_kept = peak <= MEMORY_BOUND
    for name, pulls in found.items():
        seconds = [each.seconds for each in pulls]
        median = statistics.median(seconds)
        is_kept = is_kept and median >= ours
        print(
            f"{name:<10}{median:>10.2f}{min(seconds):>10.2f}{max(seconds):>10.2f}"
            f"{max(each.peak for each in pulls):>10.1f}{median / ours:>12.2f}"
        )
    return is_kept


def main(argv: list[str]) -> int:
    """1 if pybuild is slower than another program, or takes too much memory."""
    parser = argparse.ArgumentParser("tests.bench_pull")
    parser.add_argument("rounds", nargs="?", type=int, default=5)
    parser.add_argument("--base", type=Path, help="a tarball to use instead of making one")
    parser.add_argument("--generated", action="store_true", help="a made-up tree instead of Debian")
    parser.add_argument("--first", action="store_true", help="give everything the highest ordinary priority")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is stopped
    if args.first:
        os.setpriority(os.PRIO_PROCESS, 0, -20)  # which children have, too
    with tempfile.TemporaryDirectory(prefix="pull-", ignore_cleanup_errors=True) as directory:
        scratch = Path(directory)
        (scratch / "d").mkdir()
        base = args.base or (generated_base(scratch) if args.generated else debian_base(scratch))
        packed = base if base.suffix in (".gz", ".tgz") else compressed(base)
        with servers(scratch) as (running, docker):
            name = publish(scratch, packed, running)
            print(f"{packed.stat().st_size / 1e6:.1f} MB in one layer, load {os.getloadavg()[0]:.1f}", flush=True)
            found: dict[str, list[Pull]] = {}
            for _ in range(args.rounds):
                for program, how in programs(scratch, name, docker).items():
                    found.setdefault(program, []).append(pull(how))
                    print(f"{program}: {found[program][-1].seconds:.2f} s", file=sys.stderr, flush=True)
            is_kept = report(found)
            _remove_storage(scratch / "b")
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
