"""Bad input and bad luck: each ends in a clear error with its place and exit code, and the next build works."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import Completed, Pybuild, require


def assert_error(done: Completed, code: int, *parts: str) -> None:
    """The exit code, every part of the message, and no traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr, f"{part!r} is not in:\n{done.stderr}"


def test_unknown_instruction(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nCPOY a /a\n")
    assert_error(pybuild("build", *based, "."), 1, "Dockerfile:2", "CPOY", "did you mean COPY?", "^")


def test_missing_file(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN true\nCOPY app.txt /a\n", **{"apps.txt": "x"})
    assert_error(pybuild("build", *based, "."), 1, "Dockerfile:3", "app.txt", "not found", "hint: ")


def test_file_hidden_by_dockerignore(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nCOPY secret.txt /a\n", **{"secret.txt": "x", ".dockerignore": "*.txt\n"})
    assert_error(pybuild("build", *based, "."), 1, "Dockerfile:2", "secret.txt", ".dockerignore")


def test_failing_run(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN echo before && \\\n    echo 'the cause' >&2 && exit 42\n")
    done = pybuild("build", *based, ".")
    assert_error(done, 1, "Dockerfile:2", "exit code: 42", "the cause", "exit 42")
    pybuild.write(Dockerfile="FROM base\nRUN echo before\n")
    pybuild.ok("build", *based, ".")


def test_command_not_found(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN no-such-command\n")
    assert_error(pybuild("build", *based, "."), 1, "exit code: 127", "no-such-command", "hint: ")


def test_missing_base(pybuild: Pybuild) -> None:
    pybuild.write(Dockerfile="FROM no/such:image\n")
    assert_error(pybuild("build", "."), 1, "Dockerfile:1", "no/such:image", "not found", "pybuild load")


def test_missing_dockerfile_and_context(pybuild: Pybuild) -> None:
    pybuild.write(**{"other.Dockerfile": "FROM scratch\n"})
    assert_error(pybuild("build", "."), 1, "Dockerfile", "other.Dockerfile")
    assert_error(pybuild("build", "nowhere"), 1, "nowhere")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["build"], ["context directory is missing"]),
        (["biuld"], ["biuld", "did you mean build?"]),
        (["build", "-o", "type=nope,dest=x", "."], ["nope", "oci"]),
        (["build", "-o", "type=local", "."], ["dest"]),
        (["build", "--secret", "src", "."], ["--secret"]),
        (["build", "--no-such-option", "."], ["--no-such-option"]),
        (["build", "--add-host", "a:b", "."], ["--add-host", "valid IP"]),
        (["build", "--ulimit", "nofile=2:1", "."], ["--ulimit", "above the hard one"]),
        (["build", "--ulimit", "nothing=1", "."], ["--ulimit", "nothing"]),
        (["build", "--resource", "memory=lots", "."], ["memory", "size"]),
    ],
)
def test_usage(pybuild: Pybuild, words: list[str], parts: list[str]) -> None:
    pybuild.write(Dockerfile="FROM scratch\n")
    assert_error(pybuild(*words), 2, *parts)


def test_unreadable_context(pybuild: Pybuild, based: list[str]) -> None:
    """Root reads everything, so the unreadable file is one whose file system says no: a directory in a file's place."""
    pybuild.write(Dockerfile="FROM base\nCOPY . /all\n", good="x")
    loop = pybuild.cwd / ".dockerignore"
    loop.symlink_to(".dockerignore")
    assert_error(pybuild("build", *based, "."), 1, ".dockerignore")


def test_not_an_image(pybuild: Pybuild) -> None:
    pybuild.write(junk="this is no tar\n", **{"empty": ""})
    with_tar = pybuild.cwd / "plain.tar"
    subprocess.run(["tar", "cf", with_tar, "-C", pybuild.cwd, "junk"], check=True)
    for name in ("junk", "empty", "plain.tar"):
        assert_error(pybuild("load", "-i", name), 1, name)
    assert_error(pybuild("run", "plain.tar"), 125, "plain.tar")


def test_full_disk(pybuild: Pybuild, based: list[str], tmp_path: Path) -> None:
    mounted = tmp_path / "small"
    mounted.mkdir()
    require(os.geteuid() == 0, "mounting needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", mounted], check=True)
    try:
        small = Pybuild(mounted / "store", pybuild.cwd)
        pybuild.write(Dockerfile="FROM base\nRUN head -c 30000000 /dev/zero > /big\n")
        assert_error(small("build", *based, "."), 1)
        pybuild.write(Dockerfile="FROM base\nCOPY big /big\n")
        (pybuild.cwd / "big").write_bytes(b"\1" * 30_000_000)
        assert_error(small("build", *based, "."), 1, "space")
        pybuild.write(Dockerfile="FROM base\nRUN echo small > /small\n")
        small.ok("build", *based, "-t", "x", ".")
        assert small.ok("run", "--rm", "x", "cat", "/small").stdout == "small\n"
    finally:
        subprocess.run(["umount", mounted], check=True)


def processes_of(marker: str) -> list[int]:
    """Processes of this machine whose command line holds `marker`."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                line = Path("/proc", entry, "cmdline").read_bytes()
            except OSError:
                continue
            if marker.encode() in line:
                found.append(int(entry))
    return found


def wait_for(condition: object, seconds: float = 10.0) -> bool:
    """Poll until `condition()` is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_build(pybuild: Pybuild, based: list[str], how: signal.Signals) -> None:
    marker = f"987{int(how)}{os.getpid()}"
    pybuild.write(Dockerfile=f"FROM base\nRUN echo first > /first\nRUN sleep {marker}\n")
    process = subprocess.Popen(
        pybuild.argv("build", *based, "."),
        cwd=pybuild.cwd,
        env=pybuild.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    own = f"sleep\0{marker}"
    assert wait_for(lambda: processes_of(own))
    os.kill(process.pid, how)
    process.communicate(timeout=10)
    assert wait_for(lambda: not processes_of(own), 5)
    assert process.returncode == (-9 if how == signal.SIGKILL else 130)
    pybuild.write(Dockerfile="FROM base\nRUN echo first > /first\nRUN cat /first\n")
    done = pybuild.ok("build", *based, ".")
    assert "CACHED" in done.stderr
    leftover = {path.name for path in (pybuild.root / "snapshots").iterdir() if path.name.isdigit()}
    assert not [name for name in leftover if (pybuild.root / "snapshots" / name / "work" / "work").exists()]


def test_corrupt_store(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN echo x > /x\n")
    pybuild.ok("build", *based, ".")
    database = pybuild.root / "index.db"
    for name in os.listdir(pybuild.root):
        if name.startswith("index.db-"):
            (pybuild.root / name).unlink()
    database.write_bytes(b"not a database at all, " * 1000)
    assert_error(pybuild("build", *based, "."), 1, "index.db", "hint: ")


def test_store_of_another_version(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\n")
    pybuild.ok("build", *based, ".")
    (pybuild.root / "version").write_text("999\n")
    assert_error(pybuild("build", *based, "."), 1, "999")


def test_layer_that_vanished_is_built_again(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN echo x > /x\nRUN echo y > /y\n")
    pybuild.ok("build", *based, "-t", "x", ".")
    with sqlite3.connect(pybuild.root / "index.db") as database:
        assert database.execute("SELECT count(*) FROM records").fetchone()[0] >= 2
    for directory in (pybuild.root / "snapshots").iterdir():
        if (directory / "diff" / "y").exists():
            subprocess.run(["rm", "-r", directory], check=True)
    again = pybuild.ok("build", *based, "-t", "x", ".")
    assert "DONE" in again.stderr
    assert pybuild.ok("run", "--rm", "x", "cat", "/x", "/y").stdout == "x\ny\n"


def test_without_privileges_and_namespaces(pybuild: Pybuild, based: list[str]) -> None:
    """Root of a user namespace without capabilities, where the kernel allows no other namespace."""
    require(os.geteuid() == 0, "only root can stop being root")
    pybuild.write(Dockerfile="FROM base\nRUN true\n")
    script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all "$@"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", *pybuild.argv("build", *based, ".")]
    done = subprocess.run(
        command, cwd=pybuild.cwd, env=pybuild.environment(), capture_output=True, text=True, check=False
    )
    assert_error(done, 125, "needs root or a user namespace", "hint: ", "user.max_user_namespaces")


def test_insecure_needs_to_be_allowed(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN --security=insecure true\n")
    assert_error(pybuild("build", *based, "."), 1, "security.insecure is not allowed", "--allow")
    pybuild.ok("build", *based, "--allow", "security.insecure", ".")


def test_a_mount_of_another_kind_than_its_target(pybuild: Pybuild, based: list[str]) -> None:
    for target, source, words in (("/etc", "f", "is a directory"), ("/bin/busybox", "d", "is a file")):
        pybuild.write(Dockerfile=f"FROM base\nRUN --mount=target={target},source={source} true\n", f="f", d__g="g")
        assert_error(pybuild("build", *based, "."), 1, f'mount target "{target}" {words}', "Dockerfile:2")


def test_the_hosts_network_needs_to_be_allowed(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN --network=host true\n")
    assert_error(pybuild("build", *based, "."), 1, "network.host is not allowed", "--allow", "Dockerfile:2")
    pybuild.ok("build", *based, "--allow", "network.host", ".")
    pybuild.write(Dockerfile="FROM base\nRUN echo 2\n")
    pybuild.ok("build", *based, "--network", "host", ".")


def test_secret_is_nowhere_in_the_store(pybuild: Pybuild, based: list[str]) -> None:
    secret = "c0ffee-canary-5eed"
    pybuild.write(
        Dockerfile="FROM base\n"
        "RUN --mount=type=secret,id=s,required test \"$(cat /run/secrets/s)\" = c0ffee-canary-5'eed'\n"
        'RUN --mount=type=secret,id=s,env=VALUE test -n "$VALUE"\n',
    )
    (pybuild.cwd.parent / "secret").write_text(secret)
    words = ["--secret", f"id=s,src={pybuild.cwd.parent}/secret"]
    pybuild.ok("build", *based, *words, "-t", "x", "-o", "type=oci,dest=../x.tar", ".")
    looked = ["grep", "-rl", secret, str(pybuild.root), str(pybuild.cwd.parent / "x.tar")]
    found = subprocess.run(looked, capture_output=True, check=False)
    assert found.stdout == b""


@pytest.mark.parametrize("progress", ["plain", "tty", "quiet"])
def test_a_terminal_obeys_nothing_of_what_a_build_shows(pybuild: Pybuild, based: list[str], progress: str) -> None:
    """Names of steps, output, the error and its excerpt, from a Dockerfile with control characters."""
    text = "FROM base\nLABEL \x1b]0;title\x07=a\n"
    text += "RUN printf '\\033[31mred\\033[0m\\033]0;t\\007 \\r end\\n\\033(B\\n'; exit 3 # \x1b[2J\n"
    pybuild.write(Dockerfile=text)
    done = pybuild("build", *based, f"--progress={progress}", ".")
    assert done.returncode == 1
    shown = done.stderr.replace("\x1b[A", "")  # the bar's own way up
    assert not {char for char in shown if not char.isprintable()} - set("\n\t\r")
    assert "\n >  end\n > \N{REPLACEMENT CHARACTER}(B\n" in done.stderr
    assert "exit 3 # \\x1b[2J" in done.stderr.splitlines()[-1]


def test_a_terminal_obeys_nothing_of_an_image_s_history(pybuild: Pybuild) -> None:
    pybuild.write(Dockerfile="FROM scratch\nLABEL a=\x1b[31m\n")
    pybuild.ok("build", "-t", "x", ".")
    assert "LABEL a=\\x1b[31m" in pybuild.ok("history", "x").stdout


def test_an_interrupted_step_is_canceled(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN echo begun && sleep 60\n")
    words = pybuild.argv("build", *based, "--progress=plain", ".")
    with subprocess.Popen(
        words, cwd=pybuild.cwd, env=pybuild.environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while not (line := process.stderr.readline()).endswith("begun\n"):
            assert line
        process.terminate()
        assert "#2 ERROR: canceled\n" in process.stderr.read()
    assert process.returncode == 130
