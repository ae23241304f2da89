"""Paths inside a root are reached in one way only: no string is put together from container paths and then opened.

`SafeRoot` resolves them with openat2(2). Whoever of these packages puts a path together stands in the list below with
the reason why no container path is in it, or why nothing is opened by it. (`cache` knows no mounted roots: its
`RootPaths` and `DirectoryCache` walk layers by descriptors, `merged` and `changes` snapshots that nobody writes.)
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.test_structure import MODULES, PROJECT, name_of

GUARDED = ("builder.ops.", "builder.runner.", "builder.sandbox.", "builder.export.", "builder.snapshotters.")
TEXT = "text that is compared, shown or written into an archive; nothing is opened by it"
STORE = "a directory of the store, whose names pybuild gives: numbers, digests, ids"
KERNEL = "a file of the kernel's: /proc, control groups"
SCRATCH = "the step's private tmpfs, below names that pybuild gives"
HOST = "a path of the host that its user gave, or that the machine has; no image decides it"

CONTEXT = "the scan of a context; a file that was swapped since is found out by its inode, and copies go by descriptor"

ALLOWED = {
    "builder.export.archive": STORE,
    "builder.export.archiveplan": TEXT,
    "builder.export.walk": TEXT,
    "builder.ops.exec._ssh": TEXT,
    "builder.ops.fileop": TEXT,
    "builder.ops.foreign": KERNEL,
    "builder.ops.localtree": CONTEXT,
    "builder.ops.select": TEXT,
    "builder.ops.tree": TEXT,
    "builder.runner.container": STORE,
    "builder.runner.find": HOST,
    "builder.runner.options": HOST,
    "builder.runner.process": TEXT,
    "builder.runner.run._containers": STORE,
    "builder.runner.volumes._declared": TEXT,
    "builder.sandbox.cgroup": KERNEL,
    "builder.sandbox.delegation": KERNEL,
    "builder.sandbox.device_rules": KERNEL,
    "builder.sandbox.filesystems.MountCgroupView": "below the sandbox's own mounts, opened by SafeRoot",
    "builder.sandbox.filesystems.MountFilesystem": TEXT,
    "builder.sandbox.filesystems.MoveFromSkeleton": SCRATCH,
    "builder.sandbox.filesystems._bind_devices": "the machine's own devices, compared by number once they are open",
    "builder.sandbox.idmap": HOST,
    "builder.sandbox.filesystems.thermal_paths": KERNEL,
    "builder.sandbox.launcher": HOST,
    "builder.sandbox.limited": KERNEL,
    "builder.sandbox.limits": KERNEL,
    "builder.sandbox.mounts": SCRATCH,
    "builder.sandbox.net.bridge": KERNEL,
    "builder.sandbox.net.subnet": TEXT,
    "builder.sandbox.network": TEXT,
    "builder.sandbox.operations": SCRATCH,
    "builder.sandbox.paths": TEXT,
    "builder.sandbox.plan": TEXT,
    "builder.sandbox.process._search_path": "after the pivot, where the image is all there is",
    "builder.sandbox.targets": TEXT,
    "builder.sandbox.usage": KERNEL,
    "builder.sandbox.userns": HOST,
    "builder.snapshotters.choose": STORE,
    "builder.snapshotters.directories": STORE,
    "builder.snapshotters.fuse": STORE,
    "builder.snapshotters.idmapped": STORE,
    "builder.snapshotters.native": STORE,
}


class Join(NamedTuple):
    """A place where a path is put together: the module with the function, and the line."""

    place: str
    line: int


def joins(path: Path) -> Iterator[Join]:
    def visit(node: ast.AST, place: str) -> Iterator[Join]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            place = f"{place}.{node.name}"
        if is_join(node):
            yield Join(place, node.lineno)  # type: ignore[attr-defined]
        for child in ast.iter_child_nodes(node):
            yield from visit(child, place)

    yield from visit(ast.parse(path.read_text()), name_of(path))


def is_join(node: ast.AST) -> bool:
    """os.path.join(…), "/".join(…), f"{a}/b", a + "/b"; but not the kernel's names below /proc."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "join":
        owner = node.func.value
        return has_slash(owner) or (isinstance(owner, ast.Attribute | ast.Name) and "path" in ast.unparse(owner))
    if isinstance(node, ast.JoinedStr):
        texts = [part.value for part in node.values if isinstance(part, ast.Constant)]
        if str(texts[:1]).startswith("['/proc/"):
            return False
        return len(texts) < len(node.values) and "/" in "".join(texts) and not any(" " in text for text in texts)
    return (
        isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and (has_slash(node.left) or has_slash(node.right))
    )


def has_slash(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Constant) and isinstance(node.value, str) and "/" in node.value and " " not in node.value
    )


def guarded_joins() -> list[Join]:
    found = [join for path in MODULES if name_of(path).startswith(GUARDED) for join in joins(path)]
    assert len(found) > 30, "the search finds what is known to be there"
    return found


def reason(place: str) -> str | None:
    """The entry of a function, its class or its module."""
    while place and place not in ALLOWED:
        place = place.rpartition(".")[0]
    return ALLOWED.get(place)


def test_no_container_path_is_put_together() -> None:
    strangers = [f"{join.place}:{join.line}" for join in guarded_joins() if reason(join.place) is None]
    assert not strangers, "\n".join(["reach container paths through SafeRoot, or say in ALLOWED why not:", *strangers])


def test_every_exception_is_needed() -> None:
    places = {join.place for join in guarded_joins()}
    unused = [each for each in ALLOWED if not any(place == each or place.startswith(f"{each}.") for place in places)]
    assert not unused


def test_openat2_has_one_door() -> None:
    users = {
        name_of(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "openat2"
    }
    assert users == {"builder.sandbox.fsops"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("os.path.join(a, b)", True),
        ("posixpath.join(root, name)", True),
        ("f'{root}/{name}'", True),
        ("f'/proc/self/fd/{fd}'", False),
        ("root + '/etc/passwd'", True),
        ("'/'.join(parts)", True),
        ("f'{root}: no such file or directory'", False),
        ("', '.join(names)", False),
        ("'/etc/passwd'", False),
        ("f'{a}{b}'", False),
    ],
)
def test_what_counts_as_a_join(text: str, expected: bool) -> None:
    assert any(is_join(node) for node in ast.walk(ast.parse(text))) == expected


def test_the_project_is_where_it_is_looked_for() -> None:
    assert (PROJECT / "builder/sandbox/fsops.py").is_file()
