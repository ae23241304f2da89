"""A C project, built from source in Debian with a toolchain from the machine's package mirror, shipped alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import PROJECT, Pybuild
from tests.e2e.peers import require
from tests.e2e.test_build import names

pytestmark = pytest.mark.xdist_group("debian")
PROXIES = ("http_proxy", "https_proxy", "no_proxy")
TRIMMED = ("doc", "info", "locale", "man")
ACQUIRE = re.compile(r"Acquire::(https?::proxy|check-|retries)", re.IGNORECASE)


def codename() -> str:
    """The Debian release of this machine; the test is for Debian."""
    release = Path("/etc/os-release").read_text()
    found = re.search(r"^VERSION_CODENAME=(\w+)$", release, re.MULTILINE)
    if not found or not re.search(r"^ID=debian$", release, re.MULTILINE):
        pytest.skip("the test takes its base from the mirror of a Debian machine")
    return found[1]


def apt_directory(target: Path) -> list[Path]:
    """Copy this machine's /etc/apt, with the sources of its own release only; returns those."""
    shutil.copytree("/etc/apt", target)
    release = re.compile(rf"(?<![-\w]){codename()}(-security|-updates)?(?![-\w])")
    sources = [target / "sources.list", *(target / "sources.list.d").glob("*")]
    kept = []
    for path in [path for path in sources if path.is_file()]:
        if path.suffix in (".list", ".sources") and release.search(path.read_text()):
            kept.append(path)
        else:
            path.unlink()
    return kept


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Pybuild:
    """A store with the image `debian`, beside it the directory `apt` to install with."""
    require("mmdebstrap", "apt-config")
    scratch = tmp_path_factory.mktemp("debian")
    sources = apt_directory(scratch / "apt")
    settings = subprocess.run(
        ["apt-config", "dump", "--no-empty", "--format", '%F "%v";%n', "Acquire"], capture_output=True, check=True
    ).stdout.decode()
    options = [f"--aptopt={line}" for line in settings.splitlines() if ACQUIRE.match(line)]
    options += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in TRIMMED]
    base = ["mmdebstrap", "--quiet", "--variant=apt", *options, codename(), scratch / "base.tar", *sources]
    made = subprocess.run(base, capture_output=True, text=True, check=False, timeout=300)
    assert made.returncode == 0, made.stderr
    command = Pybuild(scratch / "store", scratch)
    command.write(Dockerfile="FROM scratch\nADD base.tar /\n")
    command.ok("build", "-t", "debian", ".")
    (scratch / "base.tar").unlink()
    shutil.copytree(PROJECT / "testdata" / "cproject", scratch / "cproject")
    return command


def test_c_project_from_source_to_scratch(debian: Pybuild) -> None:
    proxies = [f"--build-arg={name}" for name in (*PROXIES, *map(str.upper, PROXIES)) if name in os.environ]
    words = ["--build-context", "apt=apt", *proxies, "-t", "primes", "cproject"]
    first = debian.ok("build", *words, timeout=400)
    assert len(names(first, "DONE")) >= 5
    assert debian.ok("run", "--rm", "primes").stdout == "2 3 5 7 11 13 17 19 23 29\n"
    assert debian.ok("run", "--rm", "primes", "12").stdout == "2 3 5 7 11\n"

    again = debian.ok("build", *words)
    assert names(again, "DONE") == []
    assert again.stdout == first.stdout

    archive = debian.cwd / "primes.tar"
    debian.ok("save", "-o", str(archive), "primes")
    assert archive.stat().st_size < 2_000_000

    main = debian.cwd / "cproject" / "src" / "main.c"
    main.write_text(main.read_text().replace('puts("")', 'puts(".")'))
    (debian.cwd / "cproject" / "Makefile").write_text(
        (debian.cwd / "cproject" / "Makefile").read_text().replace("2 3 5 7", "2 3 5 7.")
    )
    changed = debian.ok("build", *words)
    assert [name.partition("] ")[2] for name in names(changed, "DONE")] == [
        "COPY . .",
        "RUN make && make check",
        "COPY --from=build /src/primes /primes",
    ]
    assert debian.ok("run", "--rm", "primes", "5").stdout == "2 3 5.\n"
