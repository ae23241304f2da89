"""The house's rules that a tool can check: who imports whom, which door a heavy library has, how large a room is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("builder", "cache", "grammar")
MODULES = sorted(path for package in PACKAGES for path in (PROJECT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize(
    ("package", "strangers"), [("grammar", {"builder", "cache"}), ("cache", {"builder", "grammar"})]
)
def test_leaves_know_nobody(package: str, strangers: set[str]) -> None:
    for path in (PROJECT / package).rglob("*.py"):
        assert not {name.partition(".")[0] for name in imported(path)} & strangers, path


@pytest.mark.parametrize(
    ("library", "doors"),
    [
        ("lark", {"grammar.parser", "grammar.transformer"}),
        ("networkx", {"builder.graph"}),
        ("tqdm", {"builder.progress_bar"}),
        ("sqlite3", {"cache.database"}),
        ("pyroute2", {"builder.sandbox.net.netlink"}),
        ("boto3", {"builder.cachestore.s3"}),
        ("botocore", {"builder.cachestore.s3"}),
        ("urllib3", {"builder.registry.transport"}),
    ],
)
def test_heavy_libraries_have_one_door(library: str, doors: set[str]) -> None:
    users = {name_of(path) for path in MODULES if library in {name.partition(".")[0] for name in imported(path)}}
    assert users <= doors


def test_nobody_extracts_with_tarfile() -> None:
    assert not [path for path in MODULES if "tarfile" in set(imported(path))]


def test_commands_are_not_imported_by_what_they_wire() -> None:
    for path in MODULES:
        if not name_of(path).startswith(("builder.commands", "builder.cli", "builder.__main__")):
            assert not [name for name in imported(path) if name.startswith("builder.commands.")], path


def test_rooms_stay_liveable() -> None:
    for path in MODULES:
        text = path.read_text()
        assert text.count("\n") <= 400, f"{path}: split it by meaning"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{path}: {node.name}"


def test_every_package_is_installed() -> None:
    import tomllib

    listed = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(name_of(path) for path in MODULES if path.name == "__init__.py")
