"""The network of RUN: what is reachable from a step, what is not, and that nothing of it stays."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest

from tests.builder.world import ANSWER, GREETING_PORT, MTU, SERVER, SERVER_6, UPLINK, UPLINK_6, World
from tests.conftest import Pybuild
from tests.leftovers import kill_all

GREET = f"nc {SERVER} {GREETING_PORT}"


class Machine:
    """The command, run on the world's machine."""

    def __init__(self, world: World, pybuild: Pybuild, based: list[str]) -> None:
        self.world = world
        self.pybuild = pybuild
        self.based = based

    def words(self, *words: str, prefix: tuple[str, ...] = ()) -> list[str]:
        return self.world.words(*prefix, *self.pybuild.argv("build", *self.based, "--no-cache", *words, "."))

    def build(self, *commands: str, options: tuple[str, ...] = (), prefix: tuple[str, ...] = (), code: int = 0) -> str:
        """Everything that a build of these RUNs says."""
        self.pybuild.write(Dockerfile="FROM base\n" + "".join(f"RUN {command}\n" for command in commands))
        done = subprocess.run(
            self.words(*options, prefix=prefix),
            cwd=self.pybuild.cwd,
            env=self.pybuild.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stderr

    def start(self, command: str, *options: str) -> subprocess.Popen[str]:
        """A build of one RUN in the background, that has printed `started`."""
        self.pybuild.write(Dockerfile=f"FROM base\nRUN {command}\n")
        running = subprocess.Popen(
            self.words(*options),
            cwd=self.pybuild.cwd,
            env=self.pybuild.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert running.stderr is not None
        for line in running.stderr:
            if line.rstrip().endswith("started"):
                return running
        raise AssertionError("the step did not start")

    def wait_until_clean(self, but_for: str = "\n") -> list[str]:
        """What is left of builds after a moment, without lines with `but_for`: the kernel takes interfaces back in the
        background."""
        deadline = time.monotonic() + 10
        while left := [line for line in self.world.leftovers() if but_for not in line]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        return left


@pytest.fixture
def machine(world: World, pybuild: Pybuild, based: list[str]) -> Machine:
    return Machine(world, pybuild, based)


def test_tcp_names_and_mtu(machine: Machine) -> None:
    said = machine.build(
        f"{GREET} && nc {SERVER_6} {GREETING_PORT}",
        "nslookup -type=a anything.example && cat /sys/class/net/eth0/mtu",
        "ip addr show eth0 && ls /sys/class/net",
    )
    assert f"hello {UPLINK}\n" in said
    assert f"hello {UPLINK_6}\n" in said
    assert ANSWER in said
    assert f" {MTU}\n" in said
    assert "inet 10." in said
    assert "uplink" not in said
    assert "turned on net.ipv4.ip_forward" in said
    assert machine.wait_until_clean() == []


def test_modes(machine: Machine) -> None:
    assert "uplink" in machine.build("ls /sys/class/net", options=("--network=host",))
    said = machine.build("ls /sys/class/net; ! ip route | grep .", options=("--network=none",))
    assert "eth0" not in said
    assert "uplink" not in said
    assert f"hello {UPLINK}" in machine.build(GREET, options=("--network=bridge",))
    assert "uplink" in machine.build("--network=host ls /sys/class/net", options=("--allow=network.host",))


def test_the_mode_of_the_command_line_is_not_in_the_key(machine: Machine) -> None:
    machine.build("true")
    done = subprocess.run(
        [word for word in machine.words("--network=bridge") if word != "--no-cache"],
        cwd=machine.pybuild.cwd,
        env=machine.pybuild.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "DONE" not in done.stderr


def test_remapped_users_have_it_too(machine: Machine) -> None:
    """Their namespace belongs to theirs, so that they see what of /sys is theirs."""
    said = machine.build(GREET, "ls /sys/class/net; ! nc -w 1 127.0.0.1 9", options=("--userns=auto",))
    assert f"hello {UPLINK}\n" in said
    assert "eth0" in said
    assert "uplink" not in said
    assert machine.wait_until_clean() == []


@pytest.mark.parametrize("resolver", ["127.0.0.1", "::1"])
def test_a_name_server_on_the_machines_loopback_interface(machine: Machine, resolver: str) -> None:
    machine.world.set_nameservers(resolver)
    machine.world.serve(machine.world.machine, resolver)
    said = machine.build("cat /etc/resolv.conf; nslookup -type=a anything.example")
    assert ANSWER in said
    assert "nameserver 169.254.1.1" in said


def test_names_over_tcp_through_the_relay(machine: Machine) -> None:
    machine.world.set_nameservers("127.0.0.1")
    machine.world.serve(machine.world.machine, "127.0.0.1")
    query = r"\0\023\0\1\1\0\0\1\0\0\0\0\0\0\1x\0\0\1\0\1"
    said = machine.build(f"printf '{query}' | nc 169.254.1.1 53 | hexdump -C")
    assert "cb 00 71 4d" in said  # 203.0.113.77


def test_chosen_name_servers(machine: Machine) -> None:
    options = ("--dns", SERVER_6, "--dns-search", "corp.example", "--dns-option", "ndots:2")
    machine.world.set_nameservers("192.0.2.254")
    said = machine.build("cat /etc/resolv.conf; nslookup -type=a anything.example", options=options)
    assert f"nameserver {SERVER_6}" in said
    assert "search corp.example" in said
    assert "options ndots:2" in said
    assert "192.0.2.254" not in said
    assert ANSWER in said


def test_the_machine_is_hidden(machine: Machine) -> None:
    """What listens on its loopback interface, or in the abstract namespace of unix sockets, is not there."""
    machine.world.serve(machine.world.machine, "127.0.0.1")
    machine.build(f"! nc -w 1 127.0.0.1 {GREETING_PORT} && ! grep -q @ /proc/net/unix")


def test_nothing_comes_in_unasked(machine: Machine) -> None:
    running = machine.start(f"ip -4 -o addr show eth0; echo started; nc -l -p {GREETING_PORT} -e echo reached")
    try:
        network = machine.world.output("ip", "-4", "-o", "route")
        own = next(line.split()[0] for line in network.splitlines() if line.startswith("10."))
        machine.world.output("ip", "route", "add", own, "via", UPLINK, where=machine.world.internet)
        address = own.replace(".0/24", ".2")
        there = ("nc", "-w", "2", address, str(GREETING_PORT))
        busybox = shutil.which("busybox") or ""
        assert "reached" not in machine.world.output(busybox, *there, where=machine.world.internet)
        # The machine itself may: so the address is right, and the step listens.
        assert "reached" in machine.world.output(busybox, *there)
    finally:
        running.terminate()
        running.communicate(timeout=30)


def test_steps_of_a_build_do_not_see_each_other(machine: Machine) -> None:
    """Two stages at once: one looks for the other wherever it can be."""
    listening = f"(timeout 4 nc -l -p {GREETING_PORT} -e echo rea''ched || true)"
    looking = "sleep 1; for n in 2 3 4; do nc -w 1 $(ip -4 -o addr show eth0 | sed 's/.*inet //; s/[0-9]*.24 .*//')$n"
    machine.pybuild.write(
        Dockerfile=f"FROM base AS one\nRUN {listening}\nFROM base AS two\nRUN {looking} {GREETING_PORT}; done; true\n"
        "FROM base\nCOPY --from=one /bin/sh /1\nCOPY --from=two /bin/sh /2\n"
    )
    done = subprocess.run(
        machine.words("--jobs=4"),
        cwd=machine.pybuild.cwd,
        env=machine.pybuild.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "reached" not in done.stderr


def test_a_namespace_is_used_again_only_without_sockets(machine: Machine) -> None:
    name = "readlink /proc/self/ns/net"
    lingering = "(nc -l -p 5000 -e cat &) && sleep 0.2 && echo hi | nc 127.0.0.1 5000 && grep -q ' 06 ' /proc/net/tcp"
    said = machine.build(
        f"echo =one $({name})",
        f"echo =two $({name}) && {lingering}",
        f"echo =three $({name}) $(wc -l < /proc/net/tcp)",
    )
    found = dict(line.split(" =")[1].split(" ", 1) for line in said.splitlines() if " =" in line and "RUN" not in line)
    assert found["one"] == found["two"]
    assert found["three"] not in (f"{found['two']} 1", f"{found['two']} 2")
    assert found["three"].endswith("] 1")


def test_iptables_that_drops_what_is_forwarded(machine: Machine) -> None:
    """As Docker leaves it. Rules of a killed build are swept by the next one."""
    world = machine.world
    world.output("iptables", "-P", "FORWARD", "DROP")
    world.output("ip6tables", "-P", "FORWARD", "DROP")
    said = machine.build(f"{GREET} && nc {SERVER_6} {GREETING_PORT}")
    assert f"hello {UPLINK}\n" in said
    assert f"hello {UPLINK_6}\n" in said
    assert machine.wait_until_clean() == []
    kill(machine.start("echo started; sleep 60"))
    assert machine.wait_until_clean(but_for="-A FORWARD") == []
    assert "-A FORWARD" in "".join(world.leftovers())
    machine.build("true")
    assert machine.wait_until_clean() == []


def test_nothing_stays_of_a_killed_build(machine: Machine) -> None:
    running = machine.start("echo started; sleep 60")
    assert len(machine.world.leftovers()) == 2
    kill(running)
    assert machine.wait_until_clean() == []


def test_builds_at_once_have_different_subnets(machine: Machine) -> None:
    first = machine.start("echo started; sleep 60")
    try:
        assert f"hello {UPLINK}" in machine.build(f"{GREET}; sleep 0.5")
        second = machine.start("echo started; sleep 59")
        routes = [line for line in machine.world.output("ip", "-4", "-o", "route").splitlines() if line[:3] == "10."]
        assert len({line.split()[0] for line in routes}) == 2
        second.terminate()
        second.communicate(timeout=30)
    finally:
        first.terminate()
        first.communicate(timeout=30)
    assert machine.wait_until_clean() == []


def test_without_the_right_to_make_one(machine: Machine) -> None:
    prefix = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    said = machine.build("true", prefix=prefix, code=125)
    assert "no network for the step: no bridge (netlink: operation not permitted)" in said
    assert "--network=host" in said
    assert "uplink" in machine.build("ls /sys/class/net", options=("--network=host",), prefix=prefix)


def test_without_a_tun_device_for_the_user(machine: Machine) -> None:
    script = 'mount --bind "$0" /dev/net && exec setpriv --bounding-set=-net_admin --inh-caps=-net_admin "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", script, str(machine.pybuild.cwd))
    said = machine.build("ls /sys/class/net", prefix=prefix)
    assert said.count("the network of RUN is the host's: no bridge (netlink: operation not permitted)") == 1
    assert "/dev/net/tun is not there" in said
    assert "uplink" in said
    said = machine.build("true", options=("--network=bridge",), prefix=prefix, code=125)
    assert "no network for the step: no bridge (netlink: operation not permitted)" in said
    assert "--network=host" in said


def test_a_container_with_a_network_of_its_own(machine: Machine) -> None:
    machine.pybuild.write(Dockerfile="FROM base\n")
    machine.pybuild.ok("build", *machine.based, "-t", "app", ".")

    def run(*words: str) -> str:
        argv = machine.world.words(*machine.pybuild.argv("run", "--rm", *words))
        done = subprocess.run(
            argv, cwd=machine.pybuild.cwd, env=machine.pybuild.environment(), capture_output=True, text=True, check=True
        )
        return done.stdout + done.stderr

    said = run("--network=bridge", "--dns", SERVER, "app", "sh", "-c", f"{GREET}; nslookup -type=a x.example; ip addr")
    assert f"hello {UPLINK}\n" in said
    assert ANSWER in said
    assert "inet 10." in said
    assert "uplink" in run("app", "ls", "/sys/class/net")
    assert machine.wait_until_clean() == []


def kill(running: subprocess.Popen[str]) -> None:
    """kill -9 of the command and of everything that it has started."""
    kill_all(running.pid)
    running.communicate(timeout=30)
