"""Runs the parser's conformance cases: `python -m tests.conformance.parse [--cases DIR] [--kind KIND ...]`.

A folder of cases is laid out as its README says: golden files beside Dockerfiles, and tables. Each failing case gets a
line with the first difference; the last line counts. Messages are not compared, decisions and lines are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from grammar.directives import detect_syntax, read_directives
from grammar.errors import DockerfileError
from grammar.ignore import IgnoreMatcher, MatchState, read_patterns
from grammar.mount_flag import MountFlag, parse_device, parse_mount
from grammar.parser import parse_ast
from grammar.platforms import Platform, best_first, normalize, parse_platform
from grammar.ports import parse_ports
from grammar.reference import parse_any_reference, parse_reference
from grammar.stages import parse
from grammar.values import parse_chmod, parse_duration, parse_size
from grammar.words import Lexer
from tests.conformance import as_json
from tests.shared import shared_dir

Case = dict[str, Any]
Outcome = Iterator[tuple[str, str | None]]
"""Case names, each with its first difference or None."""

HOST = Platform("linux", "amd64")


def difference(expected: Any, got: Any, where: str = "") -> str | None:
    """The first place where two JSON values differ, None if they do not; long values are compared by hash."""
    if isinstance(expected, dict) and "$long" in expected:
        return _by_hash(expected["$long"], got, where, isinstance(got, str), _text_bytes)
    if isinstance(expected, dict) and "$longlist" in expected:
        return _by_hash(expected["$longlist"], got, where, isinstance(got, list), _list_bytes)
    if isinstance(expected, dict) and isinstance(got, dict):
        for key in expected:
            value = got.get(key, "(missing)")
            if key.endswith("_error") and (expected[key] is None) == (value is None):
                continue
            found = difference(expected[key], value, f"{where}.{key}")
            if found:
                return found
        return None
    if isinstance(expected, list) and isinstance(got, list):
        for index, (left, right) in enumerate(zip(expected, got, strict=False)):
            found = difference(left, right, f"{where}[{index}]")
            if found:
                return found
        same = len(expected) == len(got)
        return None if same else f"{where}: {len(got)} items, expected {len(expected)}"
    same = expected == got and isinstance(expected, bool) == isinstance(got, bool)
    return None if same else f"{where}: got {got!a:.200}, expected {expected!a:.200}"


def _by_hash(short: Case, got: Any, where: str, fits: bool, encode: Callable[[Any], bytes]) -> str | None:
    if fits and hashlib.sha256(encode(got)).hexdigest() == short["sha256"]:
        return None
    return f"{where}: a long value differs, got {got!a:.100}"


def _text_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _list_bytes(values: list[Any]) -> bytes:
    return json.dumps(values, ensure_ascii=True, separators=(",", ":"), sort_keys=True).encode()


def attempt(function: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, DockerfileError | None]:
    """What `function` returns, or the error it refuses with."""
    try:
        return function(*args, **options), None
    except DockerfileError as error:
        return None, error


def refusal(expected: str | None, error: DockerfileError | None, where: str) -> str | None:
    """The difference in the decision alone."""
    if (expected is None) == (error is None):
        return None
    return f"{where}: got {error.message if error else 'no error'!a}, expected {expected!a:.200}"


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


def table(cases_dir: Path, name: str) -> Case:
    """One table of cases; empty if the folder has none."""
    path = cases_dir / f"{name}.json"
    loaded: Case = json.loads(path.read_text()) if path.exists() else {"cases": []}
    return loaded


LEXER_OPTIONS = {
    "RawQuotes": "raw_quotes",
    "RawEscapes": "raw_escapes",
    "SkipProcessQuotes": "skip_process_quotes",
    "SkipUnsetEnv": "skip_unset_env",
}


def environment(pairs: list[str]) -> dict[str, str]:
    return {pair.partition("=")[0]: pair.partition("=")[2] for pair in pairs}


def run_words(cases_dir: Path) -> Outcome:
    for case in table(cases_dir, "words")["cases"]:
        options = {LEXER_OPTIONS[name]: value for name, value in (case.get("options") or {}).items()}
        lexer = Lexer(case["escape"], **options)
        env = environment(case["env"])
        word, error = attempt(lexer.process_word_with_matches, case["word"], env)
        words, _ = attempt(lexer.process_words, case["word"], env)
        found = refusal(case["error"], error, "error")
        if not found and word is not None:
            got = {
                "process_word": word.result,
                "process_words": words,
                "matched": sorted(word.matched),
                "unmatched": sorted(word.unmatched),
            }
            found = difference({key: case[key] for key in got}, got)
        yield case["id"], found


def run_dockerignore(cases_dir: Path) -> Outcome:
    loaded = table(cases_dir, "dockerignore")
    for case in loaded["cases"]:
        yield case["id"], _ignore_difference(case, loaded["trees"].get(case.get("tree")))


def _ignore_difference(case: Case, tree: Case | None) -> str | None:
    text = case["ignorefile"]
    text = text if isinstance(text, str) else "".join(part * times for part, times in text["repeat"])
    patterns, error = attempt(read_patterns, _text_bytes(text))
    found = refusal(case["read_error"], error, "read_error") or difference(case["patterns"], patterns, "patterns")
    if found or patterns is None:
        return found
    matcher, error = attempt(IgnoreMatcher, patterns)
    found = refusal(case["pattern_error"], error, "pattern_error")
    if found or matcher is None:
        return found
    paths = case.get("paths") or (tree["paths"] if tree else [])
    answers = {path: attempt(matcher.ignores, path.rstrip("/")) for path in paths}
    got = {
        "has_exclusions": matcher.has_exceptions,
        "ignored": [path for path, (ignored, _) in answers.items() if ignored],
        "kept": [path for path, (ignored, failure) in answers.items() if not ignored and not failure],
        "unmatchable": [path for path, (_, failure) in answers.items() if failure],
    }
    expected = {**case, "unmatchable": list(case["match_error"] or {})}
    found = difference({key: expected[key] for key in got}, got)
    if found or case["sent"] is None or tree is None:
        return found
    return difference(case["sent"], sent(matcher, tree["on_disk"]), "sent")


def sent(matcher: IgnoreMatcher, on_disk: list[str]) -> list[str]:
    """What a walk over a tree sends: kept paths, each with its directories before it."""
    states: dict[str, MatchState] = {}
    skipped: list[str] = []
    result: list[str] = []
    for path in sorted(on_disk, key=lambda path: [_text_bytes(part) for part in path.rstrip("/").split("/")]):
        name = path.rstrip("/")
        if any(path.startswith(prefix) for prefix in skipped):
            continue
        ignored, state = matcher.match(name, states.get(name.rpartition("/")[0]))
        if path.endswith("/"):
            states[name] = state
            if ignored and not matcher.may_have_exceptions_below(name):
                skipped.append(path)
        if not ignored:
            parents = [name[: index + 1] for index, char in enumerate(name) if char == "/"]
            result += [parent for parent in parents if parent not in result]
            result.append(path)
    return result


def run_refs(cases_dir: Path) -> Outcome:
    for case in table(cases_dir, "refs")["cases"]:
        reference, error = attempt(parse_reference, case["input"])
        found = refusal(case["error"], error, "error")
        found = found or difference(case["any"], attempt(parse_any_reference, case["input"])[0], "any")
        if not found and reference is not None:
            found = difference(
                {key: case[key] for key in case if key not in ("id", "any")},
                as_json.reference(case["input"], reference),
            )
        yield case["id"], found


def run_platforms(cases_dir: Path) -> Outcome:
    for case in table(cases_dir, "platforms")["cases"]:
        if case["kind"] == "match":
            platforms = {text: parse_platform(text, HOST) for text in (*case["candidates"], case["target"])}
            texts = {platform: text for text, platform in reversed(platforms.items())}
            target = platforms[case["target"]]
            candidates = [platforms[text] for text in case["candidates"]]
            got = {
                "matches_best_first": [texts[found] for found in best_first(target, candidates)],
                "strict": [texts[found] for found in best_first(target, candidates, strict=True)],
            }
            yield case["id"], difference({key: case[key] for key in got}, got)
            continue
        platform, error = attempt(parse_platform, case["input"], HOST)
        found = refusal(case["error"], error, "error")
        if not found and platform is not None:
            found = difference(case["parsed"], as_json.platform(platform), "parsed")
            found = found or difference(case["normalized"], as_json.platform(normalize(platform)), "normalized")
        yield case["id"], found


def run_mounts(cases_dir: Path) -> Outcome:
    for case in table(cases_dir, "mounts")["cases"]:
        if case["kind"] == "device":
            device, error = attempt(parse_device, case["input"])
            found = refusal(case["error"], error, "error")
            yield case["id"], found or difference(case["device"], device._asdict() if device else None, "device")
            continue
        _, parse_error = attempt(parse_mount, case["input"], None)
        found = refusal(case["parse_error"], parse_error, "parse_error")
        if not found and parse_error is None:
            env = environment(case["env"])
            mount, error = attempt(parse_mount, case["input"], lambda text, env=env: Lexer().process_word(text, env))
            found = refusal(case["error"], error, "error")
            found = found or difference(case["mount"], as_json.mount(mount or MountFlag()) if mount else None, "mount")
        yield case["id"], found


def run_ports(cases_dir: Path) -> Outcome:
    for case in table(cases_dir, "ports")["cases"]:
        yield case["id"], _ports_difference(case)


def _ports_difference(case: Case) -> str | None:
    def exposed() -> list[str]:
        dockerfile = parse(b"FROM scratch\nEXPOSE " + _text_bytes(case["input"]) + b"\n")
        words = [word for text in dockerfile.stages[0].commands[0].ports for word in Lexer().process_words(text, {})]
        return sorted(set(parse_ports(words)))

    ports, error = attempt(exposed)
    found = refusal(case["error"], error, "error")
    if found or ports is None:
        return found
    shown = ports if len(ports) <= 40 else ports[:10] + ports[-10:]
    return difference({"ports": case["ports"], "count": case["count"]}, {"ports": shown, "count": len(ports)})


def run_values(cases_dir: Path) -> Outcome:
    for case in table(cases_dir, "values")["cases"]:
        yield case["id"], _VALUES[case["kind"]](case)


def _duration_difference(case: Case) -> str | None:
    def health() -> int:
        source = f"FROM scratch\nHEALTHCHECK --interval={case['input']} CMD true\n"
        interval: int = parse(_text_bytes(source)).stages[0].commands[0].interval
        return interval

    duration, error = attempt(parse_duration, case["input"])
    found = refusal(case["go_error"], error, "go_error") or difference(case["ns"], duration, "ns")
    interval, error = attempt(health)
    found = found or refusal(case["healthcheck_error"], error, "healthcheck_error")
    return found or difference(case["healthcheck_ns"], interval, "healthcheck_ns")


def _size_difference(case: Case) -> str | None:
    found = None
    for name, kilo in (("ram", 1024), ("si", 1000)):
        size, error = attempt(parse_size, case["input"], kilo=kilo)
        found = found or refusal(case[f"{name}_error"], error, f"{name}_error")
        found = found or difference(case[f"{name}_bytes"], size, f"{name}_bytes")
    return found


def _chmod_difference(case: Case) -> str | None:
    mode, error = attempt(parse_chmod, case["input"])
    found = refusal(case["error"], error, "error")
    if found or mode is None:
        return found
    got = {"mode": 0, "mode_str": mode} if isinstance(mode, str) else {"mode": mode, "mode_str": ""}
    return difference({key: case[key] for key in got}, got)


_VALUES = {"duration": _duration_difference, "size": _size_difference, "chmod": _chmod_difference}

KINDS: dict[str, Callable[[Path], Outcome]] = {
    "ast": run_ast,
    "instructions": run_instructions,
    "words": run_words,
    "dockerignore": run_dockerignore,
    "refs": run_refs,
    "platforms": run_platforms,
    "mounts": run_mounts,
    "ports": run_ports,
    "values": run_values,
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
