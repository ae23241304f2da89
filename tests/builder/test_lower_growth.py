"""Lowering of very long Dockerfiles: what a step costs must not depend on how many came before it."""

from __future__ import annotations

import resource
import time

import pytest

from builder.plan import ExecOp
from tests.builder.planning import plan_of

INTERLEAVED = "ENV A{0}=v{0}\nRUN x{0}\n"


def seconds(text: str, count: int) -> float:
    """The processor time of lowering, without that of other programs; the better of two."""
    source = "FROM busybox\n" + "".join(text.format(number) for number in range(count))
    times = []
    for _ in range(2):
        started = time.process_time()
        plan_of(source)
        times.append(time.process_time() - started)
    return min(times)


@pytest.mark.parametrize(
    "text", [INTERLEAVED, "LABEL a{0}=b\n", "EXPOSE {0}\n", "VOLUME /v{0}\n", "ONBUILD RUN x{0}\n"]
)
def test_four_times_as_much_takes_about_four_times_as_long(text: str) -> None:
    assert seconds(text, 4000) < 9 * max(seconds(text, 1000), 0.05)


def test_steps_between_changes_share_their_environment() -> None:
    plan = plan_of("FROM busybox\nENV A=1\nRUN a\nRUN b\nENV B=2 A=3\nRUN c\n")
    first, second, third = (vertex.op.env for vertex in plan.vertices if isinstance(vertex.op, ExecOp))
    assert first is second
    assert (first, third) == (("PATH=/bin", "A=1"), ("PATH=/bin", "B=2", "A=3"))
    assert plan.images[0].config["config"]["Env"] == ["PATH=/bin", "A=3", "B=2"]


def test_a_stage_does_not_change_what_it_starts_from() -> None:
    text = "FROM busybox AS a\nENV A=1\nLABEL a=1\nEXPOSE 1\nONBUILD RUN x\n"
    more = "FROM a AS b\nENV A=2 B=1\nLABEL a=2\nEXPOSE 2\nONBUILD RUN y\nFROM a\nENV C=1\n"
    config = plan_of(text + more).images[0].config["config"]
    assert config["Env"] == ["PATH=/bin", "A=1", "C=1"]
    assert (config["Labels"], config["ExposedPorts"]) == ({"a": "1"}, {"1/tcp": {}})
    assert "OnBuild" not in config


def test_memory_of_ten_thousand_instructions() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    plan = plan_of("FROM busybox\n" + "".join(INTERLEAVED.format(number) for number in range(5000)))
    assert len(plan.vertices) == 5001
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 250 << 10
