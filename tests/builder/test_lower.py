"""What a Dockerfile becomes: vertices, config, history and errors with their lines."""

from __future__ import annotations

from typing import Any

import pytest

from builder.errors import BuildError
from builder.plan import CopyAction, ExecOp, FileOp, ImageSourceOp, LocalSourceOp, MergeOp, MkdirAction, Vertex
from tests.builder.planning import BUSYBOX, Images, plan_of


def only(kind: type, text: str, **options: Any) -> list[Any]:
    """The operations of one kind in the plan of a Dockerfile."""
    return [vertex.op for vertex in plan_of(text, **options).vertices if isinstance(vertex.op, kind)]


def history(text: str, **options: Any) -> list[str]:
    return [entry.created_by for entry in plan_of(text, **options).images[0].history]


def test_run_is_an_exec_on_the_image() -> None:
    plan = plan_of("FROM busybox\nRUN make  all\n")
    assert [type(vertex.op) for vertex in plan.vertices] == [ImageSourceOp, ExecOp]
    run = plan.vertices[1]
    assert run.inputs == (0,)
    assert run.name == "[2/2] RUN make  all"
    assert run.location is not None
    assert run.location.start_line == 2
    assert isinstance(run.op, ExecOp)
    assert run.op.argv == ("/bin/sh", "-c", "make  all")
    assert run.op.env == ("PATH=/bin",)
    assert plan.images[0].history[0].created_by == "RUN /bin/sh -c make  all # buildkit"


def test_only_what_the_target_needs() -> None:
    text = "FROM busybox AS a\nRUN one\nFROM busybox AS b\nRUN two\nFROM busybox AS c\nCOPY --from=a /x /y\n"
    assert [op.argv[-1] for op in only(ExecOp, text)] == ["one"]
    assert [op.argv[-1] for op in only(ExecOp, text, target="b")] == ["two"]


def test_equal_vertices_are_one() -> None:
    text = "FROM busybox AS a\nRUN same\nFROM busybox AS b\nRUN same\nFROM a\nCOPY --from=b / /\n"
    assert len(only(ExecOp, text)) == 1


def test_longest_chain_comes_first() -> None:
    short = "".join(f"FROM busybox AS short{number}\nRUN s{number}\n" for number in range(4))
    copies = "".join(f"COPY --from=short{number} /a /a\n" for number in range(4))
    text = f"{short}FROM busybox AS long\nRUN l1\nRUN l2\nRUN l3\nFROM busybox\n{copies}COPY --from=long /b /b\n"
    assert next(op.argv[-1] for op in only(ExecOp, text)) == "l1"


def test_arguments_and_environment() -> None:
    text = "ARG V=1\nFROM busybox\nARG V\nENV E=$V\nARG D=${E}x\nRUN use\n"
    (run,) = only(ExecOp, text, build_args={"V": "2"})
    assert dict(entry.split("=", 1) for entry in run.env) == {"PATH": "/bin", "V": "2", "E": "2", "D": "2x"}
    assert history(text, build_args={"V": "2"})[-1] == "RUN |2 V=2 D=2x /bin/sh -c use # buildkit"


def test_proxy_arguments_are_not_in_the_history() -> None:
    text, proxy = "FROM busybox\nRUN use\n", {"http_proxy": "http://p"}
    (run,) = only(ExecOp, text, build_args=proxy)
    assert run.proxy_env == ("HTTP_PROXY=http://p", "http_proxy=http://p")
    assert history("FROM busybox\nRUN use\n", build_args={"http_proxy": "http://p"}) == [
        "RUN /bin/sh -c use # buildkit"
    ]


def test_copy_with_link_is_a_layer_of_its_own() -> None:
    plan = plan_of("FROM busybox\nCOPY --link a /b/\n")
    merge = next(vertex for vertex in plan.vertices if isinstance(vertex.op, MergeOp))
    below, layer = (plan.vertices[index] for index in merge.inputs)
    assert isinstance(below.op, ImageSourceOp)
    assert isinstance(layer.op, FileOp)
    assert layer.inputs[0] == -1


def test_copy_expands_and_keeps_the_slash() -> None:
    (op,) = only(FileOp, "FROM busybox\nWORKDIR /\nENV D=dir\nCOPY --chown=app --chmod=640 $D/a b/\n")
    (action,) = op.actions
    assert action == CopyAction(1, "/dir/a", "/b/", chown="app", chmod="640")


def test_workdir_is_made_by_the_user() -> None:
    plan = plan_of("FROM busybox\nUSER app\nWORKDIR /a\nWORKDIR b\nRUN true\n")
    assert [vertex.op.actions[0] for vertex in plan.vertices if isinstance(vertex.op, FileOp)] == [
        MkdirAction("/a", 0o755, "app"),
        MkdirAction("/a/b", 0o755, "app"),
    ]
    assert plan.images[0].config["config"]["WorkingDir"] == "/a/b"


def test_mounts() -> None:
    text = (
        "FROM busybox AS src\nRUN make\nFROM busybox\nWORKDIR /w\n"
        "RUN --mount=from=src,source=/out,target=in --mount=type=cache,target=c,sharing=locked "
        "--mount=type=secret,id=key --mount=type=tmpfs,target=/t,size=1m use\n"
    )
    run = only(ExecOp, text)[-1]
    bind, cache, secret, tmpfs = run.mounts
    assert (bind.kind, bind.target, bind.source, bind.read_only) == ("bind", "/w/in", "/out", True)
    assert (cache.target, cache.id, cache.sharing) == ("/w/c", "/c", "locked")
    assert (secret.target, secret.id, secret.mode) == ("/run/secrets/key", "key", 0o400)
    assert (tmpfs.target, tmpfs.size) == ("/t", 1 << 20)


