"""Accepting a build's packets where iptables drops what is forwarded, as Docker sets it up; and address translation by
iptables where the kernel has no nf_tables.

iptables has no rules that go with their process: each names the build's interface, which does, so that the next build
finds those that were left behind.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable

from builder.errors import SandboxError

COMMENT = "pybuild"
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_WAIT = ("-w", "5")
"""Seconds to wait for another program that changes rules."""
_BUSY = 4
"""iptables' exit code when another program changes rules and did not let it in, or has changed them in between."""
_TRIES, _PAUSE = 3, 0.1
_RULE = re.compile(rf'^-A (\S+) (.*?(?:-[io] |)(pyb[0-9a-f]{{8}}) .*--comment "?{COMMENT}"? .*)$')

Rule = tuple[str, str, tuple[str, ...]]
"""Program, table, and words after -I or -D: the chain, and what it matches."""


class Iptables:
    """The rules of one build. One thread may close them while another still adds some: nothing is added after that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._added: list[Rule] = []
        self._is_closed = False

    def open_forwarding(self, interface: str, *, has_ipv6: bool) -> None:
        """Let packets of an interface through where the FORWARD chain drops or rejects any. Raises SandboxError."""
        for program in ("iptables", "ip6tables") if has_ipv6 else ("iptables",):
            if find(program) and drops_forwarded(_run(program, "filter", "-S", "FORWARD")):
                for direction in ("-i", "-o"):
                    self._add(program, "filter", "FORWARD", direction, interface, target="ACCEPT")

    def translate(self, interface: str, network: str, network_6: str) -> None:
        """Address translation for what leaves a network, and nothing from outside into it. Raises SandboxError."""
        for program, source in (("iptables", network), ("ip6tables", network_6)):
            if not source:
                continue
            if not find(program):
                raise SandboxError(
                    f"neither nf_tables in the kernel nor {program}",
                    hint="install iptables, or use --network=host",
                )
            self._add(program, "nat", "POSTROUTING", "-s", source, "!", "-o", interface, target="MASQUERADE")
            self._add(program, "filter", "FORWARD", "-o", interface, target="DROP")
            state = ("-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED")
            self._add(program, "filter", "FORWARD", "-o", interface, *state, target="ACCEPT")
            self._add(program, "filter", "FORWARD", "-i", interface, target="ACCEPT")
            self._add(program, "filter", "FORWARD", "!", "-s", source, "-i", interface, target="DROP")

    def close(self) -> None:
        """Take the rules back, for good; waits for one that is being added. Idempotent."""
        with self._lock:
            self._is_closed = True
            while self._added:
                program, table, words = self._added.pop()
                _run(program, table, "-D", *words)

    def _add(self, program: str, table: str, chain: str, *matches: str, target: str) -> None:
        words = (chain, *matches, "-m", "comment", "--comment", COMMENT, "-j", target)
        with self._lock:
            if self._is_closed:
                raise SandboxError("the network was closed")
            _run(program, table, "-I", *words, must_work=True)
            self._added.append((program, table, words))


def find(program: str) -> str | None:
    """The path of a program of the system's."""
    return shutil.which(program, path=_PATH)


def drops_forwarded(listed: str) -> bool:
    """Whether a FORWARD chain, as `iptables -S` shows it, may drop what nobody accepts."""
    return any(line == "-P FORWARD DROP" or line.endswith(("-j DROP", "-j REJECT")) or "-j REJECT " in line
               for line in listed.splitlines())  # fmt: skip


def sweep(is_alive: Callable[[str], bool]) -> None:
    """Remove rules of builds whose interface has gone."""
    for program in ("iptables", "ip6tables"):
        if not find(program):
            continue
        for table in ("filter", "nat"):
            for line in _run(program, table, "-S").splitlines():
                found = _RULE.match(line)
                if found and not is_alive(found[3]):
                    _run(program, table, "-D", found[1], *found[2].replace('"', "").split())


def _run(program: str, table: str, *words: str, must_work: bool = False) -> str:
    path = find(program)
    if path is None:
        return ""
    for _ in range(_TRIES):
        done = subprocess.run(
            [path, *_WAIT, "-t", table, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={"PATH": _PATH, **{name: os.environ[name] for name in ("XTABLES_LOCKFILE",) if name in os.environ}},
            check=False,
        )
        if done.returncode != _BUSY:
            break
        time.sleep(_PAUSE)
    if done.returncode and must_work:
        raise SandboxError(
            f"{program} {' '.join(words)}: {done.stderr.strip() or f'exit code {done.returncode}'}",
            hint="use --network=host",
        )
    return done.stdout if not done.returncode else ""
