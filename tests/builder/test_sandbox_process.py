from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sandboxes import PATH, Box

from builder.errors import BuildError, SandboxError
from builder.sandbox.launcher import StartedStep, Streams
from builder.sandbox.spec import ExitStatus, ProcessSpec
from builder.sandbox.wire import CommandError

PROJECT = Path(__file__).resolve().parents[2]


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll for something that another process does soon."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def unique_seconds(number: int) -> str:
    """A time to sleep that no other run of these tests uses, to find the process by."""
    return f"{number}{os.getpid():07d}"


def is_running(marker: str) -> bool:
    """Whether any process of the machine has `marker` in its arguments."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if marker.encode() in arguments.split(b"\0"):
            return True
    return False


@pytest.mark.parametrize("code", [0, 1, 3, 125, 255])
def test_the_exit_code_is_the_programs_own(box: Box, code: int) -> None:
    assert box.run(f"exit {code}").code == code


def test_a_signal_is_128_and_its_number(box: Box) -> None:
    running = box.start("sleep 60")
    box.launcher.kill(running.step.step, signal.SIGKILL)
    assert running.join() == 137
    assert box.run("sh -c 'kill -TERM $$'; exit $?").code == 143


def test_an_exit_status_names_the_signal(box: Box) -> None:
    status: list[ExitStatus] = []
    spec = ProcessSpec(("/bin/sleep", "60"), (PATH,))

    def kill(step: StartedStep) -> None:
        box.launcher.kill(step.step, signal.SIGKILL)

    status.append(box.launcher.run(spec, box.root(), on_start=kill))
    assert [each[:2] for each in status] == [(137, 9)]


def test_a_signal_reaches_a_handler_of_pid_1(box: Box) -> None:
    running = box.start("trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    wait_until(lambda: b"ready" in running.output._read.getvalue())
    box.launcher.kill(running.step.step, signal.SIGTERM)
    assert running.join() == 7
    assert running.output.finish() == "ready\ncaught\n"


def test_ignored_signals_of_the_launcher_are_not_inherited(box: Box) -> None:
    ignored = int(box.run("grep SigIgn /proc/self/status | cut -f2").out, 16)
    assert not ignored & sum(1 << number - 1 for number in range(1, 32))


def test_streams_are_apart_and_may_be_large(box: Box) -> None:
    result = box.run("yes output | head -c 3000000; echo error >&2; exit 4")
    assert (len(result.out), result.err, result.code) == (3000000, "error\n", 4)


def test_background_processes_end_with_pid_1(box: Box) -> None:
    started = time.monotonic()
    assert box.run("sleep 1000 & echo done").out == "done\n"
    assert time.monotonic() - started < 500


@pytest.mark.parametrize(
    ("argv", "message", "status"),
    [
        (("nosuch",), 'exec: "nosuch": executable file not found in \\$PATH', 127),
        (("/no/such/prog", "x"), 'exec: "/no/such/prog": no such file or directory', 127),
        (("/etc/passwd",), 'exec: "/etc/passwd": permission denied', 126),
        (("/etc",), 'exec: "/etc": is a directory', 126),
        (("/etc/passwd/x",), 'exec: "/etc/passwd/x": not a directory', 127),
        (("/script",), 'exec: "/script": no such file or directory', 127),
        (("/text",), 'exec: "/text": exec format error', 126),
    ],
)
def test_a_program_that_cannot_start(box: Box, argv: tuple[str, ...], message: str, status: int) -> None:
    layer = box.lower()
    for name, text in (("script", "#!/no/interpreter\n"), ("text", "just text\n")):
        (layer / name).write_text(text)
        (layer / name).chmod(0o755)
    with pytest.raises(CommandError, match=message) as caught:
        box.run(*argv, *([] if len(argv) > 1 else [""]), root=box.root(layer))
    assert caught.value.status == status
    assert caught.value.exit_code == 1
    assert (caught.value.hint is not None) == (argv[0] in ("/script", "/text"))


def test_programs_are_found_by_the_path_of_the_environment(box: Box) -> None:
    layer = box.lower()
    (layer / "tools").mkdir()
    (layer / "tools" / "sh").write_text("#!/bin/sh\necho mine\n")
    (layer / "tools" / "sh").chmod(0o755)
    assert box.run("sh", "", root=box.root(layer), env=("PATH=/tools:/bin",)).out == "mine\n"
    (layer / "tools" / "sh").chmod(0o644)
    assert box.run("sh", "-c", "echo theirs", root=box.root(layer), env=("PATH=/tools:/bin",)).out == "theirs\n"
    with pytest.raises(CommandError, match="permission denied"):
        box.run("sh", "", root=box.root(layer), env=("PATH=/tools",))


@pytest.mark.parametrize("spec", [ProcessSpec(()), ProcessSpec(("a\0b",)), ProcessSpec(("a",), ("A=\0",))])
def test_a_command_that_cannot_be_said_is_refused(box: Box, spec: ProcessSpec) -> None:
    with pytest.raises(BuildError, match=r"a command needs a program|cannot have zero bytes"):
        box.launcher.run(spec, box.root())


def test_a_missing_working_directory_is_made_for_the_user(box: Box) -> None:
    result = box.run("pwd; stat -c '%u %g %a' /new /new/deep", cwd="/new/deep", user="app")
    assert result.lines == ["/new/deep", "1000 1000 755", "1000 1000 755"]
    assert [path for path in result.upper() if path != "/etc"] == ["/new", "/new/deep"]


def test_the_working_directory_follows_links_inside_the_root(box: Box) -> None:
    layer = box.lower()
    (layer / "link").symlink_to("/../../root")
    assert box.run("pwd -P", cwd="/link", root=box.root(layer)).out == "/root\n"


def test_a_working_directory_that_is_a_file_is_the_users_error(box: Box) -> None:
    with pytest.raises(BuildError, match='working directory "/etc/passwd": not a directory') as caught:
        box.run("true", cwd="/etc/passwd")
    assert not isinstance(caught.value, SandboxError)


def test_no_descriptor_is_a_way_out_of_the_root(box: Box) -> None:
    for number in range(3, 40):
        with pytest.raises(BuildError, match="working directory"):
            box.run("pwd", cwd=f"/proc/self/fd/{number}")
    layer = box.lower()
    (layer / "way").symlink_to("/proc/self/fd/7")
    with pytest.raises(BuildError, match="working directory"):
        box.run("pwd", cwd="/way", root=box.root(layer))


def test_resource_limits(box: Box) -> None:
    limits = (("nofile", 1062, 1063), ("core", 0, 0), ("stack", -1, -1))
    result = box.run("ulimit -n; ulimit -Hn; ulimit -c; ulimit -s", rlimits=limits)
    assert result.lines == ["1062", "1063", "0", "unlimited"]
    with pytest.raises(BuildError, match='unknown ulimit "speed"'):
        box.run("true", rlimits=(("speed", 1, 1),))
    with pytest.raises(BuildError, match='ulimit "nofile=5:4"'):
        box.run("true", rlimits=(("nofile", 5, 4),))


def test_many_steps_at_once_do_not_mix(box: Box) -> None:
    results: dict[int, str] = {}

    def run(number: int) -> None:
        results[number] = box.run(f"echo {number} > /own; sleep 0.1; cat /own; ls / | grep -c own").out

    threads = [threading.Thread(target=run, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number}\n1\n" for number in range(12)}


def test_close_ends_every_step_for_good(box: Box) -> None:
    marker = unique_seconds(3)
    running = [box.start(f"sleep {marker}") for _ in range(3)]
    box.launcher.close()
    assert [step.join() for step in running] == [137] * 3
    assert not is_running(marker)
    with pytest.raises(SandboxError, match="was closed"):
        box.run("true")
    box.launcher.close()


def test_an_exception_in_on_start_ends_the_step(box: Box) -> None:
    def fail(_: StartedStep) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        box.launcher.run(ProcessSpec(("/bin/sleep", unique_seconds(4))), box.root(), on_start=fail)
    assert not is_running(unique_seconds(4))
    assert box.run("echo fine").out == "fine\n"


RUN_AND_HANG = """
import sys
from builder.sandbox.launcher import Launcher
from builder.sandbox.spec import ProcessSpec, RootMount
lower, upper, work, script = sys.argv[1:]
started = lambda step: print(launcher._pid, flush=True)
launcher = Launcher()
launcher.run(ProcessSpec(("/bin/sh", "-c", script)), RootMount((lower,), upper, work), on_start=started)
"""


@pytest.mark.parametrize("victim", ["builder", "launcher", "its child"])
def test_kill_9_of_anybody_above_ends_the_step(box: Box, victim: str) -> None:
    root = box.root()
    marker = unique_seconds(5)
    script = f"trap '' TERM HUP INT; setsid sleep {marker} & (setsid sleep {marker} &) ; sleep {marker}"
    assert root.upper_dir is not None
    assert root.work_dir is not None
    arguments = [box.lower_dir, root.upper_dir, root.work_dir, script]
    builder = subprocess.Popen([sys.executable, "-c", RUN_AND_HANG, *arguments], stdout=subprocess.PIPE, cwd=PROJECT)
    assert builder.stdout is not None
    launcher = int(builder.stdout.readline())
    child = int(Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()[0])
    wait_until(lambda: is_running(marker))
    os.kill({"builder": builder.pid, "launcher": launcher, "its child": child}[victim], signal.SIGKILL)
    wait_until(lambda: not is_running(marker))
    builder.wait()
    builder.stdout.close()


def test_the_death_of_the_launcher_is_an_error_not_a_result(box: Box) -> None:
    def kill_launcher(_: StartedStep) -> None:
        os.kill(box.launcher._pid, signal.SIGKILL)

    with pytest.raises(SandboxError, match="ended unexpectedly"):
        box.launcher.run(ProcessSpec(("/bin/sleep", "60")), box.root(), on_start=kill_launcher)
    with pytest.raises(SandboxError, match="ended unexpectedly"):
        box.run("true")


def test_a_failure_names_the_operation(box: Box) -> None:
    root = box.root()._replace(lower_dirs=("/no/such/layer", box.lower_dir))
    with pytest.raises(SandboxError, match=r"mount the root of 2 layers: .*no such file or directory") as caught:
        box.run("true", root=root)
    assert caught.value.exit_code == 125


class Terminal:
    """The other side of a step's terminal."""

    def __init__(self, box: Box, command: str, **fields: object) -> None:
        self._started = threading.Event()
        self.code = -1
        self.text = b""
        self._thread = threading.Thread(target=self._run, args=(box, command, fields))
        self._thread.start()
        assert self._started.wait(20)

    def expect(self, text: bytes) -> None:
        """Read until `text` has come."""
        while text not in self.text:
            self.text += os.read(self.fd, 4096)

    def send(self, text: bytes) -> None:
        os.write(self.fd, text)

    def close(self) -> int:
        self._thread.join(20)
        assert not self._thread.is_alive()
        os.close(self.fd)
        return self.code

    def _run(self, box: Box, command: str, fields: dict[str, object]) -> None:
        spec = ProcessSpec(("/bin/sh", "-c", command), (PATH,), terminal=True, **fields)  # type: ignore[arg-type]
        self.code = box.launcher.run(spec, box.root(), Streams(), on_start=self._on_start).code

    def _on_start(self, step: StartedStep) -> None:
        assert step.terminal_fd is not None
        self.fd = step.terminal_fd
        self._started.set()


def test_a_terminal_is_the_sandboxs_own(box: Box) -> None:
    script = "tty; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all; stat -c %u $(tty); [ -c /dev/console ] && echo console"
    terminal = Terminal(box, script + "; read line; echo got:$line; exit 9", user="app")
    terminal.expect(b"console")
    terminal.send(b"hello\n")
    terminal.expect(b"got:hello")
    assert terminal.close() == 9
    assert terminal.text.split(b"\r\n")[:4] == [b"/dev/pts/0", b"all", b"1000", b"console"]


def test_a_terminal_passes_interrupts_to_its_job(box: Box) -> None:
    terminal = Terminal(box, "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.1; done")
    terminal.expect(b"ready")
    terminal.send(b"\x03")
    terminal.expect(b"caught")
    assert terminal.close() == 5


def test_without_a_terminal_there_is_no_console(box: Box) -> None:
    assert box.run("[ -e /dev/console ] || echo none; ls /dev/pts").lines == ["none", "ptmx"]
