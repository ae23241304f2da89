"""What a sandbox costs, and whether it costs more without root: `python -m tests.bench_sandbox [--rounds N]`.

As root. First the step: `true` from the launcher with each kind of network, over what starting the program alone takes.
Then cold builds, of twenty small steps and of a copy of 10,000 files, by root and by an ordinary user in turn: with the
default network of each, and with pasta's for the user. Prints two tables; returns 1 if a row passes its bound.
"""

from __future__ import annotations

import argparse
import compileall
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from builder.sandbox.launcher import Streams
from builder.sandbox.spec import ProcessSpec
from tests.builder.sandboxes import Box, busybox_program, make_root
from tests.conftest import Pybuild
from tests.ordinary import OrdinaryUser, ordinary_user

STEPS = 200
NETWORKS = ("none", "host", "bridge")
MOST_STEP_MS, MOST_BRIDGE_MS, MOST_RATIO = 12.0, 10.0, 1.15
RUNS, FILES = 20, 10_000


class Root(Pybuild):
    """Root, with the interpreter and the packages that an ordinary user has."""

    def __init__(self, user: OrdinaryUser) -> None:
        super().__init__(user.home / "root-store", user.cwd)
        self._user = user

    def argv(self, *words: str) -> list[str]:
        return [self._user.python, "-m", "builder", *words]

    def environment(self, **extra: str) -> dict[str, str]:
        return super().environment(PYTHONPATH=self._user.path, **extra)


def step_rows(scratch: Path) -> bool:
    """Steps of `true`: medians of milliseconds over the program alone."""
    box = Box(scratch, make_root(scratch))
    null = os.open(os.devnull, os.O_RDWR)
    alone, rows = [], dict[str, list[float]]((network, []) for network in NETWORKS)
    for network in NETWORKS:
        _step_seconds(box, network, null)
    for _ in range(STEPS):
        alone.append(_program_seconds(f"{box.lower_dir}/bin/true"))
        for network in NETWORKS:
            rows[network].append(_step_seconds(box, network, null))
    over = {network: 1000 * (median(seconds) - median(alone)) for network, seconds in rows.items()}
    print(f"{f'`true`, median of {STEPS}':<28}{'ms over the program':>20}")
    for network, cost in over.items():
        print(f"{network:<28}{cost:>20.2f}", flush=True)
    return max(over.values()) <= MOST_STEP_MS and over["bridge"] - over["host"] <= MOST_BRIDGE_MS


def _program_seconds(path: str) -> float:
    begun = time.perf_counter()
    os.waitpid(os.posix_spawn(path, ["true"], {}), 0)
    return time.perf_counter() - begun


def _step_seconds(box: Box, network: str, null: int) -> float:
    root, spec = box.root(), ProcessSpec(("/bin/true",), ("PATH=/bin",), network=network)
    begun = time.perf_counter()
    status = box.launcher.run(spec, root, Streams(None, null, null))
    assert status.code == 0
    return time.perf_counter() - begun


def build_rows(user: OrdinaryUser, rounds: int) -> bool:
    """Cold builds: medians of seconds, and of the user's over root's."""
    compileall.compile_dir(user.home / "python", quiet=2)
    root, is_fine = Root(user), True
    _make_contexts(user)
    print(f"\n{'cold build':<28}{'root':>10}{'user':>10}{'ratio':>10}")
    for label, context in (("runs", "runs"), ("runs, pasta", "runs"), ("copysmall", "copy")):
        user.prefix = []
        if label.endswith("pasta"):
            user.borrow_tun("pasta")
        rows = [(_build_seconds(root, context), _build_seconds(user, context)) for _ in range(rounds + 1)][1:]
        mine, theirs = (median(row[index] for row in rows) for index in (0, 1))
        ratio = median(theirs / mine for mine, theirs in rows)
        print(f"{label:<28}{mine:>10.3f}{theirs:>10.3f}{ratio:>10.3f}", flush=True)
        is_fine = is_fine and ratio <= MOST_RATIO
    return is_fine


def _make_contexts(user: OrdinaryUser) -> None:
    base = "FROM scratch\nCOPY busybox /bin/sh\n"
    steps = "".join(f"RUN echo {number} > /r{number}\n" for number in range(RUNS))
    user.write(runs__Dockerfile=base + steps, copy__Dockerfile="FROM scratch\nCOPY src /src\n")
    shutil.copy(busybox_program(user.home), user.cwd / "runs/busybox")
    for number in range(FILES):
        path = user.cwd / f"copy/src/d{number % 100}/f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d\n" % number + bytes(2048 + number * 37 % 4096))
    user.give(user.cwd)


def _build_seconds(builder: Pybuild, context: str) -> float:
    """One build into an empty store."""
    shutil.rmtree(builder.root, ignore_errors=True)
    os.sync()
    begun = time.perf_counter()
    builder.ok("build", "-q", context)
    return time.perf_counter() - begun


def main(argv: Sequence[str] | None = None) -> int:
    """1 if a bound is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args(argv)
    scratch = Path(tempfile.mkdtemp(prefix="bench-sandbox-"))
    try:
        is_fine = [step_rows(scratch)]
        with ordinary_user("bench") as user:
            is_fine.append(build_rows(user, arguments.rounds))
    finally:
        subprocess.run(["rm", "-rf", scratch], check=True)
    if not all(is_fine):
        print("OVER A BOUND")
    return int(not all(is_fine))


if __name__ == "__main__":
    sys.exit(main())
