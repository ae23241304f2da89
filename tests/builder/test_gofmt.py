from __future__ import annotations

import pytest

from builder import gofmt


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("sh", '"sh"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("a\tb\n\r\x07\x0b", '"a\\tb\\n\\r\\a\\v"'),
        ("\x00\x1b\x7f", '"\\x00\\x1b\\x7f"'),
        ("é 日", '"é 日"'),
        ("\u200b", '"\\u200b"'),
        ("\U000e0001", '"\\U000e0001"'),
        ("\udcff", '"\\xff"'),
    ],
)
def test_quote(text: str, quoted: str) -> None:
    assert gofmt.quote(text) == quoted


@pytest.mark.parametrize(
    ("nanoseconds", "shown"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (2_000_000, "2ms"),
        (30_000_000_000, "30s"),
        (90_500_000_000, "1m30.5s"),
        (3_600_000_000_000, "1h0m0s"),
        (-1_500_000_000, "-1.5s"),
    ],
)
def test_duration(nanoseconds: int, shown: str) -> None:
    assert gofmt.duration(nanoseconds) == shown


def test_lists() -> None:
    assert gofmt.quoted_list(["sh", "-c"]) == '["sh" "-c"]'
    assert gofmt.plain_list(["a", "b"]) == "[a b]"
    assert gofmt.plain_list([]) == "[]"
