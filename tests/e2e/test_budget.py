"""What a build may cost: the modules a warm build loads, and the memory of a large context."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import Pybuild

HEAVY = (
    "lark",
    "networkx",
    "pyroute2",
    "tqdm",
    "ssl",
    "asyncio",
    "concurrent",
    "subprocess",
    "dataclasses",
    "ctypes",
    "_hashlib",
    "gettext",
    "locale",
    "threading",
)
PROBE = """
import json, sys
from builder.cli import main
code = main(sys.argv[1:])
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
raise SystemExit(code)
"""


def loaded(pybuild: Pybuild, *words: str) -> set[str]:
    """The modules in memory after a command."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words],
        cwd=pybuild.cwd,
        env=pybuild.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_cached_build_loads_no_heavy_module(pybuild: Pybuild, based: list[str]) -> None:
    stages = "".join(f"FROM base AS s{number}\nCOPY f /f\nRUN cp /f /g{number}\n" for number in range(5))
    copies = "".join(f"COPY --from=s{number} /g{number} /\n" for number in range(5))
    pybuild.write(Dockerfile=f"{stages}FROM base\n{copies}", f="f")
    words = ["build", *based, "-t", "x", "."]
    cold = loaded(pybuild, *words)
    assert {"lark", "networkx"} <= cold
    warm = loaded(pybuild, *words)
    heavy = sorted({name.partition(".")[0] for name in warm} & set(HEAVY))
    assert heavy == []
    assert not [
        name for name in warm if name.startswith(("builder.cachestore", "builder.borrowing", "builder.registry"))
    ]


def test_memory_of_a_large_context(pybuild: Pybuild, based: list[str], tmp_path: Path) -> None:
    pybuild.write(Dockerfile="FROM base\nCOPY big /big\n")
    with open(pybuild.cwd / "big", "wb") as file:
        for number in range(64):
            file.write(bytes([number]) * (16 << 20))
    dest = tmp_path / "out.tar"
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *pybuild.argv("build", *based, "-o", f"type=oci,dest={dest}", ".")],
        cwd=pybuild.cwd,
        env=pybuild.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    peak_kib = int(done.stdout.splitlines()[-1])
    assert os.path.getsize(dest) > 1 << 20
    assert peak_kib < 150 * 1024


_MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_cached_build_of_settled_files_reads_neither_them_nor_their_table(pybuild: Pybuild, based: list[str]) -> None:
    """Once a file is old enough, what copies read is remembered as a whole; a warm build explains nothing."""
    pybuild.write(Dockerfile="FROM base\nCOPY src /src\n", src__a="a", src__b="b")
    words = ["build", "-q", *based, "."]
    pybuild.ok(*words)
    time.sleep(2.1)
    pybuild.ok(*words)
    warm = loaded(pybuild, *words)
    assert not {"builder.ops.select", "builder.explain.notes", "cache.keynotes", "zlib"} & warm
    (pybuild.cwd / "src/a").write_text("c")
    assert "builder.explain.notes" in loaded(pybuild, *words)
