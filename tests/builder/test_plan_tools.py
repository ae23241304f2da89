"""Around the plan: its bytes, its keys, and the threads that carry it out."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from builder import codec, order
from builder.graph import keep_needed
from builder.ops import definition
from builder.plan import SCRATCH, CopyAction, ExecOp, FileOp, ImageSourceOp, MkdirAction, MountOp, Plan, Vertex
from builder.schedule import Schedule
from builder.state import VertexState
from builder.worker import Secrets
from cache.keys import key_of
from tests.builder.planning import plan_of

GOLDEN_KEYS = Path(__file__).parent / "golden" / "keys.json"
EVERYTHING = (
    "ARG BASE=busybox\nFROM $BASE AS a\nARG V=1\nWORKDIR /w\nRUN <<EOF\n#!/bin/sh\necho hi\nEOF\n"
    "FROM busybox\nCOPY --from=a --link /x /y\nADD http://example.test/f /f\n"
    "RUN --mount=type=cache,target=/c --mount=type=secret,id=s use it\nHEALTHCHECK CMD x\nLABEL a=b\n"
)


def test_codec_returns_the_same_plan() -> None:
    plan = plan_of(EVERYTHING)
    assert len(plan.vertices) > 5
    assert codec.decode(json.loads(codec.dumps(codec.encode(plan)))) == plan


def exec_op(**changes: Any) -> ExecOp:
    return ExecOp(("/bin/sh", "-c", "make"), ("PATH=/bin",), "/w", "app")._replace(**changes)


def state(op: Any, key: str = "") -> VertexState:
    made = VertexState(0, Vertex(op, (), "name"))
    made.key = key
    return made


def key(op: Any, *inputs: str) -> str:
    """The definition key of an operation whose inputs have these keys."""
    states = [state(ImageSourceOp("x", "", "", "x"), each) for each in inputs]
    vertex = Vertex(op, tuple(range(len(inputs))), "name")
    worker = SimpleNamespace(secrets=Secrets((), {}, {}))
    return key_of(definition.by_definition(vertex, states, worker))  # type: ignore[arg-type]


CHANGES: list[dict[str, Any]] = [
    {"argv": ("/bin/sh", "-c", "make all")},
    {"argv": ("/bin/sh", "-c make")},
    {"env": ("PATH=/usr/bin",)},
    {"cwd": "/"},
    {"user": ""},
    {"network": "none"},
    {"security": "insecure"},
    {"hostname": "h"},
    {"platform": "linux/arm64"},
    {"extra_hosts": ("a:1.2.3.4",)},
    {"mounts": (MountOp("tmpfs", "/t"),)},
    {"mounts": (MountOp("cache", "/t", id="a"),)},
    {"mounts": (MountOp("cache", "/t", id="b"),)},
    {"mounts": (MountOp("secret", "/t", id="b"),)},
    {"mounts": (MountOp("secret", "/t", id="b", required=True),)},
]


def test_every_field_of_a_run_is_in_its_key() -> None:
    keys = [key(exec_op(), "p"), key(exec_op(), "q"), *(key(exec_op(**change), "p") for change in CHANGES)]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("change", [{"proxy_env": ("HTTP_PROXY=x",)}, {"ulimits": ("nofile=1:1",)}, {"shm_size": 1}])
def test_proxies_and_limits_are_not_in_the_key(change: dict[str, Any]) -> None:
    assert key(exec_op(**change), "p") == key(exec_op(), "p")


def test_every_field_of_a_copy_is_in_its_key() -> None:
    copy = CopyAction(1, "/a", "/b")
    other: dict[type, Any] = {
        bool: lambda value: not value,
        str: lambda value: value + "x",
        tuple: lambda value: (*value, "x"),
    }
    changed = [
        copy._replace(**{name: other[type(value)](value)}) for name, value in copy._asdict().items() if name != "input"
    ]
    keys = [key(FileOp((each,)), "p", "s") for each in [copy, *changed]]
    assert len(set(keys)) == len(keys)


def test_keys_stay_what_they_are() -> None:
    """A key is a file format: when this changes, every cache is lost, so bump KEY_VERSION on purpose and write anew."""
    found = {
        "run": key(exec_op(), "parent"),
        "run with mounts": key(exec_op(mounts=(MountOp("cache", "/c", id="/c", sharing="shared"),)), "parent"),
        "copy": key(FileOp((CopyAction(1, "/a", "/b"),)), "parent", "source"),
        "mkdir": key(FileOp((MkdirAction("/w", 0o755, "app"),)), "parent"),
    }
    assert found == json.loads(GOLDEN_KEYS.read_text())


def chain(*edges: tuple[int, ...]) -> list[VertexState]:
    """States with these inputs."""
    return [VertexState(index, Vertex(exec_op(), inputs, str(index))) for index, inputs in enumerate(edges)]


def test_schedule_runs_inputs_first() -> None:
    states = chain((SCRATCH,), (0,), (0,), (1, 2), (3,))
    order: list[int] = []
    lock = threading.Lock()

    def run(one: VertexState) -> None:
        with lock:
            order.append(one.index)

    Schedule(states, run).run(4, cancel=lambda: None)
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert order[0] == 0
    assert order[-2:] == [3, 4]


def test_schedule_overlaps_what_is_independent() -> None:
    barrier = threading.Barrier(3, timeout=10)
    Schedule(chain((), (), ()), lambda _: barrier.wait()).run(3, cancel=lambda: None)  # type: ignore[arg-type]


def test_schedule_stops_at_the_first_error() -> None:
    ran: list[int] = []

    def run(one: VertexState) -> None:
        ran.append(one.index)
        if one.index == 0:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        Schedule(chain((), (0,), (1,)), run).run(2, cancel=lambda: None)
    assert ran == [0]


def test_plan_keeps_inputs_before_their_readers() -> None:
    plan: Plan = plan_of("FROM busybox AS a\nRUN x\nFROM busybox AS b\nRUN y\nFROM a\nCOPY --from=b / /\nRUN z\n")
    for index, vertex in enumerate(plan.vertices):
        assert all(source < index for source in vertex.inputs)


SIDE = "FROM busybox AS s{0}\nRUN make {0}\n"


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("FROM busybox\nRUN a\nCOPY b /c\nRUN d\n", True),
        ("FROM busybox\nCOPY --from=busybox /a /b\n", True),
        ("FROM scratch\nENV A=b\n", True),
        ("FROM busybox AS unused\nRUN x\nFROM busybox\nRUN y\n", True),
        ("FROM busybox AS a\nRUN x\nFROM busybox\nCOPY --from=a / /\n", True),
        ("".join(map(SIDE.format, range(3))) + "FROM s0\nCOPY --from=s1 / /\nCOPY --from=s2 / /\n", True),
        ("".join(map(SIDE.format, range(4))) + "FROM busybox\nCOPY --from=s0 / /\n", True),
        (
            "".join(map(SIDE.format, range(5)))
            + "FROM busybox\n"
            + "".join(f"COPY --from=s{number} / /\n" for number in range(5)),
            False,
        ),
    ],
)
def test_few_chains_need_no_graph(text: str, known: bool) -> None:
    plan = plan_of(text)
    assert order.is_in_order(plan) == known
    assert len(keep_needed(plan).vertices) == len(plan.vertices)
    assert {vertex.name for vertex in keep_needed(plan).vertices} == {vertex.name for vertex in plan.vertices}
