from __future__ import annotations

import argparse
import base64
import io
import json
from pathlib import Path

import pytest

from builder.commands import Environment, build
from builder.commands.build_options import Call, call_option
from builder.errors import BuildError

ARGS = b"""
ARG inherited=box
ARG inherited2=box2
ARG unused=abc${inherited2}
# sfx is a suffix
ARG sfx="usy${inherited}"

FROM b${sfx} AS first
# this is not assigned to anything
ARG FOO=123
# BAR is a number
ARG BAR=456
RUN true

FROM alpine${unused} AS second
ARG BAZ
RUN true

FROM scratch AS third
ARG ABC=a
ARG password

# target defines <a> build target
FROM third AS target
COPY --from=first /etc/passwd /

FROM second
"""

MOUNTS = b"""
FROM busybox AS first
RUN --mount=type=secret,target=/etc/passwd,required=true --mount=type=ssh true

FROM alpine AS second
RUN --mount=type=secret,id=unused --mount=type=ssh,id=ssh2 true

FROM scratch AS third
ARG BAR
RUN --mount=type=secret,id=second${BAR} --mount=type=cache,target=/root/.cache true

FROM third AS target
COPY --from=first /foo /
RUN --mount=type=ssh,id=ssh3,required --mount=type=cache,id=go,target=/c true
RUN --mount=type=cache,id=go,target=/d true

FROM second
"""


class Builder:
    """Runs `pybuild build` on a Dockerfile in an empty store."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, source: bytes, *words: str) -> str:
        (self.directory / "Dockerfile").write_bytes(source)
        parser = argparse.ArgumentParser(exit_on_error=False)
        build.add_arguments(parser)
        stdout = io.StringIO()
        root, cwd = str(self.directory / "store"), str(self.directory)
        environment = Environment(stdout, io.BytesIO(), io.StringIO(), {}, cwd, root, lambda: 0)
        assert build.run(parser.parse_args([*words, "."]), environment) == 0
        return stdout.getvalue()


@pytest.fixture
def ask(tmp_path: Path) -> Builder:
    return Builder(tmp_path)


def test_the_outline_has_the_args_that_the_target_uses_with_their_values(ask: Builder) -> None:
    assert ask(ARGS, "--call=outline", "--target=target", "--build-arg=BAR=678") == (
        "TARGET:      target\n"
        "DESCRIPTION: defines <a> build target\n"
        "\n"
        "BUILD ARG   VALUE    DESCRIPTION\n"
        "inherited   box      \n"
        "sfx         usybox   is a suffix\n"
        "FOO         123      \n"
        "BAR         678      is a number\n"
        "ABC         a        \n"
        "password             \n"
        "\n"
    )


def test_the_default_target_without_a_name_has_no_heading(ask: Builder) -> None:
    assert ask(ARGS, "--print=outline") == (
        "BUILD ARG    VALUE     DESCRIPTION\n"
        "inherited2   box2      \n"
        "unused       abcbox2   \n"
        "BAZ                    \n"
        "\n"
    )


def test_the_outline_as_json(ask: Builder) -> None:
    text = ask(ARGS, "--call=outline,format=json", "--target=target")
    document = json.loads(text)
    assert list(document) == ["name", "description", "args", "sources"]
    assert "\\u003ca\\u003e" in text
    assert base64.b64decode(document["sources"][0]) == ARGS
    assert document["args"][1] == {
        "name": "sfx",
        "description": "is a suffix",
        "value": "usybox",
        "location": {"ranges": [{"start": {"line": 6}, "end": {"line": 6}}]},
    }
    assert document["args"][-1] == {
        "name": "password",
        "location": {"ranges": [{"start": {"line": 21}, "end": {"line": 21}}]},
    }


def test_secrets_agents_and_caches(ask: Builder) -> None:
    assert ask(MOUNTS, "--call=outline", "--target=target", "--build-arg=BAR=678") == (
        "TARGET: target\n"
        "\n"
        "BUILD ARG   VALUE   DESCRIPTION\n"
        "BAR         678     \n"
        "\n"
        "SECRET      REQUIRED\n"
        "passwd      true\n"
        "second678   \n"
        "\n"
        "SSH       REQUIRED\n"
        "default   \n"
        "ssh3      true\n"
        "\n"
        "CACHE MOUNT\n"
        "/root/.cache\n"
        "go\n"
        "\n"
    )
    document = json.loads(ask(MOUNTS, "--call=outline,format=json", "--target=target"))
    assert document["secrets"][0] == {
        "name": "passwd",
        "required": True,
        "location": {"ranges": [{"start": {"line": 3}, "end": {"line": 3}}]},
    }
    assert [cache["ID"] for cache in document["cache"]] == ["/root/.cache", "go"]
    assert document["ssh"][0]["name"] == "default"


def test_args_made_of_others_and_of_their_own_earlier_value(ask: Builder) -> None:
    source = (
        b"ARG FOO=123\nARG ABC=abc\nARG DEF=def\nARG FOO=${FOO}${ABC}\nARG BAR=${FOO}456\nARG FOO=${FOO}456${BAR}\n"
        b"FROM scratch\nARG FOO\nARG INFOO=123\nARG INBAR=${INFOO}456\nARG INFOO=${INFOO}456${INBAR}\n"
    )
    args = json.loads(ask(source, "--call=outline,format=json"))["args"]
    assert [(arg["name"], arg["value"]) for arg in args] == [
        ("ABC", "abc"),
        ("BAR", "123abc456"),
        ("FOO", "123abc456123abc456"),
        ("INBAR", "123456"),
        ("INFOO", "123456123456"),
    ]


def test_platform_args_are_listed_only_when_given(ask: Builder) -> None:
    source = b"FROM scratch\nARG TARGETARCH\nARG OTHER\n"
    assert [arg["name"] for arg in json.loads(ask(source, "--call=outline,format=json"))["args"]] == ["OTHER"]
    given = ask(source, "--call=outline,format=json", "--build-arg=TARGETARCH=x")
    assert [arg["name"] for arg in json.loads(given)["args"]] == ["TARGETARCH", "OTHER"]


TARGETS = b"""
# build defines stage for compiling the binary
FROM alpine AS build
RUN true

