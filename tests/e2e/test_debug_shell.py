"""`--debug-shell on-error`: a person looks into the step that failed, on a real terminal."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.conftest import Pybuild
from tests.e2e.test_progress_terminal import on_terminal
from tests.e2e.test_terminal import Screen, assert_sane, screen

__all__ = ["screen"]

FAILING = """FROM base
ENV PS1="step> " WHERE=inside
WORKDIR /work
RUN chown app /work && echo below > lower
USER app
RUN --mount=type=secret,id=word,uid=1000 --mount=type=cache,target=/cache,uid=1000 \\
    echo written > state; echo kept > /cache/kept; rm lower; echo the cause; exit 9
"""
NOTHING_THERE = 'FROM scratch\nCOPY --from=base /bin/busybox /only\nRUN ["/only", "false"]\n'


def build_script(pybuild: Pybuild, words: list[str]) -> str:
    """The words, typed on the host, that build with a debug shell."""
    pybuild.write(word="the secret\n")
    asked = ["build", "--debug-shell", "on-error", "--secret", "id=word,src=word", *words, "."]
    settings = [f"{name}={pybuild.environment()[name]}" for name in ("PYBUILD_ROOT", "PYTHONPATH")]
    script = pybuild.cwd.parent / "build"
    command = shlex.join(["env", *settings, *pybuild.argv(*asked)])
    script.write_text(f"cd {pybuild.cwd}; {command} 2>&1; echo code $?\n")
    return f"sh {script}"


@pytest.mark.parametrize("progress", ["auto", "plain", "quiet"])
def test_shell_is_in_the_failed_step(
    screen: Screen, pybuild: Pybuild, based: list[str], tmp_path: Path, progress: str
) -> None:
    pybuild.write(Dockerfile=FAILING)
    screen.enter(build_script(pybuild, [*based, "--progress", progress]))
    assert "debug shell: /bin/sh in the failed step; exit ends the build" in screen.wait("step>")
    screen.clear()
    screen.enter("cat state /run/secrets/word /cache/kept; ls; id -un; pwd; echo $WHERE; tty; stty size")
    shown = ["written", "the secret", "kept", "state", "app", "/work", "inside", "/dev/pts/0", "30 100", "step>"]
    screen.wait(*shown)
    screen.resize(90, 40)
    screen.enter("sleep 1; stty size")
    screen.wait("40 90", "step>")
    screen.clear()
    screen.enter("exit 3")
    lines = screen.wait("code 1", "host>")
    assert " > the cause" in lines
    assert any("did not complete successfully: exit code: 9" in line for line in lines)
    assert_sane(screen, tmp_path)


def test_failed_step_leaves_nothing_and_fails_again(screen: Screen, pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile=FAILING)
    command = build_script(pybuild, based)
    for _ in range(2):
        screen.enter(command)
        screen.wait("step>")
        screen.enter("cat lower; echo by hand > /work/state; exit")
        screen.wait("code 1", "host>")
        assert any("can't open 'lower'" in line for line in screen.lines())
        screen.clear()
    pybuild.write(Dockerfile=FAILING.partition("USER")[0] + "RUN cat lower; test ! -e state\n")
    pybuild.ok("build", *based, ".")


def test_program_that_is_not_there_and_no_shell_either(screen: Screen, pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile=NOTHING_THERE)
    screen.enter(build_script(pybuild, based))
    lines = screen.wait("code 1", "host>")
    assert any(line.startswith('debug shell: exec: "/bin/sh": no such file') for line in lines)


def test_shell_is_the_one_of_the_instruction(screen: Screen, pybuild: Pybuild, based: list[str]) -> None:
    text = 'FROM base\nENV PS1="own> "\nSHELL ["/bin/ash", "-ec"]\nRUN missing-program\n'
    pybuild.write(Dockerfile=text)
    screen.enter(build_script(pybuild, based))
    assert "debug shell: /bin/ash in the failed step; exit ends the build" in screen.wait("own>")
    screen.press("C-d")
    screen.wait("code 1", "host>")


def test_without_a_terminal_the_build_just_fails(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN exit 4\n")
    failed = pybuild("build", "--debug-shell", "on-error", *based, ".")
    assert failed.returncode == 1
    assert failed.stderr.endswith("hint: --debug-shell on-error needs a terminal on standard input\n")
    assert "debug-shell" not in pybuild("build", *based, ".").stderr


def test_a_terminal_is_told_how_to_look_inside(pybuild: Pybuild, based: list[str]) -> None:
    pybuild.write(Dockerfile="FROM base\nRUN no-such-program\n")
    code, shown = on_terminal(pybuild, "build", *based, ".")
    assert code == 1
    hints = [line for line in shown.splitlines() if line.startswith("hint: ")]
    assert len(hints) == 2
    assert hints[1].strip() == "hint: to look inside the failed step: --debug-shell on-error"


@pytest.mark.parametrize("progress", ["auto", "plain"])
def test_steps_that_fail_together_have_the_terminal_in_turn(
    screen: Screen, pybuild: Pybuild, based: list[str], tmp_path: Path, progress: str
) -> None:
    one = 'FROM base AS a\nENV PS1="one> "\nRUN exit 1\n'
    two = 'FROM base AS b\nENV PS1="two> "\nRUN sleep 0.5; echo late; exit 2\n'
    pybuild.write(Dockerfile=f"{one}{two}FROM base\nCOPY --from=a /bin/sh /a\nCOPY --from=b /bin/sh /b\n")
    screen.enter(build_script(pybuild, [*based, "--progress", progress]))
    screen.wait("one>")
    screen.enter("sleep 1; echo slept")
    assert " > late" not in screen.wait("slept", "one>")
    screen.enter("exit")
    assert " > late" in screen.wait("two>")
    screen.enter("exit")
    screen.wait("code 1", "host>")
    assert_sane(screen, tmp_path)
