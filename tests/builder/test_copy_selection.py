"""What a copy reads: the digest moves with everything that lands and with nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from copytools import Entry, Fifo, Hard, Link, context, copy, listing, opened, write_tree
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import BuildError
from builder.ops.fileop import context_tree, root_tree
from builder.ops.select import Selection, selection
from builder.plan import CopyAction
from cache.store import Store

SPEC: dict[str, Any] = {
    "d": None,
    "d/f": Entry("content", 0o640, mtime=1000),
    "d/s": Entry(None, 0o750),
    "d/s/g": "other",
    "d/l": Link("f"),
    "d/pipe": Fifo(),
    "d/empty": None,
    "out": "outside",
}


def select(directory: Path, source: str = "/d", *ignored: str, **options: Any) -> Selection:
    return selection(CopyAction(1, source, "/x", **options), context(directory, *ignored))


def select_from(directory: Path, source: str = "/d", **options: Any) -> Selection:
    with opened(directory) as fd:
        return selection(CopyAction(1, source, "/x", **options), root_tree(fd))


def _replace_link(directory: Path) -> None:
    (directory / "d/l").unlink()
    (directory / "d/l").symlink_to("g")


def _replace_by_link(directory: Path) -> None:
    (directory / "d/s/g").unlink()
    (directory / "d/s/g").symlink_to("other")


def _swap_names(directory: Path) -> None:
    (directory / "d/f").rename(directory / "d/h")


def _link_hard(directory: Path) -> None:
    (directory / "d/t").unlink()
    os.link(directory / "d/f", directory / "d/t")


CHANGES: dict[str, Callable[[Path], object]] = {
    "bytes": lambda d: (d / "d/f").write_text("CONTENT"),
    "mode": lambda d: (d / "d/f").chmod(0o641),
    "directory mode": lambda d: (d / "d/s").chmod(0o751),
    "link target": _replace_link,
    "type": _replace_by_link,
    "name": _swap_names,
    "new file": lambda d: (d / "d/new").write_text(""),
    "new directory": lambda d: (d / "d/new").mkdir(),
    "gone": lambda d: (d / "d/empty").rmdir(),
    "fifo mode": lambda d: (d / "d/pipe").chmod(0o600),
}
SAME: dict[str, Callable[[Path], object]] = {
    "time": lambda d: os.utime(d / "d/f", (5, 5)),
    "the source directory's own mode": lambda d: (d / "d").chmod(0o700),
    "a context owner": lambda d: os.chown(d / "d/f", 5, 6),
    "attributes": lambda d: os.setxattr(d / "d/f", "user.note", b"x"),
    "what is not selected": lambda d: (d / "out").write_text("changed"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_moves_the_digest(tmp_path: Path, change: Callable[[Path], object]) -> None:
    directory = write_tree(tmp_path, SPEC)
    before = select(directory), select_from(directory)
    change(directory)
    after = select(directory), select_from(directory)
    assert before[0].digest != after[0].digest
    assert before[1].digest != after[1].digest
    assert before[0].files != after[0].files


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_does_not(tmp_path: Path, change: Callable[[Path], object]) -> None:
    directory = write_tree(tmp_path, SPEC)
    before = select(directory)
    change(directory)
    assert select(directory) == before


def test_owners_of_a_stage_count_unless_chown_replaces_them(tmp_path: Path) -> None:
    directory = write_tree(tmp_path, SPEC)
    before = select_from(directory), select_from(directory, chown="5")
    os.chown(directory / "d/f", 5, 6)
    assert select_from(directory) != before[0]
    assert select_from(directory, chown="5") == before[1]


def test_capabilities_of_a_stage_count(tmp_path: Path) -> None:
    directory = write_tree(tmp_path, SPEC)
    before = select(directory), select_from(directory)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(directory / "d/f", "security.capability", capability)
    assert select(directory) == before[0]
    assert select_from(directory) != before[1]


def test_the_mode_of_a_parent_counts_even_with_chmod(tmp_path: Path) -> None:
    directory = write_tree(tmp_path, SPEC)
    before = select(directory, "/", include_patterns=("d/s/g",), chmod="755")
    (directory / "d/s").chmod(0o700)
    assert select(directory, "/", include_patterns=("d/s/g",), chmod="755") != before


def test_modes_count_unless_an_octal_chmod_replaces_them(tmp_path: Path) -> None:
    directory = write_tree(tmp_path, SPEC)
    before = select(directory, chmod="755"), select(directory, chmod="u+x")
    (directory / "d/f").chmod(0o600)
    assert select(directory, chmod="755") == before[0]
    assert select(directory, chmod="u+x") != before[1]


def test_a_hard_link_is_not_the_same_as_two_files(tmp_path: Path) -> None:
    directory = write_tree(tmp_path, {"d/f": "x", "d/t": "x"})
    before = select(directory)
    _link_hard(directory)
    assert select(directory) != before
    assert dict(select(directory).files)["t"].endswith("=f")
    assert select(directory).digest == select_from(directory).digest


def test_a_context_and_a_stage_with_the_same_files_are_the_same(tmp_path: Path) -> None:
    directory = write_tree(tmp_path, SPEC)
    assert select(directory) == select_from(directory)


def test_the_files_are_named_as_they_land(tmp_path: Path) -> None:
    directory = write_tree(tmp_path, SPEC)
    assert [path for path, _ in select(directory).files] == [".", "empty", "f", "l", "pipe", "s", "s/g"]
    assert [path for path, _ in select(directory, "/d/s/../f").files] == ["f"]
    assert [path for path, _ in select(directory, "/d/[fl]").files] == ["f", "l"]


def test_a_directory_can_move_without_a_miss(tmp_path: Path) -> None:
    directory = write_tree(tmp_path, SPEC)
    before = select(directory, "/d")
    (directory / "d").rename(directory / "elsewhere")
    assert select(directory, "/elsewhere").digest == before.digest


def test_nothing_and_an_empty_directory_differ(tmp_path: Path) -> None:
    directory = write_tree(tmp_path, {"e": None})
    assert select(directory, "/*.none").files == ()
    assert select(directory, "/e").digest != select(directory, "/*.none").digest


def test_excluded_files_are_not_read(tmp_path: Path) -> None:
    directory = write_tree(tmp_path, SPEC)
    before = select(directory, exclude_patterns=("s",))
    (directory / "d/s/g").write_text("changed")
    assert select(directory, exclude_patterns=("s",)) == before


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("/outt", 'did you mean "/out"?'),
        ("/D/f", 'did you mean "/d"?'),
        ("/d/S/g", 'did you mean "/d/s"?'),
        ("/out/x", '"/out" is not a directory'),
        ("/zzzzzzzz", None),
        ("/../../etc/hostname", None),
    ],
)
def test_a_missing_source_says_what_may_be_meant(tmp_path: Path, source: str, hint: str | None) -> None:
    directory = write_tree(tmp_path, SPEC)
    for find in (select, select_from):
        with pytest.raises(BuildError, match="not found") as caught:
            find(directory, source)
        assert caught.value.hint == hint


def test_an_ignored_source_says_so(tmp_path: Path) -> None:
    directory = write_tree(tmp_path, SPEC)
    with pytest.raises(BuildError, match='"/out": not found') as caught:
        select(directory, "/out", "out")
    assert caught.value.hint == '"out" is excluded by the .dockerignore file'


def test_an_ignored_directory_is_there_for_what_is_kept_below_it(tmp_path: Path) -> None:
    directory = write_tree(tmp_path, {"a/b/keep": "k", "a/b/drop": "x", "a/c": "x", "z/y": "x"})
    copy(tmp_path / "root", context(directory, "*", "!a/b/keep"), "/", "/")
    assert sorted(listing(tmp_path / "root")) == ["a", "a/b", "a/b/keep"]


def test_links_that_turn_in_a_circle_are_an_error(tmp_path: Path) -> None:
    directory = write_tree(tmp_path, {"a": Link("b"), "b": Link("a")})
    with pytest.raises(BuildError, match="too many levels"):
        select(directory, "/a")


def test_a_file_that_changed_since_the_scan_is_not_hashed(tmp_path: Path) -> None:
    directory = write_tree(tmp_path, SPEC)
    tree = context(directory)
    (directory / "d/f").write_text("longer than before")
    with pytest.raises(Exception, match="changed"):
        selection(CopyAction(1, "/d", "/x"), tree)


def test_digests_are_kept_between_builds(tmp_path: Path) -> None:
    directory = write_tree(tmp_path / "context", {"f": "x" * 100})
    os.utime(directory / "f", (1000, 1000))
    action = CopyAction(1, "/f", "/")
    with Store.open(str(tmp_path / "store")) as store:
        tree = context_tree(str(directory), None, store.statcache)
        before = selection(action, tree)
        tree.save()
        assert selection(action, context_tree(str(directory), None, store.statcache)) == before


def test_selecting_what_is_known_loads_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys; from builder.ops import localtree, select; from builder.plan import CopyAction;"
        "tree = localtree.context_tree(sys.argv[1], None, None, sources=('/d',));"
        "tree.digest = lambda entry: '';"
        "assert select.selection(CopyAction(1, '/d', '/'), tree).files;"
        "print(*{'ctypes', 'xxhash', 'difflib', 'dataclasses', 'inspect', 'tempfile', 'ssl'} & {*sys.modules})"
    )
    write_tree(tmp_path, SPEC)
    root = Path(__file__).resolve().parents[2]
    loaded = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=root, check=True, capture_output=True, text=True
    )
    assert loaded.stdout.split() == []


NAMES = st.sampled_from(["a", "b", "c.txt", "ü", "x y"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
VALUES = st.one_of(
    st.none(),
    st.binary(max_size=20),
    st.builds(Entry, st.binary(max_size=5), st.sampled_from([0o600, 0o4755, 0o444])),
    st.sampled_from([Link("a"), Link("/etc/passwd"), Link("../.."), Hard("first")]),
)


def _consistent(spec: dict[str, Any]) -> dict[str, Any]:
    """Without entries below what is no directory."""
    kept: dict[str, Any] = {"first": "1"}
    for path in sorted(spec):
        above = [path[:at] for at, char in enumerate(path) if char == "/"]
        if all(kept.get(parent) is None for parent in above):
            kept[path] = spec[path]
    return kept


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(PATHS, VALUES, max_size=12))
def test_a_copy_is_the_tree_it_was_made_of(spec: dict[str, Any]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        source = write_tree(base / "source", _consistent(spec))
        copy(base / "one", context(source), "/", "/")
        assert listing(base / "one") == listing(source)
        assert select(base / "one", "/").digest == select(source, "/").digest
        with opened(source) as fd:
            copy(base / "two", root_tree(fd), "/", "/x/")
        assert listing(base / "two/x") == listing(source)
        copy(base / "one", context(source), "/", "/")
        assert listing(base / "one") == listing(source)
