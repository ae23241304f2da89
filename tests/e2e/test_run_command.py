"""`pybuild run` as a user types it: programs in containers of real images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Completed, Pybuild


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory, base_layout: Path) -> Pybuild:
    """The command on a store whose images are `base:1` and, with the most of a config, `app:1`."""
    directory = tmp_path_factory.mktemp("run")
    (directory / "context").mkdir()
    command = Pybuild(directory / "store", directory / "context")
    command.write(
        Dockerfile="""\
FROM base
RUN mkdir -p /data /opt && echo first > /data/file && chown app /data /data/file
ENV GREETING=hello NAME=image
VOLUME /data /fresh
USER app
WORKDIR /opt
ENTRYPOINT ["sh", "-c", "echo \\"$0 $*\\" $GREETING $NAME $(id -u) $(pwd)"]
CMD ["cmd"]
""",
        base__Dockerfile="FROM base\n",
    )
    base = ["--build-context", f"base=oci-layout://{base_layout}"]
    command.ok("build", *base, "-t", "app:1", ".")
    command.ok("build", *base, "-t", "base:1", "base")
    return command


@pytest.fixture
def command(loaded: Pybuild) -> Iterator[Pybuild]:
    """`loaded`, with the check that no test leaves a container behind."""
    yield loaded
    assert containers(loaded) == []


def containers(command: Pybuild) -> list[Path]:
    found = command.root.glob("containers/*/config.json")
    return [path.parent for path in found]


def run(command: Pybuild, *words: str, **options: object) -> Completed:
    """Run a program in a container that goes with it."""
    return command("run", "--rm", *words, **options)


def sh(command: Pybuild, script: str, *options: str) -> str:
    """What a shell script in a container of base:1 prints."""
    return command.ok("run", "--rm", *options, "base:1", "sh", "-c", script).stdout


def test_output_and_exit_code_are_the_program_s(command: Pybuild) -> None:
    done = run(command, "base:1", "sh", "-c", "echo out; echo err >&2; exit 42")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 42)


def test_the_image_says_what_runs_and_how(command: Pybuild) -> None:
    assert command.ok("run", "--rm", "app:1").stdout == "cmd  hello image 1000 /opt\n"
    assert command.ok("run", "--rm", "app:1", "a", "b").stdout == "a b hello image 1000 /opt\n"


def test_options_change_what_the_image_says(command: Pybuild, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("GREETING=file\n")
    words = ["-e", "NAME", "--env-file", str(tmp_path / "env"), "-u", "0:0", "-w", "/new/dir", "app:1", "x"]
    assert command.ok("run", "--rm", *words, env={"NAME": "mine"}).stdout == "x  file mine 0 /new/dir\n"


def test_an_entrypoint_drops_the_image_s_command(command: Pybuild) -> None:
    assert command.ok("run", "--rm", "--entrypoint", "echo", "app:1").stdout == "\n"
    assert command.ok("run", "--rm", "--entrypoint", "", "app:1", "echo", "x").stdout == "x\n"
    done = run(command, "--entrypoint", "", "app:1")
    assert done.returncode == 125
    assert "no command" in done.stderr


@pytest.mark.parametrize("words", [["--", "x"], ["--help"], ["-it", "--rm"], ["a", "--", "b"], ["--entrypoint=x"]])
def test_everything_after_the_image_is_the_program_s(words: list[str], command: Pybuild) -> None:
    done = run(command, "--entrypoint", "printf", "base:1", "%s|", *words)
    assert done.stdout == "".join(f"{word}|" for word in words)


def test_two_dashes_may_end_the_options(command: Pybuild) -> None:
    assert command.ok("run", "--rm", "--", "base:1", "echo", "x").stdout == "x\n"


def test_exit_codes_of_programs_that_cannot_start(command: Pybuild) -> None:
    missing = run(command, "base:1", "nothing")
    assert missing.returncode == 127
    assert missing.stderr == 'pybuild: exec: "nothing": executable file not found in $PATH\n'
    assert run(command, "base:1", "/etc/passwd").returncode == 126
    assert run(command, "-u", "nobody-here", "base:1", "true").returncode == 125


def test_a_malformed_option_is_a_usage_error(command: Pybuild) -> None:
    for words in (["-v", "a:b", "base:1"], ["--no-such-option", "base:1"], ["--network", "brige", "base:1"], []):
        assert run(command, *words).returncode == 2


def test_stdin_is_empty_without_i_and_passed_through_with_it(command: Pybuild, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"line\n")
    for words, output in ((["base:1", "cat"], ""), (["-i", "base:1", "cat"], "line\n")):
        with open(tmp_path / "in", "rb") as file:
            assert run(command, *words, stdin=file).stdout == output


def test_interactive_with_a_terminal_needs_one(command: Pybuild) -> None:
    done = run(command, "-it", "base:1", "true")
    assert done.returncode == 1
    assert "the input device is not a TTY" in done.stderr


def test_a_terminal_without_one_of_our_own(command: Pybuild) -> None:
    done = run(command, "-t", "base:1", "sh", "-c", "tty; echo $TERM; exit 3")
    assert (done.stdout, done.returncode) == ("/dev/pts/0\nxterm\n", 3)


def test_much_output_through_a_terminal_arrives_whole(command: Pybuild) -> None:
    done = run(command, "-t", "base:1", "sh", "-c", "seq 1 50000")
    assert done.stdout.split() == [str(number) for number in range(1, 50001)]


def test_names_of_the_machine(command: Pybuild) -> None:
    name = sh(command, "hostname; echo $HOSTNAME").split()
    assert name[0] == name[1]
    assert len(name[0]) == 12
    output = sh(command, "hostname; cat /etc/hosts", "--hostname", "box", "--add-host", "far=10.1.2.3")
    assert output.startswith("box\n")
    assert "10.1.2.3\tfar\n" in output


def test_volumes_of_the_host(command: Pybuild, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("host")
    script = "cat /a/file; echo new > /a/new; echo no > /b || echo refused"
    output = sh(command, script, "-v", f"{tmp_path}:/a", "-v", f"{tmp_path}/file:/b:ro")
    assert output == "hostrefused\n"
    assert (tmp_path / "new").read_text() == "new\n"


def test_a_relative_volume_that_is_missing_is_made(command: Pybuild, tmp_path: Path) -> None:
    command.ok("run", "--rm", "-v", "./made:/a", "base:1", "touch", "/a/x", cwd=tmp_path)
    assert (tmp_path / "made/x").exists()


def test_the_image_s_volumes_begin_with_its_content(command: Pybuild) -> None:
    script = "cat /data/file; stat -c '%U %u' /data; stat -c '%u %a' /fresh; echo more >> /data/file; cat /data/file"
    done = command.ok("run", "--rm", "--read-only", "--entrypoint", "sh", "app:1", "-c", script)
    assert done.stdout == "first\napp 1000\n0 755\nfirst\nmore\n"
    assert command.ok("run", "--rm", "--entrypoint", "cat", "app:1", "/data/file").stdout == "first\n"


def test_an_option_s_mount_wins_over_the_image_s_volume(command: Pybuild, tmp_path: Path) -> None:
    done = command.ok("run", "--rm", "-u", "0", "-v", f"{tmp_path}:/data", "--entrypoint", "ls", "app:1", "-A", "/data")
    assert done.stdout == ""


def test_a_read_only_root_and_memory(command: Pybuild) -> None:
    script = "touch /tmp/x 2>&1; touch /t/x && echo ok; df -k /t | tail -1 | awk '{print $2}'"
    output = sh(command, script, "--read-only", "--tmpfs", "/t:size=1m")
    assert output.splitlines() == ["touch: /tmp/x: Read-only file system", "ok", "1024"]


def test_limits_and_shared_memory(command: Pybuild) -> None:
    script = "ulimit -n; ulimit -Hn; df -k /dev/shm | tail -1 | awk '{print $2}'"
    output = sh(command, script, "--ulimit", "nofile=100:200", "--shm-size", "2m")
    assert output.split() == ["100", "200", "2048"]
    assert run(command, "--ulimit", "files=1", "base:1", "true").returncode == 125


def test_no_network(command: Pybuild) -> None:
    assert sh(command, "ls /sys/class/net", "--network", "none").split() == ["lo"]


def test_containers_do_not_see_each_other_s_changes(command: Pybuild) -> None:
    sh(command, "echo x > /changed")
    assert sh(command, "test -e /changed || echo clean") == "clean\n"


def test_a_kept_container_has_its_changes_and_its_name(loaded: Pybuild) -> None:
    loaded.ok("run", "--name", "kept", "base:1", "sh", "-c", "echo x > /changed")
    (container,) = containers(loaded)
    try:
        assert (container / "upper/changed").read_text() == "x\n"
        assert [path.name for path in (container / "upper").rglob("*") if not path.is_dir()] == ["changed"]
        config = json.loads((container / "config.json").read_text())
        assert (config["name"], config["image"], config["argv"][0]) == ("kept", "base:1", "sh")
        again = run(loaded, "--name", "kept", "base:1", "true")
        assert again.returncode == 125
        assert f'container name "kept" is in use by container {container.name[:12]}' in again.stderr
        assert "hint: " in again.stderr
    finally:
        subprocess.run(["rm", "-rf", container], check=True)
    loaded.ok("run", "--rm", "--name", "kept", "base:1", "true")


def test_a_container_whose_program_never_started_is_not_kept(command: Pybuild) -> None:
    assert command("run", "--name", "never", "base:1", "nothing").returncode == 127


def test_an_archive_is_run_without_loading_it(pybuild: Pybuild, command: Pybuild, tmp_path: Path) -> None:
    archive = tmp_path / "app.tar"
    command.ok("save", "-o", str(archive), "app:1")
    for _ in range(2):
        assert pybuild.ok("run", "--rm", str(archive)).stdout == "cmd  hello image 1000 /opt\n"
    compressed = tmp_path / "image"
    with open(compressed, "wb") as file:
        subprocess.run(["gzip", "-c", archive], stdout=file, check=True)
    assert pybuild.ok("run", "--rm", "./image", cwd=tmp_path).stdout == "cmd  hello image 1000 /opt\n"
    assert "app" not in pybuild.ok("images").stdout


def test_a_layout_and_an_id_are_run(pybuild: Pybuild, command: Pybuild, base_layout: Path) -> None:
    assert pybuild.ok("run", "--rm", str(base_layout), "echo", "x").stdout == "x\n"
    image_id = json.loads(command.ok("inspect", "base:1").stdout)[0]["Id"]
    for name in (image_id, image_id.removeprefix("sha256:")[:12]):
        assert command.ok("run", "--rm", name, "echo", "x").stdout == "x\n"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("bas:1", "did you mean base"),
        ("./none.tar", "there is no such file"),
        ("./text", "is not an image archive"),
        (".", "is not an OCI image layout"),
        ("zzzzzz", "pybuild load"),
    ],
)
def test_an_image_that_is_not_there(name: str, hint: str, command: Pybuild, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no archive")
    done = run(command, name, cwd=tmp_path)
    assert done.returncode == 125
    assert f'no such image: "{name}"' in done.stderr
    assert hint in done.stderr


def start(command: Pybuild, *words: str, **options: object) -> subprocess.Popen[bytes]:
    """Start a container whose program prints a line when it is ready; returns then."""
    argv = command.argv("run", "--rm", *words)
    process = subprocess.Popen(  # type: ignore[call-overload]
        argv, cwd=command.cwd, env=command.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )
    assert process.stdout.readline() == b"ready\n", process.stderr.read()
    return process


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2"])
def test_signals_reach_the_program(name: str, command: Pybuild) -> None:
    script = f"trap 'echo got {name}; exit 9' {name}; echo ready; while :; do sleep 0.1; done"
    process = start(command, "base:1", "sh", "-c", script)
    process.send_signal(getattr(signal, f"SIG{name}"))
    output, _ = process.communicate(timeout=60)
    assert (output, process.returncode) == (f"got {name}\n".encode(), 9)


def test_the_third_interrupt_kills(command: Pybuild) -> None:
    process = start(command, "base:1", "sh", "-c", "trap '' INT; echo ready; while :; do sleep 0.1; done")
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert b"interrupt once more" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL


def test_what_a_killed_pybuild_leaves_is_swept(command: Pybuild) -> None:
    process = start(command, "base:1", "sh", "-c", "echo x > /written; echo ready; exec sleep 1000")
    (container,) = containers(command)
    assert (container / "upper/written").exists()
    process.kill()
    process.communicate()
    assert container.exists()
    sh(command, "true")
    assert not container.exists()
    assert os.listdir(command.root / "run/containers") == []


def test_two_containers_run_at_once(command: Pybuild) -> None:
    first = start(command, "-i", "base:1", "sh", "-c", "echo ready; cat", stdin=subprocess.PIPE)
    second = start(command, "-i", "base:1", "sh", "-c", "echo ready; cat", stdin=subprocess.PIPE)
    assert len(containers(command)) == 2
    assert first.communicate(b"1")[0] == b"1"
    assert second.communicate(b"2")[0] == b"2"


def test_nothing_heavy_is_imported(command: Pybuild) -> None:
    environment = {"PYTHONPROFILEIMPORTTIME": "1"}
    done = command.ok("run", "--rm", "base:1", "true", env=environment)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "builder.runner.run" in loaded
    heavy = "lark networkx tqdm pyroute2 subprocess dataclasses inspect tempfile ssl logging pathlib asyncio xxhash"
    assert loaded & set(heavy.split()) == set()


def test_tmpfs_runs_nothing_unless_asked(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\n")
    pybuild.ok("build", *based, "-t", "x", ".")
    script = "cp /bin/busybox /t/true && /t/true"
    assert pybuild("run", "--rm", "--tmpfs", "/t", "x", "sh", "-c", script).returncode == 126
    pybuild.ok("run", "--rm", "--tmpfs", "/t:exec", "x", "sh", "-c", script)
