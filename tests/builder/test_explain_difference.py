"""What differs between two manifests, in words: Dockerfiles before and after, and the sentences they give.

The sentences are in `golden/differences.json`; $PYBUILD_REWRITE_GOLDEN writes it anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from builder.explain.difference import Difference, Told, compare
from builder.explain.files import FileChange, FileList, file_changes
from builder.explain.nearest import nearest
from builder.explain.notes import DEFINITION, note_of
from builder.explain.words import sentence, sentences
from builder.ops import definition
from builder.plan import SCRATCH, Plan
from builder.state import VertexState
from cache.keynotes import FormerRecord, KeyNote
from cache.keys import key_of, readable
from tests.builder.planning import BUSYBOX, Images, plan_of
from tests.builder.test_keys import worker

GOLDEN = Path(__file__).parent / "golden" / "differences.json"
ARGS = "ARG VERSION\nARG API_TOKEN\n"
CASES: dict[str, tuple[str, str, dict[str, str]]] = {
    "build arg": (ARGS + "RUN make", ARGS + "RUN make", {"VERSION": "2"}),
    "secret build arg": (ARGS + "RUN make", ARGS + "RUN make", {"API_TOKEN": "geheim"}),
    "env": ("ENV MODE=fast\nRUN make", "ENV MODE=slow\nRUN make", {}),
    "secret env": ("ENV DB_PASSWORD=geheim\nRUN make", "ENV DB_PASSWORD=other\nRUN make", {}),
    "env added": ("RUN make", "ENV MODE=slow\nRUN make", {}),
    "secret env added": ("RUN make", "ENV DB_PASSWORD=geheim\nRUN make", {}),
    "env removed": ("ENV MODE=slow\nRUN make", "RUN make", {}),
    "env order": ("ENV A=1 B=2\nRUN make", "ENV B=2 A=1\nRUN make", {}),
    "long env": ("ENV A=short\nRUN make", "ENV A=" + "longer" * 40 + "\nRUN make", {}),
    "instruction": ("RUN make", "RUN make -j2", {}),
    "another instruction": ("RUN make", "COPY a /b", {}),
    "exec form": ("RUN make", 'RUN ["make"]', {}),
    "shell": ("RUN make", 'SHELL ["/bin/bash", "-c"]\nRUN make', {}),
    "secret elsewhere": ("ENV A_KEY=geheim\nRUN a", "ENV A_KEY=geheim B=geheim1\nWORKDIR /\nUSER geheim\nRUN a", {}),
    "user": ("RUN make", "USER app\nRUN make", {}),
    "directory": ("WORKDIR /a\nRUN make", "WORKDIR /b\nRUN make", {}),
    "heredoc line": ("RUN <<EOF\nset -e\nmake\nEOF", "RUN <<EOF\nset -e\nmake all\nEOF", {}),
    "heredoc shorter": ("RUN <<EOF\nset -e\nmake\nEOF", "RUN <<EOF\nset -e\nEOF", {}),
    "network": ("RUN make", "RUN --network=none make", {}),
    "mount": ("RUN --mount=type=cache,target=/c make", "RUN --mount=type=cache,target=/c,id=x make", {}),
    "chmod": ("COPY a /b", "COPY --chmod=755 a /b", {}),
    "chown and exclude": ("COPY --chown=1 a /b", "COPY --chown=2 --exclude=*.o a /b", {}),
    "destination": ("COPY a /b", "COPY a /c", {}),
    "document": ("COPY <<EOF /b\none\nEOF", "COPY <<EOF /b\ntwo\nEOF", {}),
    "base": ("FROM busybox\nRUN make", "FROM alpine\nRUN make", {}),
    "what is before it": ("RUN one\nRUN make", "RUN two\nRUN make", {}),
    "inserted": ("RUN make", "RUN two\nRUN make", {}),
}


def plan(text: str, build_args: dict[str, str]) -> Plan:
    other = {**BUSYBOX, "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "2" * 64]}}
    lines = text if text.startswith("FROM") else f"FROM busybox\n{text}"
    return plan_of(
        f"{lines}\n", Images({"alpine": other}), build_args={"VERSION": "1", "API_TOKEN": "abc", **build_args}
    )


def states_of(text: str, build_args: dict[str, str]) -> list[VertexState]:
    found = plan(text, build_args)
    states = [VertexState(index, vertex) for index, vertex in enumerate(found.vertices)]
    for state in states:
        state.manifest = definition.by_definition(state.vertex, inputs(state, states), noting())
        state.key = key_of(state.manifest)
    return states


def inputs(state: VertexState, states: list[VertexState]) -> list[VertexState | None]:
    return [None if index == SCRATCH else states[index] for index in state.vertex.inputs]


def noting() -> Any:
    found = worker()
    found.inputs.project = "/project"
    found.clock = lambda: 1
    return found


def noted(states: list[VertexState], at: int) -> tuple[KeyNote, Told]:
    note = note_of(states[at], inputs(states[at], states), noting(), DEFINITION)
    return note, Told(json.loads(readable(states[at].manifest)), json.loads(note.notes))


def said(before: str, after: str, build_args: dict[str, str]) -> list[str]:
    """What differs for the last vertex, and for those above it what differs there."""
    old, new = states_of(before, {}), states_of(after, build_args)
    return sentences(compare(noted(old, -1)[1], noted(new, -1)[1], lambda _: None))


def test_differences_in_words() -> None:
    found = {name: said(*case) for name, case in CASES.items()}
    if os.environ.get("PYBUILD_REWRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    assert found == json.loads(GOLDEN.read_text())
    assert "geheim" not in json.dumps(found)


def told(op: str, **fields: Any) -> Told:
    return Told({"op": op, "inputs": [], **fields}, {"text": "COPY a /b", "inputs": []})


def test_base_digest_and_secret_in_words() -> None:
    images = [{"text": "FROM alpine", "image": "alpine", "digest": f"sha256:{each * 64}"} for each in "ac"]
    former, now = (
        Told({"op": "merge", "inputs": [{"key": image["digest"]}]}, {"text": "", "inputs": [image]}) for image in images
    )
    found = compare(former, now, lambda _: None)
    assert [sentence(each) for each in found] == ["base image alpine: digest was sha256:aaaaa…, is now sha256:ccccc…"]
    found = compare(told("merge", secrets={"s": "1"}), told("merge", secrets={"s": "2"}), lambda _: None)
    assert [sentence(each) for each in found] == ["secret s changed"]


COPY = {"action": "CopyAction", "input": 1, "source": "/src"}


def copy(digest: str, **more: Any) -> Told:
    return told("file", actions=[COPY])._replace(
        manifest={"op": "file", "actions": [COPY], "inputs": [{"key": "base"}, {"digests": [digest], **more}]}
    )


def test_files_that_differ() -> None:
    listed = {
        "1": [(".", "d0"), ("main.c", "f644 aa"), ("old.c", "f644 bb"), ("run", "f644 cc"), ("gone", "f644 dd")],
        "2": [(".", "d0"), ("main.c", "f644 ab"), ("new.c", "f644 bb"), ("run", "f755 cc"), ("more", "f644 ee")],
    }
    lists = {digest: FileList(files) for digest, files in listed.items()}
    found = compare(copy("1"), copy("2"), lists.get)
    assert [sentence(each) for each in found] == [
        "src/gone removed",
        "src/main.c changed (content)",
        "src/more added",
        "src/old.c renamed to src/new.c",
        "src/run changed (mode)",
    ]
    assert sentences(found, most=2) == ["src/gone removed", "src/main.c changed (content)", "and 3 more"]
    assert [sentence(each) for each in compare(copy("1"), copy("3"), lists.get)] == [
        "files of src changed (which ones is not known any more)"
    ]
    assert [each.subject for each in compare(copy("1"), copy("1", modes="git"), lists.get)] == ["--cache-key-mode"]


@pytest.mark.parametrize(
    ("was", "now", "what"),
    [
        ("f644 aa", "f644 bb", ("content",)),
        ("f644 aa", "f755 bb", ("content", "mode")),
        ("f644 1:2 aa", "f644 aa", ("owner",)),
        ("f644 aa", "f644 aa =first", ("link",)),
        ("l one", "l two", ("target",)),
        ("l one", "f644 aa", ("type",)),
        ("d755", "f755 aa", ("type",)),
        ("d755", "d700", ("mode",)),
        ("f aa", "f bb", ("content",)),
        ("c644 1", "c644 2", ("content",)),
    ],
)
def test_what_of_a_file_differs(was: str, now: str, what: tuple[str, ...]) -> None:
    assert file_changes(FileList([("f", was)]), FileList([("f", now)]), "/f") == [FileChange("f", what)]


@pytest.mark.parametrize(
    ("source", "listed", "path"),
    [
        ("/src", [(".", "d0"), ("a", "f644 x")], "src/a"),
        ("/", [(".", "d0"), ("a", "f644 x")], "a"),
        ("/src/a", [("a", "f644 x")], "src/a"),
        ("/src/*", [("a", "f644 x")], "src/a"),
        ("*.c", [("a", "f644 x")], "a"),
    ],
)
def test_paths_are_named_from_the_context(source: str, listed: list[tuple[str, str]], path: str) -> None:
    changed = [(name, state.replace("x", "y")) for name, state in listed]
    assert [change.path for change in file_changes(FileList(listed), FileList(changed), source)] == [path]


def test_equal_paths_below_several_directories_are_told_apart() -> None:
    was = [(".", "d0"), ("a", "f644 1"), (".", "d0"), ("a", "f644 2")]
    now = [(".", "d0"), ("a", "f644 1"), (".", "d0"), ("a", "f644 3")]
    assert file_changes(FileList(was), FileList(now), "*") == [FileChange("a", ("content",))]


def test_files_below_what_a_wildcard_matched_are_named_with_it() -> None:
    was = [
        (".", "d0"),
        ("a", "f644 1"),
        ("gone", "f644 4"),
        (".", "d0"),
        ("a", "f644 2"),
        ("b", "f644 5"),
        ("c", "l a"),
    ]
    now = [(".", "d0"), ("a", "f644 1"), ("new", "f644 6"), (".", "d7"), ("a", "f644 3"), ("e", "f644 5"), ("c", "l b")]
    found = file_changes(FileList(was), FileList(now, [("/odd/one", 3), ("/odd/two", 3), ("/odd/c", 1)]), "/odd/*")
    assert found == [
        FileChange("odd/c", ("target",)),
        FileChange("odd/one/gone", ("removed",)),
        FileChange("odd/one/new", ("added",)),
        FileChange("odd/two", ("mode",)),
        FileChange("odd/two/a", ("content",)),
        FileChange("odd/two/e", ("renamed",), "odd/two/b"),
    ]


def test_many_renamed_files_take_no_time() -> None:
    was = [(f"a{number}", f"f644 {number}") for number in range(20_000)]
    now = [(f"b{number}", f"f644 {number}") for number in range(20_000)]
    assert {change.what for change in file_changes(FileList(was), FileList(now), "/")} == {("renamed",)}


def former(text: str, at: int = -1, *, made_ns: int = 0, **build_args: str) -> FormerRecord:
    states = states_of(text, build_args)
    note = noted(states, at)[0]._replace(made_ns=made_ns)
    return FormerRecord(note, "chain", readable(states[at].manifest))


def nearest_text(text: str, records: list[FormerRecord]) -> str | None:
    states = states_of(text, {})
    note, now = noted(states, -1)
    used = {definition.operation_key(state.vertex) for state in states}
    found = nearest(note, now, records, used)
    return None if found is None else str(found.notes["text"])


def test_nearest_record() -> None:
    records = [
        former("RUN make one", made_ns=5),
        former("RUN make two", made_ns=9),
        former("RUN ls -l /etc", made_ns=9),
    ]
    assert nearest_text("RUN make one more", records) == "RUN make one"
    assert nearest_text("RUN make", records[:2]) in ("RUN make one", "RUN make two")
    assert nearest_text("RUN apt-get install gcc", records) is None
    assert nearest_text("COPY make one", records) is None


def test_instruction_that_is_still_there_was_not_another_one() -> None:
    assert nearest_text("RUN make one\nRUN make two", [former("RUN make one")]) is None
    assert nearest_text("RUN make two", [former("RUN make one")]) == "RUN make one"


def test_newest_of_equal_records() -> None:
    records = [former("ARG VERSION\nRUN make", made_ns=age, VERSION=str(age)) for age in (3, 9, 6)]
    states = states_of("ARG VERSION\nRUN make", {})
    note, now = noted(states, -1)
    found = nearest(note, now, records, set())
    assert found is not None
    assert compare(found, now, lambda _: None) == [Difference("arg", "VERSION", "9", "1")]
