"""The main job through the command line: build, cache, rebuild, outputs, arguments."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from tests.conftest import PROJECT, Pybuild, require

THREE = """FROM base
COPY one.txt /one
RUN cp /one /copied && echo ran
COPY two.txt /two
RUN cat /one /two > /both
"""


def names(done: subprocess.CompletedProcess[str], word: str) -> list[str]:
    """The names of the vertices that ended so."""
    titles = {}
    found = []
    for line in done.stderr.splitlines():
        number, _, rest = line.partition(" ")
        if not number.startswith("#"):
            continue
        titles.setdefault(number, rest)
        if rest.split(" ")[0] == word:
            found.append(titles[number])
    return found


def flattened(pybuild: Pybuild, *words: str) -> dict[str, bytes]:
    """Build and return the files of the flattened root."""
    dest = pybuild.cwd.parent / "flat.tar"
    pybuild.ok("build", *words, "-o", f"type=tar,dest={dest}", ".")
    with tarfile.open(dest) as tar:
        return {member.name.lstrip("./"): tar.extractfile(member).read() for member in tar if member.isreg()}  # type: ignore[union-attr]


def test_second_build_runs_nothing(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile=THREE, **{"one.txt": "1\n", "two.txt": "2\n"})
    first = pybuild.ok("build", *based, "-t", "x", ".")
    second = pybuild.ok("build", *based, "-t", "x", ".")
    assert len(names(first, "DONE")) >= 4
    assert names(second, "DONE") == []
    assert len(names(second, "CACHED")) >= 4
    assert first.stdout == second.stdout
    assert first.stdout.startswith("sha256:")


def test_changed_file_rebuilds_from_there_and_no_more(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile=THREE, **{"one.txt": "1\n", "two.txt": "2\n"})
    pybuild.ok("build", *based, ".")
    pybuild.write(**{"two.txt": "changed\n"})
    again = pybuild.ok("build", *based, ".")
    assert [name.partition("] ")[2] for name in names(again, "DONE")] == [
        "COPY two.txt /two",
        "RUN cat /one /two > /both",
    ]
    assert flattened(pybuild, *based)["both"] == b"1\nchanged\n"


def test_touched_file_is_the_same_file(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile=THREE, **{"one.txt": "1\n", "two.txt": "2\n"})
    pybuild.ok("build", *based, ".")
    os.utime(pybuild.cwd / "one.txt", (1, 1))
    assert names(pybuild.ok("build", *based, "."), "DONE") == []


def test_rebuilt_to_the_same_content_is_a_hit_for_what_follows(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nCOPY a /a\nRUN grep -v '#' /a > /b; rm /a\nRUN cp /b /c\n", a="code\n# one\n")
    pybuild.ok("build", *based, ".")
    pybuild.write(a="code\n# two\n")
    again = pybuild.ok("build", *based, ".")
    ran = [name.partition("] ")[2].split()[0] for name in names(again, "DONE")]
    assert "COPY" in ran
    assert len([name for name in names(again, "DONE") if "cp /b /c" in name]) <= 1


def test_changed_comment_or_argument(pybuild: Pybuild, based: list[str]) -> None:
    text = "FROM base\nARG A=1\nRUN echo $A > /a\nARG B=1\nRUN echo $B > /b\n"
    pybuild.write(Dockerfile=text)
    pybuild.ok("build", *based, ".")
    pybuild.write(Dockerfile="# a comment\n" + text)
    assert names(pybuild.ok("build", *based, "."), "DONE") == []
    changed = pybuild.ok("build", *based, "--build-arg", "B=2", ".")
    assert [name.partition("] ")[2] for name in names(changed, "DONE")] == ["RUN echo 2 > /b"]


def test_independent_stages_run_at_the_same_time(pybuild: Pybuild, based: list[str]) -> None:
    stages = "".join(
        f"FROM base AS s{i}\nENV STAGE={i}\nRUN date +%s.%N > /begin; sleep 1; date +%s.%N > /end\n" for i in range(3)
    )
    copies = "".join(f"COPY --from=s{i} /begin /b{i}\nCOPY --from=s{i} /end /e{i}\n" for i in range(3))
    pybuild.write(Dockerfile=stages + "FROM base\n" + copies)
    files = flattened(pybuild, *based)
    begins = [int(files[f"b{i}"].split(b".")[0]) for i in range(3)]
    ends = [int(files[f"e{i}"].split(b".")[0]) for i in range(3)]
    assert max(begins) <= min(ends)


def test_jobs_one_runs_one_after_the_other(pybuild: Pybuild, based: list[str]) -> None:
    run = "RUN cat /proc/uptime > /begin; sleep 0.2; cat /proc/uptime > /end\n"
    stages = "".join(f"FROM base AS s{i}\nENV STAGE={i}\n{run}" for i in range(2))
    copies = "".join(f"COPY --from=s{i} /begin /b{i}\nCOPY --from=s{i} /end /e{i}\n" for i in range(2))
    pybuild.write(Dockerfile=stages + "FROM base\n" + copies)
    files = flattened(pybuild, *based, "--jobs", "1")
    spans = sorted((float(files[f"b{i}"].split()[0]), float(files[f"e{i}"].split()[0])) for i in range(2))
    assert spans[0][1] <= spans[1][0]


def test_unneeded_stage_is_not_built(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM missing/image AS unused\nRUN exit 1\nFROM base AS used\nRUN true\n")
    assert not [name for name in names(pybuild.ok("build", *based, "."), "DONE") if "unused" in name]


def test_target_and_no_cache(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base AS one\nRUN cat /proc/uptime > /when\nFROM one AS two\nRUN cp /when /then\n")
    first = flattened(pybuild, *based)
    assert "then" not in flattened(pybuild, *based, "--target", "one")
    second = flattened(pybuild, *based, "--no-cache-filter", "one")
    assert second["when"] != first["when"]
    assert second["then"] == second["when"]


def test_same_build_in_two_stores_is_the_same_image(pybuild: Pybuild, based: list[str], tmp_path: Path) -> None:
    pybuild.write(
        Dockerfile="FROM base\nCOPY f /f\nRUN echo hello > /hello && mkdir /d\nWORKDIR /w\nENV A=b\n", f="f\n"
    )
    outputs = []
    for number in range(2):
        other = Pybuild(tmp_path / f"store{number}", pybuild.cwd)
        dest = tmp_path / f"out{number}.tar"
        other.ok("build", *based, "-o", f"type=oci,dest={dest}", ".", env={"SOURCE_DATE_EPOCH": "1700000000"})
        outputs.append(dest.read_bytes())
        time.sleep(1.1)
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("flag", [["--progress", "json"], ["--progress", "quiet"], ["-q"]])
def test_progress_forms(pybuild: Pybuild, based: list[str], flag: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN echo said\n")
    done = pybuild.ok("build", *based, *flag, ".")
    if "json" in flag:
        events = [json.loads(line) for line in done.stderr.splitlines()]
        assert {"started", "output", "done"} <= {event["event"] for event in events}
        assert any("said" in event.get("text", "") for event in events)
    else:
        assert done.stderr == ""
    assert done.stdout.startswith("sha256:")


def test_graph_forms(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base AS a\nRUN true\nFROM base\nCOPY --from=a /bin /b\n")
    text = pybuild.ok("graph", *based, ".").stdout
    assert "RUN true" in text
    assert "digraph" in pybuild.ok("graph", *based, "--format", "dot", ".").stdout
    graph = json.loads(pybuild.ok("graph", *based, "--format", "json", ".").stdout)
    by_name = {vertex["name"].partition("] ")[2]: vertex for vertex in graph["vertices"]}
    run, copy = by_name["RUN true"], by_name["COPY --from=a /bin /b"]
    assert run["index"] in copy["inputs"]
    assert graph["images"][0]["vertex"] == copy["index"]


def test_build_is_the_command_without_a_word(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN true\n")
    assert pybuild.ok("-f", "Dockerfile", *based, ".").stdout.startswith("sha256:")


def test_demo(tmp_path: Path, base_layout: Path) -> None:
    command = Pybuild(tmp_path / "store", PROJECT)
    words = ["--build-context", f"pybuild/base=oci-layout://{base_layout}", "-o", f"type=oci,dest={tmp_path}/demo.tar"]
    command.ok("build", *words, "testdata/demo")
    done = command.ok("run", "--rm", str(tmp_path / "demo.tar"))
    assert "hello from app" in done.stdout
    assert "two.txt" in done.stdout


AGENT_CLIENT = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    unsigned char answer[9], request[5] = {0, 0, 0, 1, 11};
    strncpy(address.sun_path, getenv("SSH_AUTH_SOCK"), sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) || write(fd, request, 5) != 5) return 1;
    if (read(fd, answer, 9) != 9 || answer[4] != 12) return 2;
    printf("keys: %d\n", answer[8]);
    return 0;
}
"""


def test_ssh_agent_reaches_the_step(pybuild: Pybuild, based: list[str], tmp_path: Path) -> None:
    """A real agent with a real key; the step asks it for its identities (the agent protocol's message 11)."""
    require(shutil.which("ssh-agent") is not None and shutil.which("gcc") is not None, "ssh-agent or gcc is missing")
    (tmp_path / "client.c").write_text(AGENT_CLIENT)
    subprocess.run(["gcc", "-static", "-o", pybuild.cwd / "client", tmp_path / "client.c"], check=True)
    socket = str(tmp_path / "agent")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        key = tmp_path / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        while not os.path.exists(socket):
            time.sleep(0.05)
        subprocess.run(["ssh-add", "-q", key], check=True, env={**os.environ, "SSH_AUTH_SOCK": socket})
        pybuild.write(Dockerfile="FROM base\nCOPY client /client\nRUN --mount=type=ssh,required /client > /keys\n")
        files = flattened(pybuild, *based, "--ssh", f"default={socket}")
        assert files["keys"] == b"keys: 1\n"
        assert not any(name.startswith("run/buildkit") for name in files)
    finally:
        agent.kill()
        agent.wait()
