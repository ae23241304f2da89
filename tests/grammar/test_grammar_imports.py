"""What a warm build pays for: the modules it needs must not pull in the parser or the node classes."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

GRAMMAR_DIR = Path(__file__).resolve().parents[2] / "grammar"
WARM = ("errors", "words", "reference", "platforms", "ignore", "values", "ports", "mount_flag")
HEAVY = ("lark", "dataclasses", "inspect", "difflib", "subprocess", "ipaddress", "urllib", "json", "pathlib")


@pytest.mark.parametrize("name", WARM)
def test_a_warm_module_imports_nothing_heavy(name: str) -> None:
    program = f"import sys, grammar.{name}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=GRAMMAR_DIR.parent, check=True, capture_output=True, text=True
    ).stdout.split()
    assert [module for module in loaded if module.partition(".")[0] in HEAVY] == []


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def test_lark_has_one_door() -> None:
    importers = {path.name for path in GRAMMAR_DIR.glob("*.py") if "lark" in imports(path)}
    assert importers <= {"parser.py", "transformer.py"}
    doors = {
        path.name
        for path in GRAMMAR_DIR.glob("*.py")
        if "grammar.transformer" in path.read_text() and path.name != "transformer.py"
    }
    assert doors == {"parser.py"}


def test_the_grammar_is_a_leaf_without_input_and_output() -> None:
    for path in GRAMMAR_DIR.glob("*.py"):
        assert not imports(path) & {"cache", "builder", "subprocess", "socket", "logging"}, path.name
