from __future__ import annotations

import pytest

from grammar import nodes
from grammar.errors import DockerfileError
from grammar.stages import parse, parse_trigger


def command(line: str) -> nodes.Instruction:
    return parse(f"FROM a\n{line}\n".encode()).stages[0].commands[0]


def test_a_file_is_global_args_and_stages() -> None:
    dockerfile = parse(b"ARG V=1\nARG W\n# Base the first\nFROM --platform=$P a:$V As Base\nRUN x\nFROM b\nARG V\n")
    assert [arg.args for arg in dockerfile.meta_args] == [(("V", "1", ""),), (("W", None, ""),)]
    first, second = dockerfile.stages
    assert (first.name, first.base, first.platform, first.source) == (
        "base",
        "a:$V",
        "$P",
        "FROM --platform=$P a:$V As Base",
    )
    assert [type(instruction) for instruction in first.commands] == [nodes.RunInstruction]
    assert (second.name, len(second.commands)) == ("", 1)


def test_run_keeps_its_mounts_unread_and_its_heredocs_raw() -> None:
    run = command("RUN --mount=type=$T,target=/x --network=none <<-E\n\tz\n\tE")
    assert isinstance(run, nodes.RunInstruction)
    assert run.mounts == ("type=$T,target=/x",)
    assert (run.network, run.security, run.shell) == ("none", "sandbox", True)
    assert run.files == (("E", "\tz\n", True, True),)


def test_an_empty_entrypoint_is_none_and_an_empty_cmd_is_not() -> None:
    entrypoint, cmd = command("ENTRYPOINT []"), command("CMD []")
    assert isinstance(entrypoint, nodes.EntrypointInstruction)
    assert isinstance(cmd, nodes.CmdInstruction)
    assert (entrypoint.cmdline, cmd.cmdline) == (None, ())


def test_copy_takes_files_and_heredocs() -> None:
    copy = command("COPY --link --exclude=a --exclude=b --chmod=755 x <<-'E' /y\n\tz $A\nE")
    assert isinstance(copy, nodes.CopyInstruction)
    assert (copy.sources, copy.dest, copy.contents) == (("x",), "/y", (("E", "z $A\n", False),))
    assert (copy.link, copy.exclude, copy.chmod, copy.from_) == (True, ("a", "b"), "755", "")


def test_flags_not_given_to_add_are_told_from_false_ones() -> None:
    add = command("ADD --keep-git-dir=FALSE a b")
    assert isinstance(add, nodes.AddInstruction)
    assert (add.keep_git_dir, add.unpack) == (False, None)


def test_healthcheck_times_are_nanoseconds() -> None:
    check = command("HEALTHCHECK --interval=1m30s --retries=3 CMD a b")
    assert isinstance(check, nodes.HealthcheckInstruction)
    assert (check.test, check.interval, check.retries) == (("CMD-SHELL", "a b"), 90 * 10**9, 3)


def test_onbuild_keeps_text_and_bodies() -> None:
    onbuild = command("onbuild  RUN <<E\nx\nE")
    assert isinstance(onbuild, nodes.OnbuildInstruction)
    assert onbuild.expression == "RUN <<E\nx\nE"


@pytest.mark.parametrize(
    "line",
    [
        "FROM a b",
        "FROM a AS 1b",
        "COPY a",
        "COPY a <<E\nE",
        "COPY --link=1 a b",
        "COPY --link= a b",
        "COPY --chown a b",
        "COPY --from=a --from=b c d",
        "RUN --network=bridge a",
        "RUN --mount=type=bind,from=$X a",
        "HEALTHCHECK --interval=1us CMD a",
        "HEALTHCHECK --retries=-1 CMD a",
        "HEALTHCHECK NONE a",
        "HEALTHCHECK CMD",
        "ONBUILD FROM a",
        "ONBUILD ONBUILD RUN a",
        "SHELL sh",
        "SHELL []",
        'VOLUME [""]',
        "ENV =a",
        "ARG =a",
        "WORKDIR --x /a",
        "NOPE a",
        "WORKDIR",
    ],
)
def test_what_is_refused_is_refused_at_its_line(line: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(f"FROM a\n\n{line}\n".encode())
    assert caught.value.lines[0][0] == 3


@pytest.mark.parametrize("line", ["ARG --x a", "STOPSIGNAL --x 9", "HEALTHCHECK --x NONE", "RUN", "CMD", "EXPOSE $"])
def test_odd_lines_that_are_accepted(line: str) -> None:
    assert command(line).keyword == line.split(maxsplit=1)[0]


def test_a_line_error_anywhere_wins_over_an_instruction_error() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(b"NOPE\nFROM a\nENV x\n")
    assert caught.value.lines == ((3, 3),)


def test_only_arg_may_stand_before_from() -> None:
    with pytest.raises(DockerfileError, match="before the first FROM"):
        parse(b"RUN a\nFROM b\n")


def test_a_trigger_is_one_instruction() -> None:
    copy = parse_trigger("COPY --from=x a b")
    assert isinstance(copy, nodes.CopyInstruction)
    run = parse_trigger("RUN <<E\nx\nE")
    assert isinstance(run, nodes.RunInstruction)
    assert run.files[0].data == "x\n"
    for text in ("FROM a", "NOPE", "RUN a\nRUN b", ""):
        with pytest.raises(DockerfileError):
            parse_trigger(text)