def test_heredoc_scripts() -> None:
    (shell,) = only(ExecOp, "FROM busybox\nRUN <<EOF\none\ntwo\nEOF\n")
    assert shell.argv == ("/bin/sh", "-c", "one\ntwo\n")
    (script,) = only(ExecOp, "FROM busybox\nRUN <<EOF\n#!/bin/awk -f\nEOF\n")
    assert script.argv == ("/bin/sh", "-c", "/dev/pipes/EOF")
    assert script.mounts[0].target == "/dev/pipes/"


def test_config_of_each_instruction() -> None:
    text = (
        "FROM busybox\nENV A=1 B=2\nENV A=3\nLABEL l=v\nEXPOSE 80 53/UDP\nVOLUME /v\nUSER app\nSTOPSIGNAL SIGINT\n"
        'SHELL ["/bin/ash","-c"]\nENTRYPOINT run\nHEALTHCHECK --interval=5s CMD check\nONBUILD RUN x\nMAINTAINER me\n'
    )
    image = plan_of(text, labels={"build": "label"}).images[0]
    config = image.config["config"]
    assert config["Env"] == ["PATH=/bin", "A=3", "B=2"]
    assert config["Labels"] == {"l": "v", "build": "label"}
    assert set(config["ExposedPorts"]) == {"80/tcp", "53/udp"}
    assert config["Volumes"] == {"/v": {}}
    assert (config["User"], config["StopSignal"]) == ("app", "SIGINT")
    assert config["Entrypoint"] == ["/bin/ash", "-c", "run"]
    assert "Cmd" not in config
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "check"], "Interval": 5_000_000_000}
    assert config["OnBuild"] == ["RUN x"]
    assert image.config["author"] == "me"
    assert [entry.created_by for entry in image.history][-2:] == [
        "HEALTHCHECK {Test:[CMD-SHELL check] Interval:5s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
        "MAINTAINER me",
    ]


def test_triggers_of_the_base_come_first() -> None:
    base = {**BUSYBOX, "config": {**BUSYBOX["config"], "OnBuild": ["RUN from-base"]}}
    plan = plan_of("FROM trig\nRUN own\n", Images({"trig": base}))
    assert [vertex.op.argv[-1] for vertex in plan.vertices if isinstance(vertex.op, ExecOp)] == ["from-base", "own"]
    assert "OnBuild" not in plan.images[0].config["config"]


def test_named_directories_replace_images() -> None:
    plan = plan_of("FROM busybox\nCOPY --from=files a /a\n", Images(directories=("files",)))
    assert LocalSourceOp("files") in [vertex.op for vertex in plan.vertices]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("FROM nowhere\n", 1, "nowhere: not found"),
        ("FROM busybox AS Builder\nFROM Builder\n", 2, "Builder"),
        ("ARG X\nFROM $X\n", 2, "base name ($X) should not be blank"),
        ("FROM busybox AS a\nCOPY --from=b /x /x\nFROM busybox AS b\nCOPY --from=a /x /x\n", 2, "circular dependency"),
        ("FROM busybox\nCOPY --from=7 /a /b\n", 2, "invalid stage index 7"),
        ("FROM busybox\nSTOPSIGNAL NOPE\n", 2, "invalid signal: NOPE"),
        ("FROM busybox\nENV A=${B:?wanted}\n", 2, "wanted"),
        ("FROM busybox\nRUN --mount=type=bind,target=/ true\n", 2, "invalid mount target"),
        ("FROM busybox\nCOPY http://x/y /z\n", 2, "URL for COPY"),
        ("FROM busybox\nADD --checksum=sha256:0 a /b\n", 2, "checksum requires"),
        ("FROM --platform=a/b/c/d/e busybox\n", 1, "a/b/c/d/e"),
    ],
)
def test_errors_name_their_lines(text: str, line: int, message: str) -> None:
    with pytest.raises(BuildError) as caught:
        plan_of(text)
    error = caught.value
    assert error.location is not None
    assert error.location.start_line == line
    assert message in str(error)


def test_unknown_target_names_a_near_one() -> None:
    with pytest.raises(BuildError) as caught:
        plan_of("FROM busybox AS release\n", target="relaese")
    assert caught.value.hint == "did you mean release?"


def test_no_cache_marks_vertices() -> None:
    def marked(vertices: tuple[Vertex, ...]) -> list[bool]:
        return [vertex.no_cache for vertex in vertices if isinstance(vertex.op, ExecOp)]

    text = "FROM busybox AS a\nRUN one\nFROM a AS b\nRUN two\n"
    assert marked(plan_of(text, no_cache=True).vertices) == [True, True]
    assert marked(plan_of(text, no_cache_filter=("B",)).vertices) == [False, True]


def test_devices_are_named_and_can_be_required() -> None:
    source = "FROM busybox\nRUN --device=vendor/class=x,required --device=vendor/class true\n"
    assert only(ExecOp, source)[0].devices == (("vendor/class=x", True), ("vendor/class", False))
    with pytest.raises(BuildError, match="is not VENDOR/CLASS=NAME"):
        plan_of("FROM busybox\nRUN --device=/dev/fuse true\n")


def test_a_secret_is_called_by_the_last_part_of_its_target() -> None:
    (run,) = only(ExecOp, "FROM busybox\nRUN --mount=type=secret,target=/run/x/key/ use\n")
    assert run.mounts[0].id == "key"


def test_an_agent_s_socket_is_in_the_environment_as_it_was_written() -> None:
    (run,) = only(ExecOp, "FROM busybox\nWORKDIR /w\nRUN --mount=type=ssh,target=sock use\n")
    assert (run.mounts[0].target, run.mounts[0].env) == ("/w/sock", "sock")
