from __future__ import annotations

import json
from typing import Any

from builder.export.config import Times, image_config
from builder.plan import SCRATCH, HistoryEntry, PlannedImage
from cache.digest import Digest

SECOND = 1_000_000_000
ONE, TWO = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)


def planned(*history: HistoryEntry, base: tuple[dict[str, Any], ...] = ()) -> PlannedImage:
    config = {"os": "linux", "architecture": "amd64", "config": {"WorkingDir": "/", "Env": ["A=b"]}}
    return PlannedImage(SCRATCH, "linux/amd64", config, base, history, 0, "")


def document(image: PlannedImage, diff_ids: tuple[Digest, ...], times: Times, vertex_name: str = "") -> Any:
    return json.loads(image_config(image, diff_ids, times, vertex_name))


def test_history_follows_the_base_and_each_entry_has_its_time() -> None:
    base: dict[str, Any] = {"created": "2001-02-03T04:05:06Z", "created_by": "base"}
    image = planned(HistoryEntry("RUN x"), HistoryEntry("CMD y", empty_layer=True), base=(base,))
    result = document(image, (ONE, TWO), Times((SECOND, 2 * SECOND), 3 * SECOND))
    comment = "buildkit.dockerfile.v0"
    assert result["history"] == [
        base,
        {"created": "1970-01-01T00:00:01Z", "created_by": "RUN x", "comment": comment},
        {"created": "1970-01-01T00:00:02Z", "created_by": "CMD y", "comment": comment, "empty_layer": True},
    ]
    assert result["created"] == "1970-01-01T00:00:03Z"
    assert result["rootfs"] == {"type": "layers", "diff_ids": [ONE, TWO]}


def test_a_layer_without_an_instruction_gets_an_entry_at_the_end() -> None:
    result = document(planned(HistoryEntry("COPY a /a # buildkit")), (ONE, TWO), Times((0,), 0), "[1/2] COPY a /a")
    assert [(entry["created_by"], entry["comment"]) for entry in result["history"]] == [
        ("COPY a /a # buildkit", "buildkit.dockerfile.v0"),
        ("[1/2] COPY a /a", "buildkit.exporter.image.v0"),
    ]


def test_history_that_claims_too_many_layers_is_emptied_from_the_top() -> None:
    result = document(planned(HistoryEntry("a"), HistoryEntry("b")), (ONE,), Times((0, 0), 0))
    assert [entry.get("empty_layer", False) for entry in result["history"]] == [False, True]


def test_an_epoch_is_the_time_of_everything_but_the_base() -> None:
    base = ({"created": "2001-02-03T04:05:06Z"}, {"created": "2999-01-01T00:00:00Z"}, {"created_by": "no time"})
    image = planned(HistoryEntry("a"), base=base)
    early, late = (image_config(image, (ONE,), Times((time,), time, 1_400_000_000)) for time in (5, 2**62))
    assert early == late
    result = json.loads(early)
    epoch = "2014-05-13T16:53:20Z"
    times = [entry.get("created") for entry in result["history"]]
    assert times == ["2001-02-03T04:05:06Z", "2999-01-01T00:00:00Z", None, epoch]
    assert result["created"] == epoch


def test_the_document_is_in_the_order_of_buildkit() -> None:
    raw = image_config(planned(), (), Times((), 0))
    assert raw.startswith(b'{"architecture":"amd64","config":{"Env":["A=b"],"WorkingDir":"/"},"created":')
    assert list(json.loads(raw)) == sorted(json.loads(raw))
