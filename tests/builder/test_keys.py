"""What is in a key: any field of any operation, and any field of any instruction that its result can depend on.

A builder whose key leaves something out takes another image's layers for its own (CVE-2024-24557: HEALTHCHECK and
ONBUILD were left out).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from builder import plan as ops
from builder.errors import BuildError
from builder.lower import lower
from builder.ops import definition
from builder.options import BuildOptions, SecretSource
from builder.plan import SCRATCH, ExecOp, Plan, Vertex
from builder.state import VertexState
from builder.worker import Secrets
from cache.keys import key_of
from grammar import nodes
from grammar.errors import DockerfileError
from grammar.stages import parse
from tests.builder.planning import HOST, Images

DIGEST = "sha256:" + "a" * 64
OTHER_DIGEST = "sha256:" + "b" * 64


class StubInputs:
    """Inputs whose files never differ: what makes a key another one is then the operation."""

    modes = "full"
    fetcher = SimpleNamespace(
        file=lambda op: SimpleNamespace(digest=op.url, mtime_ns=0),
        repository=lambda op: SimpleNamespace(key=lambda: {"git": list(op)}),
    )

    def snapshot(self, _name: str) -> None:
        return None

    def digest(self, name: str, _copy: ops.CopyAction) -> str:
        return name


def worker(*secrets: SecretSource, mac_key: bytes = b"k") -> Any:
    environ = {"S": "value"}
    return SimpleNamespace(
        inputs=StubInputs(), secrets=Secrets(secrets, {}, environ), store=SimpleNamespace(mac_key=lambda: mac_key)
    )


def root_key(plan: Plan, at: Any = None) -> str:
    """The definition key of the image's root."""
    states = [VertexState(index, vertex) for index, vertex in enumerate(plan.vertices)]
    for state in states:
        inputs = [None if index == SCRATCH else states[index] for index in state.vertex.inputs]
        state.key = key_of(definition.by_definition(state.vertex, inputs, at or worker()))
    return states[plan.images[0].vertex].key


# Every field of every operation.

OPS: list[Any] = [
    ops.ImageSourceOp("base", DIGEST, DIGEST, "base"),
    ExecOp(("sh",), ("A=b",), "/w", "app", (ops.MountOp("cache", "/c", 0, "/s", id="i", sharing="shared"),)),
    ops.FileOp((ops.CopyAction(1, "/a", "/b"), ops.MkdirAction("/d"), ops.MkfileAction("/f", "text"))),
]
NOT_IN_KEYS = {
    ("ImageSourceOp", "reference"): "a base counts by its content, whatever it is called",
    ("ImageSourceOp", "name"): "a base counts by its content, whatever it is called",
    ("ImageSourceOp", "manifest_digest"): "the config of a base comes into operations by its values",
    ("ExecOp", "shm_size"): "a limit of resources",
    ("ExecOp", "ulimits"): "a limit of resources",
    ("ExecOp", "proxy_env"): "how the network is reached",
}


