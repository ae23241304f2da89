"""The page of attacks, made from the attacks: `python -m tests.attacks.page > SECURITY.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from tests.attacks.catalogue import EVERYBODY, Attack, Elsewhere, catalogue

_HEAD = """\
# Security

pybuild runs what strangers wrote: Dockerfiles, images, archives, repositories. What they try is in this table, and
each row is a test that tries it: `python -m pytest tests/attacks` makes every attack with the command itself, as root
and as an ordinary user, and after each looks whether the canaries on the host are alive, and whether a process, a
mount or a change of the machine is left. An attack that hangs for a minute has succeeded. This page is made from the
attacks themselves: `python -m tests.attacks.page > SECURITY.md`.

"""

_SANDBOX = """\
## What a step is held by

- Namespaces of its own: mount, pid, uts, ipc, cgroup, and network unless it is given the host's; a user namespace for
  an ordinary user. pid 1 of the step is the program; when it ends, everything does.
- A root of its own by pivot_root(2), reached by descriptors and openat2(2) only. `/proc`, `/dev` and `/sys` are
  mounted anew; an image in which they are links is refused. What Docker masks or makes read-only is so here.
- Docker's default capabilities, none of them inheritable or ambient. Docker's default seccomp profile: what it does
  not allow is refused. A test compiles Docker's own file for x86-64, arm64, riscv64 and loongarch64 and compares the
  verdict on every call. It differs where Docker's is softer: the family of a socket is compared as the kernel reads
  it, by its low 32 bits, and x32 calls are refused. As with Docker, 32-bit programs can reach AF_ALG through
  socketcall(2), whose arguments no filter sees.
- `--security-opt seccomp=FILE` sets another profile in Docker's form, `--security-opt no-new-privileges` takes
  set-user-id programs their effect, both for `build` and `run`. For a build `seccomp=unconfined` needs `--allow
  security.insecure`, because it takes from every RUN what that entitlement is about.
- A session keyring of its own. Core files are limited to 1 byte, at which the kernel neither writes one nor starts
  the machine's handler; `--ulimit core=…` says otherwise. Only harmless devices can be opened, whatever is made by
  mknod(2).
- `security.insecure`, `network.host` and `device[=NAME]` are granted by `--allow` alone. One gate in front of every
  process compares what it would get with what was granted, whoever asks: RUN, the debug shell, `run`.
- The time of day is the machine's: Linux has no namespace for that clock, and no call that sets it is allowed. With
  `SOURCE_DATE_EPOCH` the clocks that tell how long the machine has been running start anew with each step.

"""

ELSEWHERE: tuple[Elsewhere, ...] = (
    Elsewhere(
        "Contexts and sources",
        "generic",
        "directories and files of a context swapped for links and fifos while they are read",
        "noticed, an error",
        "tests/builder/test_copy_attacks.py",
    ),
    Elsewhere(
        "Layers and archives",
        "generic",
        "tar members of every unsafe kind, by the unpacker itself",
        "refused, or inside the root",
        "tests/cache/test_cache_unpack.py",
    ),
    Elsewhere(
        "Mounts of a step",
        "CVE-2024-23651",
        "a bind mount's source exchanged with a link to the host all the time",
        "the host is never seen",
        "tests/builder/test_sandbox_mounts.py::test_a_source_that_is_swapped_all_the_time_never_shows_the_host",
    ),
    Elsewhere(
        "Mounts of a step",
        "CVE-2024-23652",
        "a step makes the removal of mount points hit host files",
        "only the inode that was made is removed",
        "tests/builder/test_sandbox_mounts.py::test_a_clean_up_only_removes_what_was_made",
    ),
    Elsewhere(
        "What a step runs",
        "CVE-2019-5736",
        "the interpreter that makes sandboxes is looked at from outside",
        "it is on a read-only mount",
        "tests/builder/test_sandbox_isolation.py::test_the_launchers_interpreter_is_on_a_read_only_mount",
    ),
    Elsewhere(
        "Secrets",
        "CVE-2023-26054",
        "credentials of one host, asked for by another: redirects, submodules, other ports",
        "they go to their host only",
        "tests/builder/test_fetch.py::test_credentials_go_to_their_host_only",
    ),
    Elsewhere(
        "Documents of images",
        "CVE-2024-23650",
        "any bytes as a Dockerfile, .dockerignore, tar, JSON of an image, reference",
        "an error of pybuild's own, in time",
        "tests/fuzz/targets.py",
    ),
    Elsewhere(
        "Documents of images",
        "CVE-2024-24557",
        "any field of any instruction changed, with a warm cache",
        "the key changes; a cached build is what a cold one is",
        "tests/e2e/test_cached_is_cold.py",
    ),
    Elsewhere(
        "Links in the place of directories",
        "LWN 1050887",
        "container paths joined as text anywhere in the source",
        "a test of the source finds it",
        "tests/test_paths.py",
    ),
    Elsewhere(
        "Resources",
        "generic",
        "kill -9, SIGTERM and ^C of a build at any time",
        "nothing of it is left within two seconds",
        "tests/e2e/test_cancel.py",
    ),
)

_NOT_HERE = """\
## Not here

| of the field's attacks | why not |
|---|---|
| SELinux and AppArmor labels (CVE-2025-52881, CVE-2023-28642) | no label is ever written |
| FIPS and other implicit mounts (CVE-2024-9341) | there are none |
| frontends as images (CVE-2026-33747) | `# syntax=` runs nothing |
| qemu's check (CVE-2020-27534) | nothing is run to see what the machine can run |
| copying out of running containers (CVE-2018-15664, CVE-2026-41568) | there is no such command |
"""


def page() -> str:
    """The whole page as Markdown."""
    attacks = catalogue()
    parts = [_HEAD, _SANDBOX, "## Attacks\n"]
    for area in dict.fromkeys(attack.area for attack in attacks):
        parts.append(_section(area, [each for each in attacks if each.area == area]))
    return "\n".join([*parts, _NOT_HERE])


def _section(area: str, attacks: Sequence[Attack]) -> str:
    rows = [
        f"| {each.source} | {_cell(each.attempt)} | {_cell(each.expected)} | {_who(each)} | `{each.id}` |"
        for each in attacks
    ]
    rows += [
        f"| {each.source} | {_cell(each.attempt)} | {_cell(each.expected)} | | `{each.test}` |"
        for each in ELSEWHERE
        if each.area == area
    ]
    head = ["| like | what is tried | what comes of it | tried as | test |", "|---|---|---|---|---|"]
    return "\n".join([f"### {area}\n", *head, *rows, ""])


def _who(attack: Attack) -> str:
    return "root, ordinary user" if attack.who == EVERYBODY else f"root ({attack.why_not})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def undocumented(areas: Iterable[str]) -> list[str]:
    """Areas of ELSEWHERE that no attack has, which the page would leave out."""
    known = {*areas}
    return [each.area for each in ELSEWHERE if each.area not in known]


if __name__ == "__main__":
    sys.stdout.write(page())
