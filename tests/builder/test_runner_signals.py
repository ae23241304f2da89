"""Signals on their way to the program."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from builder.runner.signals import FORWARDED, Forwarding


@pytest.fixture
def stderr() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", FORWARDED)
def test_a_signal_is_delivered(number: int, stderr: tuple[int, int]) -> None:
    delivered: list[int] = []
    before = signal.getsignal(number)
    with Forwarding(stderr[1]) as forwarding:
        forwarding.started(delivered.append)
        send(number)
    assert delivered == [number]
    assert signal.getsignal(number) == before


def test_signals_before_the_start_wait_for_it(stderr: tuple[int, int]) -> None:
    delivered: list[int] = []
    with Forwarding(stderr[1]) as forwarding:
        send(signal.SIGTERM)
        send(signal.SIGUSR1)
        assert delivered == []
        forwarding.started(delivered.append)
        assert delivered == [signal.SIGTERM, signal.SIGUSR1]


def test_a_signal_during_a_delivery_comes_after_it(stderr: tuple[int, int]) -> None:
    events: list[str] = []

    def deliver(number: int) -> None:
        events.append(f"begin {number}")
        if number == signal.SIGTERM:
            send(signal.SIGHUP)
        events.append(f"end {number}")

    with Forwarding(stderr[1]) as forwarding:
        forwarding.started(deliver)
        send(signal.SIGTERM)
    assert events == ["begin 15", "end 15", "begin 1", "end 1"]


def test_the_third_interrupt_kills_after_a_warning(stderr: tuple[int, int]) -> None:
    delivered: list[int] = []
    with Forwarding(stderr[1]) as forwarding:
        forwarding.started(delivered.append)
        for _ in range(3):
            send(signal.SIGINT)
    assert delivered == [signal.SIGINT, signal.SIGINT, signal.SIGKILL]
    assert os.read(stderr[0], 1000).count(b"\n") == 1


def test_what_is_ignored_stays_ignored(stderr: tuple[int, int]) -> None:
    delivered: list[int] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Forwarding(stderr[1]) as forwarding:
            forwarding.started(delivered.append)
            send(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert delivered == []