FROM --platform=$BUILDPLATFORM busybox as second
RUN false

FROM alpine
RUN false

# binary returns the compiled binary
FROM second AS binary
"""


def test_targets_as_text(ask: Builder) -> None:
    assert ask(TARGETS, "--call=targets") == (
        "TARGET           DESCRIPTION\n"
        "build            defines stage for compiling the binary\n"
        "second           \n"
        "                 \n"
        "binary (default) returns the compiled binary\n"
    )
    assert ask(b"FROM scratch\n", "--call=targets") == "TARGET    DESCRIPTION\n(default) \n"


def test_targets_as_json(ask: Builder) -> None:
    document = json.loads(ask(TARGETS, "--call=targets,format=json"))
    assert list(document) == ["targets", "sources"]
    places = [target.pop("location")["ranges"][0]["start"]["line"] for target in document["targets"]]
    assert places == [3, 6, 9, 13]
    assert document["targets"] == [
        {"name": "build", "description": "defines stage for compiling the binary", "base": "alpine"},
        {"name": "second", "base": "busybox", "platform": "$BUILDPLATFORM"},
        {"base": "alpine"},
        {"name": "binary", "default": True, "description": "returns the compiled binary", "base": "second"},
    ]


def test_nothing_is_built_and_errors_are_those_of_a_build(ask: Builder) -> None:
    ask(b"FROM nowhere.invalid/image\nRUN false\n", "--call=outline")
    with pytest.raises(BuildError, match="could not be found"):
        ask(TARGETS, "--call=outline", "--target=none")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("build", Call()),
        ("", Call()),
        ("lint", Call("check")),
        ("outline,format=json", Call("outline", "json")),
        ("format=text,ignorestatus=true", None),
        ("check,ignorestatus=true", Call("check")),
        ("targets,format=xml", None),
        ("targets,outline", None),
        ("nothing", None),
    ],
)
def test_values_of_call(text: str, expected: Call | None) -> None:
    if expected is not None:
        assert call_option(text) == expected
        return
    with pytest.raises(argparse.ArgumentTypeError):
        call_option(text)
