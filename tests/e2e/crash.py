"""Kill real commands at random moments, and see that the store is whole and the next build is right, with caches
elsewhere and without.

    python -m tests.e2e.crash --layout OCI-LAYOUT --scratch DIR [--kills N] [--seed S] [--disk MIB] [--seconds S]

A process of its own that has everything imported forks a victim each time, so that hundreds of kills take a minute.
`--disk` gives the store a tmpfs of that size, which builds fill. Prints a JSON object; exit code 1 for a violation.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import pkgutil
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import builder
import cache
import grammar
from builder import cli
from grammar import parser

VARIANTS = 3
FEWEST = 25
DOCKERFILE = """FROM base AS one
ARG V
RUN echo $V > /v; head -c 100000 /dev/zero > /zeros; ln /v /w
COPY . /files
FROM base AS two
ARG V
RUN --mount=type=cache,target=/c,sharing=locked echo $V >> /c/log; echo two-$V > /two
FROM base
COPY --from=one /files /v /
COPY --from=two /two /
RUN rm /v; mkdir -p /d/e; cat /two > /d/e/f
"""


def preload() -> None:
    """Import everything, and make the parser, so that no victim has to."""
    for package in (builder, cache, grammar):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(("_main", "__main__")):
                importlib.import_module(module.name)
    parser.parse_ast(DOCKERFILE.encode())


class ViolationError(Exception):
    """The store or a build is not what it has to be."""


class Crash:
    """The store that is killed at, and what its builds have to give."""

    def __init__(self, layout: Path, scratch: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.scratch = scratch
        self.layout = layout
        self.root = scratch / "store"
        self.log = scratch / "log"
        self.found = {"kills": 0, "in_time": 0, "leftovers": 0, "full": 0, "repairs": 0}
        self.contexts = [self._context(number) for number in range(VARIANTS)]
        self.right = [self._cold(number) for number in range(VARIANTS)]

    def _context(self, number: int) -> Path:
        context = self.scratch / f"context{number}"
        context.mkdir()
        (context / "Dockerfile").write_text(DOCKERFILE)
        for name in range(12):
            (context / f"f{name}").write_text(f"{name} of {number if name % 3 else 'all'}\n" * 200)
        return context

    def _cold(self, number: int) -> str:
        code, output = self.run(self.build(number), root=self.scratch / "cold" / str(number))
        if code:
            raise ViolationError(f"cold build {number}: exit {code}\n{output}")
        return output.split()[-1]

    def build(self, number: int) -> list[str]:
        base = f"base=oci-layout://{self.layout}"
        words = ["--build-context", base, "--build-arg", f"V={number}", "-q", "-t", f"image:{number}"]
        outputs = ["-o", "type=image", "-o", f"type=oci,dest={self.scratch}/out.tar"]
        return ["build", *words, *outputs, *self.caches(), str(self.contexts[number])]

    def caches(self) -> list[str]:
        """Options by chance: take from a directory, give to it, both or neither."""
        place = f"{self.root.parent}/elsewhere"
        source = ["--cache-from", f"type=local,src={place},mounts=true"]
        target = ["--cache-to", f"type=local,dest={place},mode=max,mounts=true"]
        return self.random.choice([[], source, target, source + target])

    def fork(self, *commands: list[str], root: Path | None = None) -> int:
        """A process, in a session of its own, that runs commands one after the other as the command line would."""
        pid = os.fork()
        if pid:
            return pid
        code = 70
        try:
            os.setsid()
            os.environ.update(PYBUILD_ROOT=str(root or self.root), SOURCE_DATE_EPOCH="1", PYBUILD_GC="off")
            fd = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            null = os.open("/dev/null", os.O_RDONLY)
            for target, source in ((0, null), (1, fd), (2, fd)):
                os.dup2(source, target)
            for words in commands:
                code = cli.main(words)
                sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def run(self, *commands: list[str], root: Path | None = None) -> tuple[int, str]:
        """Run to the end; the exit code of the last command and everything that was printed."""
        _, status = os.waitpid(self.fork(*commands, root=root), 0)
        return os.waitstatus_to_exitcode(status), self.log.read_text(errors="replace")

    def kill_one(self, number: int, longest: float) -> None:
        """Start a victim and kill it some time later, alone or with all of its processes."""
        commands = [self.build(number)]
        luck = self.random.random()
        if luck < 0.5:
            commands.insert(0, ["prune", "-f"] if luck < 0.2 else ["prune", "-af", "--filter", "type=regular"])
        if luck < 0.4:
            commands.insert(0, ["rmi", f"image:{number}"])
        elif luck > 0.9:
            commands.append(["store", "check", "--repair"])
        pid = self.fork(*commands)
        time.sleep(self.random.uniform(0, longest))
        with contextlib.suppress(ProcessLookupError):
            if self.random.random() < 0.5:
                os.killpg(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        self.found["kills"] += 1
        self.found["in_time"] += os.WIFSIGNALED(status)

    def check(self, *, is_repaired: bool) -> None:
        """The store opens and nothing in it is damaged."""
        if not self.root.exists():
            return  # killed before it began
        words = ["store", "check", "--format", "json", *(["--repair"] if is_repaired else [])]
        code, output = self.run(words)
        if code or '"damage"' in output or "Traceback" in output:
            raise ViolationError(f"store check after kill {self.found['kills']}: exit {code}\n{output}")
        self.found["leftovers"] += output.count("leftover")
        if is_repaired:
            self.found["repairs"] += 1
            code, output = self.run(words[:4])
            if code or output:
                raise ViolationError(f"store check after a repair: exit {code}\n{output}")

    def build_right(self, number: int) -> None:
        """The next build of the same gives what the cold one gave."""
        code, output = self.run(self.build(number))
        if code or output.split()[-1:] != [self.right[number]]:
            raise ViolationError(f"build {number}: exit {code}, expected {self.right[number]}\n{output}")

    def loop(self, kills: int, end: float) -> None:
        """Kill, check, build, until there were so many or the time is over."""
        began = time.monotonic()
        self.build_right(0)
        longest = (time.monotonic() - began) * 1.2
        for turn in range(kills):
            if turn >= FEWEST and time.monotonic() > end:
                return
            number = self.random.randrange(VARIANTS)
            self.kill_one(number, longest)
            self.check(is_repaired=turn % 5 == 4)
            if turn % 3 == 0:
                self.build_right(number)
            if turn % 10 == 9:  # a machine that has nothing but what is elsewhere
                shutil.rmtree(self.root)

    def loop_full(self, turns: int, end: float) -> None:
        """Fill the disk so far, build until it is full, make room, and see that all is well."""
        filler = self.root.parent / "filler"
        for turn in range(turns):
            if time.monotonic() > end:
                return
            number = self.random.randrange(VARIANTS)
            self.run(["rmi", *(f"image:{each}" for each in range(VARIANTS))], ["prune", "-af"])
            disk = os.statvfs(self.root.parent)
            free = disk.f_bavail * disk.f_frsize
            filler.write_bytes(bytes(max(0, free - self.random.randrange(3_000_000))))
            code, output = self.run(self.build(number))
            if "Traceback" in output or (code and not _says_full(output)):
                raise ViolationError(f"a build on a full disk: exit {code}\n{output}")
            self.found["full"] += code != 0
            if turn % 3 == 0:
                code, output = self.run(["prune", "-f"])
                if "Traceback" in output:
                    raise ViolationError(f"prune on a full disk: exit {code}\n{output}")
            filler.unlink()
            self.check(is_repaired=turn % 5 == 4)
            self.build_right(number)


def _says_full(output: str) -> bool:
    return any(word in output for word in ("space", "full", "No space"))


@contextlib.contextmanager
def small_disk(path: Path, size: int) -> Iterator[None]:
    """A tmpfs of `size` MiB at `path`."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def main() -> int:
    options = argparse.ArgumentParser()
    add: Callable[..., object] = options.add_argument
    add("--layout", type=Path, required=True)
    add("--scratch", type=Path, required=True)
    add("--kills", type=int, default=100)
    add("--seed", type=int, default=1)
    add("--disk", type=int, default=0)
    add("--seconds", type=float, default=3600)
    args = options.parse_args()
    began = time.monotonic()
    preload()
    crash = Crash(args.layout, args.scratch, args.seed)
    loop = crash.loop_full if args.disk else crash.loop
    try:
        # Kills are not about what reaches the disk, so the store of the other loop is in memory as well.
        with small_disk(args.scratch / "disk", args.disk or 1000):
            crash.root = args.scratch / "disk" / "store"
            loop(args.kills, began + args.seconds)
    except ViolationError as violation:
        print(violation, file=sys.stderr)
        return 1
    finally:
        print(json.dumps({**crash.found, "seed": args.seed, "seconds": round(time.monotonic() - began, 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
