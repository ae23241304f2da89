"""`pybuild run -p`: a program in a container answers on a port of the machine, whatever kind of network it has."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import Pybuild
from tests.ordinary import OrdinaryUser

SERVE = ["sh", "-c", "while :; do nc -l -p 7000 -e cat; done"]


@pytest.fixture(params=["bridge", "pasta", "slirp4netns"])
def who(request: pytest.FixtureRequest) -> Pybuild:
    """Root with a bridge, and an ordinary user with each of the programs."""
    if request.param == "bridge":
        found = request.getfixturevalue("pybuild")
    else:
        found = request.getfixturevalue("user")
        assert isinstance(found, OrdinaryUser)
        found.borrow_tun(request.param)
    assert isinstance(found, Pybuild)
    return found


@contextmanager
def serving(who: Pybuild, *words: str) -> Iterator[int]:
    """A container that says back what it hears on port 7000; the machine's port."""
    argv = who.argv("run", "--rm", *words, "app", *SERVE)
    running = subprocess.Popen(argv, cwd=who.cwd, env=who.environment(), stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    try:
        said = next((line for line in running.stderr if "is published" in line), "")
        found = re.fullmatch(r"port 7000 is published as 127\.0\.0\.1:(\d+)\n", said)
        assert found is not None, said
        yield int(found[1])
    finally:
        running.kill()
        running.wait()
        running.stderr.close()


def answer(port: int) -> bytes:
    """What comes back of `ping`, as soon as the program listens."""
    for _ in range(600):
        # Until the program listens a connection is closed, which shows wherever the client has come to.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(b"ping\n")
            client.shutdown(socket.SHUT_WR)
            if received := b"".join(iter(lambda: client.recv(100), b"")):
                return received
    return b""


def test_a_program_answers_on_a_port_of_the_machine(who: Pybuild, base_for_all: list[str]) -> None:
    who.write(Dockerfile="FROM base\n")
    who.ok("build", *base_for_all, "-t", "app", ".")
    with serving(who, "-p", "127.0.0.1::7000") as port:
        assert answer(port) == b"ping\n"
        assert answer(port) == b"ping\n"
        taken = who("run", "--rm", "-p", f"127.0.0.1:{port}:1", "app", "true")
    assert taken.returncode == 125
    assert f"port 127.0.0.1:{port}: address already in use" in taken.stderr


@pytest.mark.parametrize("words", [("--network=host", "-p", "80"), ("--network=none", "-p", "80"), ("-p", "53/udp")])
def test_what_cannot_be_published_is_a_usage_error(words: tuple[str, ...], pybuild: Pybuild) -> None:
    done = pybuild("run", "--rm", *words, "app")
    assert done.returncode == 2
    assert "hint:" in done.stderr
