"""Wildcards in sources: one component each, Go's syntax, and what no match means."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import pytest
from copytools import Link, context, copy, copy_from, listing, write_tree
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import BuildError
from builder.ops.localtree import context_tree, sources_of
from builder.ops.wildcard import component_matcher, has_wildcard
from builder.plan import CopyAction, FileOp, LocalSourceOp, Vertex

SPEC = {
    "a.txt": "a",
    "b.txt": "b",
    ".dot.txt": "dot",
    "dirA/x": "xa",
    "dirA/sub/y": "y",
    "dirB/z": "z",
    "lnk": Link("dirA"),
    "[0].txt": "br",
}


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*", ".hidden", True),
        ("*", "", True),
        ("a*c", "abc", True),
        ("a?c", "ac", False),
        ("[ab]x", "bx", True),
        ("[^ab]x", "bx", False),
        ("[!a]x", "!x", True),
        ("[a-c]x", "cx", True),
        ("[b-a]x", "ax", False),
        ("[^b-a]x", "ax", True),
        ("[[]0", "[0", True),
        (r"\*", "*", True),
        (r"\*", "a", False),
        (r"[\]]", "]", True),
        ("a.c", "abc", False),
        ("*", "line\nbreak", True),
    ],
)
def test_components(pattern: str, name: str, expected: bool) -> None:
    assert component_matcher(pattern)(name) is expected


@pytest.mark.parametrize("pattern", ["[", "[a", "[]a]", "[-a]", "[a-]", "a\\", "[a-b"])
def test_malformed_patterns(pattern: str) -> None:
    with pytest.raises(BuildError, match="syntax error in pattern"):
        component_matcher(pattern)


@given(st.text("ab*?", max_size=6), st.text("ab", max_size=6))
def test_stars_and_question_marks_agree_with_fnmatch(pattern: str, name: str) -> None:
    assert component_matcher(pattern)(name) == fnmatch.fnmatchcase(name, pattern)


def test_an_escaped_wildcard_is_none() -> None:
    assert has_wildcard("a*")
    assert not has_wildcard(r"a\*")


@pytest.mark.parametrize(
    ("source", "landed"),
    [
        ("/*.txt", [".dot.txt", "[0].txt", "a.txt", "b.txt"]),
        ("/[ab].txt", ["a.txt", "b.txt"]),
        ("/dir*/x", ["x"]),
        ("/d*/", ["sub", "sub/y", "x", "z"]),
        ("/dirA/*", ["x", "y"]),
        ("/**/x", ["x"]),
        ("/lnk/*", ["x", "y"]),
        ("/l*", ["sub", "sub/y", "x"]),
        ("/[[]0].txt", ["[0].txt"]),
    ],
)
def test_what_a_wildcard_takes(tmp_path: Path, source: str, landed: list[str]) -> None:
    copy(tmp_path / "root", context(write_tree(tmp_path / "context", SPEC)), source, "/o/")
    assert sorted(listing(tmp_path / "root/o")) == landed


def test_no_match_at_the_top_copies_nothing_not_even_the_destination(tmp_path: Path) -> None:
    copy(tmp_path / "root", context(write_tree(tmp_path / "context", SPEC)), "/*.nope", "/o/")
    assert listing(tmp_path / "root") == {}


def test_no_match_in_a_directory_of_a_stage_copies_nothing(tmp_path: Path) -> None:
    copy_from(tmp_path / "root", write_tree(tmp_path / "stage", SPEC), "/dirA/*.nope", "/o/")
    assert listing(tmp_path / "root") == {}


@pytest.mark.parametrize(
    ("others", "is_error"),
    [
        ((), True),
        (("/a.txt", "/dirB"), True),
        (("/nosuch/*", "/dirA/nosuch"), True),
        (("/dirA/x",), False),
        (("/dirA",), False),
        (("/d*/x",), False),
        (("/dir?",), False),
        (("/",), False),
    ],
)
def test_no_match_below_a_directory_that_nothing_else_takes(
    tmp_path: Path, others: tuple[str, ...], is_error: bool
) -> None:
    """Such a directory is not sent to BuildKit, so the one wildcard that matched nothing cannot be resolved."""
    sources = ("/dirA/*.nope", *others)
    tree = context(write_tree(tmp_path / "context", SPEC), sources=sources)
    if is_error:
        with pytest.raises(BuildError, match=r'"/dirA/\*.nope": not found'):
            copy(tmp_path / "root", tree, sources[0], "/o/")
    else:
        copy(tmp_path / "root", tree, sources[0], "/o/")


def test_a_wildcard_below_nothing_is_an_error(tmp_path: Path) -> None:
    tree = context(write_tree(tmp_path / "context", SPEC))
    with pytest.raises(BuildError, match='"/nosuch": not found'):
        copy(tmp_path / "root", tree, "/nosuch/*", "/o/")


def test_an_empty_wildcard_that_is_not_allowed(tmp_path: Path) -> None:
    tree = context(write_tree(tmp_path / "context", SPEC))
    with pytest.raises(BuildError, match="not found"):
        copy(tmp_path / "root", tree, "/*.nope", "/o/", allow_empty_wildcard=False)


def test_only_what_the_sources_can_mean_is_scanned(tmp_path: Path) -> None:
    directory = write_tree(tmp_path / "context", {**SPEC, "huge/deep/file": ""})
    tree = context_tree(str(directory), None, None, sources=("/dirA/x", "/dirB/*", "/lnk/sub/y"))
    assert [entry.path for entry in tree.below("")] == ["dirA", "dirA/x", "dirB", "dirB/z", "lnk"]
    copy(tmp_path / "root", tree, "/lnk/sub/y", "/y")
    assert listing(tmp_path / "root") == {"y": "f 644 'y'"}


def test_sources_of_a_plan_are_those_of_one_directory() -> None:
    local, other = LocalSourceOp("context"), LocalSourceOp("extra")
    copies = FileOp(
        (CopyAction(1, "/b", "/"), CopyAction(2, "/e", "/"), CopyAction(1, "/a*", "/"), CopyAction(-1, "/", "/"))
    )
    vertices = (Vertex(local, (), ""), Vertex(other, (), ""), Vertex(copies, (-1, 0, 1), ""))
    assert sources_of(vertices, "context") == ("/a*", "/b")
    assert sources_of(vertices, "extra") == ("/e",)