def others(value: Any) -> list[Any]:
    """Other values of the same kind."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, str):
        return [value + "x"]
    if value is None:
        return [1, True, 0]
    assert isinstance(value, tuple), value
    if hasattr(value, "_fields"):
        return [value._replace(**{name: new}) for name in value._fields for new in others(getattr(value, name))]
    within = [(*value[:i], new, *value[i + 1 :]) for i, item in enumerate(value) for new in others(item)]
    return [*within, *([value[:-1]] if value else []), (*value, value[0] if value else "x")]


def op_key(op: Any) -> str:
    return key_of(definition.by_definition(Vertex(op, (), "name"), [], worker()))


@pytest.mark.parametrize("op", OPS, ids=lambda op: type(op).__name__)
def test_every_field_of_an_operation_is_in_its_key(op: Any) -> None:
    seen = {op_key(op)}
    for name in op._fields:
        for value in others(getattr(op, name)):
            found = op_key(op._replace(**{name: value}))
            if (type(op).__name__, name) in NOT_IN_KEYS:
                assert found in seen, name
            else:
                assert found not in seen, (name, value)
                seen.add(found)


def test_every_operation_is_tested() -> None:
    here = {type(op) for op in OPS} | {ops.LocalSourceOp, ops.HttpSourceOp, ops.GitSourceOp, ops.MergeOp}
    assert set(ops.Op.__args__) == here  # type: ignore[attr-defined]


# Every field of every instruction.

IN_THE_ROOT = """\
FROM busybox AS other
RUN make
FROM busybox
ARG VERSION=1
ENV MODE=fast
SHELL ["/bin/ash", "-c"]
USER app
WORKDIR /work
RUN --network=none --mount=type=cache,target=/c cmd one <<EOF
text
EOF
RUN ["exec", "form"]
COPY --link --chown=1:2 --exclude=x a b /c/
COPY --chmod=644 --parents --from=other one two/three /c/
COPY <<EOF /doc
text $VERSION
EOF
ADD --chown=1 --unpack=false file /d/
ADD --checksum=sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa http://example.test/x /d/
ADD --exclude=x a /e/
ADD <<EOF /f/
text $VERSION
EOF
ADD --keep-git-dir=true https://example.test/x.git /g
RUN last
"""
IN_THE_CONFIG = """\
FROM busybox
CMD ["a", "b"]
ENTRYPOINT c d
HEALTHCHECK --interval=5s --timeout=6s --start-period=7s --start-interval=8s --retries=3 CMD check
ONBUILD RUN trigger
LABEL a=b c=d
EXPOSE 80 90/udp
VOLUME /v /w
STOPSIGNAL SIGINT
MAINTAINER somebody
USER app
ENV A=b
SHELL ["/bin/ash", "-c"]
WORKDIR /work
"""
TEXT = {"keyword", "name", "original", "range", "flags", "comments"}
"""What an instruction is called and where it stands."""
WITHOUT_EFFECT = {
    "legacy": "how it is written",
    "doc": "a comment",
    "devices": "none is handed in, and one that is required is an error",
    "checksum": "what is fetched has to have it, and is in the key with its own digest",
    "files": "heredocs of RUN: tested by themselves",
}


STRINGS = ("x", "7:8", "0711", "none", "host", "other", "busybox", OTHER_DIGEST, "SIGTERM")


def variants(value: Any) -> Iterator[Any]:
    """Other values of a field, some of which an instruction may refuse."""
    if isinstance(value, str):
        yield from (each for each in (f"{value}x", f"{value},ro", *STRINGS) if each != value)
    elif dataclasses.is_dataclass(value) or hasattr(value, "_fields"):
        names = getattr(value, "_fields", None) or [field.name for field in dataclasses.fields(value)]
        put = value._replace if hasattr(value, "_fields") else partial(dataclasses.replace, value)
        for name in set(names) - WITHOUT_EFFECT.keys():
            yield from (put(**{name: new}) for new in variants(getattr(value, name)))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from ((*value[:index], new, *value[index + 1 :]) for new in variants(item))
    else:
        yield from others(value)


def fields(text: str) -> list[tuple[str, str]]:
    """Every field of every kind of instruction of the last stage: the keyword and the name."""
    commands = parse(text.encode()).stages[-1].commands
    found = [(command.keyword, field.name) for command in commands for field in dataclasses.fields(command)]
    return sorted({(keyword, name) for keyword, name in found if name not in TEXT and name not in WITHOUT_EFFECT})


def lowered(dockerfile: nodes.Dockerfile) -> Plan:
    return lower(dockerfile, BuildOptions(), Images(), filename="Dockerfile", host=HOST)


def changed(text: str, place: int, name: str) -> list[Plan]:
    """The plans of the Dockerfile with other values of one field, those that can be lowered."""
    dockerfile = parse(text.encode())
    stage = dockerfile.stages[-1]
    command = stage.commands[place]
    found = []
    for value in variants(getattr(command, name)):
        other = dataclasses.replace(command, **{name: value})
        commands = (*stage.commands[:place], other, *stage.commands[place + 1 :])
        stages = (*dockerfile.stages[:-1], dataclasses.replace(stage, commands=commands))
        try:
            found.append(lowered(dataclasses.replace(dockerfile, stages=stages)))
        except (BuildError, DockerfileError):
            continue
    return found


def changes(text: str, keyword: str, name: str, told: Callable[[Plan], str]) -> list[list[bool]]:
    """For each instruction of a keyword whether each other value of a field is told from the one that it has."""
    before = told(lowered(parse(text.encode())))
    commands = parse(text.encode()).stages[-1].commands
    places = [place for place, command in enumerate(commands) if command.keyword == keyword]
    return [[told(plan) != before for plan in changed(text, place, name)] for place in places]


def config(plan: Plan) -> str:
    return json.dumps(plan.images[0].config, sort_keys=True)


@pytest.mark.parametrize(("keyword", "name"), fields(IN_THE_ROOT))
def test_every_field_of_an_instruction_is_in_the_key(keyword: str, name: str) -> None:
    found = changes(IN_THE_ROOT, keyword, name, root_key)
    assert any(each and all(each) for each in found), found


@pytest.mark.parametrize(("keyword", "name"), fields(IN_THE_CONFIG))
def test_every_field_of_an_instruction_is_in_the_image(keyword: str, name: str) -> None:
    found = changes(IN_THE_CONFIG, keyword, name, config)
    assert any(each and all(each) for each in found), found


@pytest.mark.parametrize(
    "script", ["RUN <<EOF\nother\nEOF", "RUN cat <<EOF\nother\nEOF", "RUN <<EOF\n#!/bin/sh\nother\nEOF"]
)
def test_heredocs_of_a_step_are_in_the_key(script: str) -> None:
    keys = {
        root_key(lowered(parse(f"FROM busybox\n{text}\n".encode())))
        for text in (script, script.replace("other", "one"))
    }
    assert len(keys) == 2


# Secrets.

SECRET = ExecOp(("sh",), (), "/", "", (ops.MountOp("secret", "/run/secrets/s", id="s"),))


def secret_key(source: SecretSource, mac_key: bytes = b"k") -> str:
    return key_of(definition.by_definition(Vertex(SECRET, (), ""), [], worker(source, mac_key=mac_key)))


def test_secret_is_in_the_key_only_when_asked(tmp_path: Any) -> None:
    (tmp_path / "one").write_bytes(b"one")
    (tmp_path / "two").write_bytes(b"two")
    one, two = (SecretSource("s", path=str(tmp_path / name)) for name in ("one", "two"))
    assert secret_key(one) == secret_key(two)
    keyed = [secret_key(each._replace(keyed=True)) for each in (one, two)]
    assert len({*keyed, secret_key(one), secret_key(SecretSource("s", env="NONE", keyed=True))}) == 4
    assert secret_key(one._replace(keyed=True), b"other store") not in keyed


def test_keyed_secret_stays_what_it_was(tmp_path: Any) -> None:
    (tmp_path / "one").write_bytes(b"one")
    secrets = Secrets((SecretSource("s", path=str(tmp_path / "one"), keyed=True),), {}, {})
    digest = secrets.keyed_digest("s", b"k")
    (tmp_path / "one").write_bytes(b"changed after the key was made")
    assert secrets.read("s") == b"one"
    assert secrets.keyed_digest("s", b"k") == digest
