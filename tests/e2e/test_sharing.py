"""Several builds on one store: the same step runs once, cache mounts are shared as their mode says."""

from __future__ import annotations

import subprocess

import pytest

from tests.conftest import Pybuild


def start(pybuild: Pybuild, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        pybuild.argv("build", *words),
        cwd=pybuild.cwd,
        env=pybuild.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(processes: list[subprocess.Popen[str]]) -> list[str]:
    """The standard errors of all, which have to have succeeded."""
    outputs = [process.communicate(timeout=60) for process in processes]
    for process, (_, stderr) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, stderr
    return [stderr for _, stderr in outputs]


def test_the_same_step_runs_once(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN sleep 1; cat /proc/uptime > /when\nRUN cp /when /then\n")
    shown = finish([start(pybuild, *based, "-t", f"x{number}", ".") for number in range(3)])
    assert any("waiting for another build of the same step" in text for text in shown)
    times = {pybuild.ok("run", "--rm", f"x{number}", "cat", "/then").stdout for number in range(3)}
    assert len(times) == 1


STEP = (
    "FROM base\nARG N\nRUN --mount=type=cache,target=/c,sharing={mode} "
    "echo begin-$N >> /c/log; sleep 1.5; echo end-$N >> /c/log; cat /c/log > /log\n"
)


def logs(pybuild: Pybuild, based: list[str], mode: str) -> list[list[str]]:
    """What two steps that ran at the same time found in their cache directory."""
    pybuild.write(Dockerfile=STEP.format(mode=mode))
    finish([start(pybuild, *based, "--build-arg", f"N={n}", "-t", f"x{n}", ".") for n in (1, 2)])
    return [pybuild.ok("run", "--rm", f"x{n}", "cat", "/log").stdout.split() for n in (1, 2)]


@pytest.mark.parametrize("mode", ["locked", "private", "shared"])
def test_sharing_modes(pybuild: Pybuild, based: list[str], mode: str) -> None:
    one, two = logs(pybuild, based, mode)
    if mode == "private":
        assert sorted([one, two]) == [["begin-1", "end-1"], ["begin-2", "end-2"]]
        return
    longest = max(one, two, key=len)
    assert len(longest) == 4
    starts = [entry.partition("-")[0] for entry in longest]
    assert starts == (["begin", "end"] * 2 if mode == "locked" else ["begin", "begin", "end", "end"])


def test_cache_mount_outlives_the_build_and_is_in_no_layer(pybuild: Pybuild, based: list[str]) -> None:
    text = (
        "FROM base\nARG N\nRUN --mount=type=cache,target=/c,id=../../../../etc echo $N >> /c/log; cat /c/log > /seen\n"
    )
    pybuild.write(Dockerfile=text)
    for number in ("1", "2"):
        pybuild.ok("build", *based, "--build-arg", f"N={number}", "-t", "x", ".")
    assert pybuild.ok("run", "--rm", "x", "cat", "/seen").stdout == "1\n2\n"
    assert "log" not in pybuild.ok("run", "--rm", "x", "sh", "-c", "ls /c 2>/dev/null; true").stdout
    assert {path.name.isalnum() for path in (pybuild.root / "cache-mounts").iterdir()} == {True}
