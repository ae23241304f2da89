"""Runs the parser's conformance cases: `python -m tests.conformance.parse [--cases DIR] [--kind KIND ...]`.

A folder of cases is laid out as its README says: golden files beside Dockerfiles, and tables. Each failing case gets a
line with the first difference; the last line counts. Messages are not compared, decisions and lines are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from grammar.directives import detect_syntax, read_directives
from grammar.errors import DockerfileError
from grammar.parser import parse_ast
from grammar.stages import parse
from tests.conformance import as_json, evaluation, parse_tables
from tests.conformance.compare import Case, attempt, difference, refusal
from tests.conformance.parse_tables import Outcome
from tests.shared import shared_dir


def goldens(cases_dir: Path) -> Iterator[tuple[str, bytes, Case]]:
    """Every Dockerfile with its golden result."""
    for golden_dir, files_dir in (("golden", "files"), ("stress/golden", "stress/files")):
        generated = cases_dir / "stress" / "generated.json"
        made = json.loads(generated.read_text()) if generated.exists() else {}
        for path in sorted((cases_dir / golden_dir).glob("*.json")):
            golden = json.loads(path.read_text())
            source_path = cases_dir / files_dir / path.name.removesuffix(".json")
            if source_path.exists():
                yield golden["file"], source_path.read_bytes(), golden
            else:
                repeated = made[path.name.removesuffix(".json")]
                yield golden["file"], "".join(text * times for text, times in repeated).encode(), golden


def run_ast(cases_dir: Path) -> Outcome:
    for name, source, golden in goldens(cases_dir):
        yield name, _ast_difference(source, golden)


def _ast_difference(source: bytes, golden: Case) -> str | None:
    directives, directives_error = read_directives(source)
    expected = {key: golden[key] for key in ("syntax", "directives")}
    got = as_json.directives(detect_syntax(source), directives)
    found = difference(expected, got) or refusal(golden["directives_error"], directives_error, "directives_error")
    ast, error = attempt(parse_ast, source)
    found = found or _place_difference(golden["parse_error"], error, "parse_error")
    return found or (None if ast is None else difference(golden["ast"], as_json.ast(ast), "ast"))


def _place_difference(expected: Case | None, error: DockerfileError | None, where: str) -> str | None:
    """The difference in the decision and its lines."""
    if expected is None or error is None:
        return refusal(expected["message"] if expected else None, error, where)
    return difference(expected["ranges"], [list(lines) for lines in error.lines], f"{where}.ranges")


def run_instructions(cases_dir: Path) -> Outcome:
    for name, source, golden in goldens(cases_dir):
        dockerfile, error = attempt(parse, source)
        expected = golden["parse_error"] or golden["instructions_error"]
        found = _place_difference(expected, error, "instructions_error")
        if not found and dockerfile is not None:
            found = difference(golden["meta_args"], as_json.meta_args(dockerfile), "meta_args")
            found = found or difference(golden["stages"], as_json.stages(dockerfile), "stages")
        yield name, found


def run_image(cases_dir: Path) -> Outcome:
    for name, source, golden in goldens(cases_dir):
        yield name, evaluation.image_difference(source, golden)


def run_lint_all(cases_dir: Path) -> Outcome:
    for name, source, golden in goldens(cases_dir):
        yield name, evaluation.lint_difference(source, golden, "lint_all")


def run_lint_default(cases_dir: Path) -> Outcome:
    for name, source, golden in goldens(cases_dir):
        yield name, evaluation.lint_difference(source, golden, "lint_default")


KINDS: dict[str, Callable[[Path], Outcome]] = {
    "ast": run_ast,
    "instructions": run_instructions,
    "image": run_image,
    "lint_all": run_lint_all,
    "lint_default": run_lint_default,
    "words": parse_tables.run_words,
    "dockerignore": parse_tables.run_dockerignore,
    "refs": parse_tables.run_refs,
    "platforms": parse_tables.run_platforms,
    "mounts": parse_tables.run_mounts,
    "ports": parse_tables.run_ports,
    "values": parse_tables.run_values,
    "gitrefs": parse_tables.run_gitrefs,
    "buildopts": parse_tables.run_buildopts,
}


def run(cases_dir: Path, kinds: list[str], report: Callable[[str], None]) -> tuple[Counter[str], Counter[str]]:
    """Counts of passed and failed cases by kind; `report` gets a line per failing case."""
    passed: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for kind in kinds:
        for name, found in KINDS[kind](cases_dir):
            (failed if found else passed)[kind] += 1
            if found:
                report(f"FAIL {kind} {name}: {found}")
    return passed, failed


def main(argv: list[str]) -> int:
    """0 if every case passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.parse")
    parser.add_argument("--cases", type=Path, help="folder of cases; default: conformance/parse of the shared folder")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this kind; may be repeated")
    options = parser.parse_args(argv)
    shared = shared_dir()
    cases_dir = options.cases or (shared / "conformance" / "parse" if shared else None)
    if cases_dir is None:
        parser.error("no shared folder, expected --cases DIR")
    kinds = options.kind or list(KINDS)
    passed, failed = run(cases_dir, kinds, print)
    for kind in kinds:
        print(f"{kind}: {passed[kind]} passed, {failed[kind]} failed")
    print(f"{passed.total()} passed, {failed.total()} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
