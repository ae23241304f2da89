"""The tables of the parser's conformance cases: words, ignore files, references, platforms, mounts, ports, values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from builder.errors import BuildError, UsageError
from builder.frontend_options import read_options
from builder.lower import lower
from builder.scope import Checks
from grammar.errors import DockerfileError
from grammar.gitref import parse_git_ref
from grammar.ignore import IgnoreMatcher, MatchState, read_patterns
from grammar.lint import Linter
from grammar.mount_flag import MountFlag, parse_device, parse_mount
from grammar.nodes import HealthcheckInstruction
from grammar.platforms import Platform, best_first, normalize, parse_platform
from grammar.reference import parse_any_reference, parse_reference
from grammar.stages import parse
from grammar.values import parse_chmod, parse_duration, parse_size
from grammar.words import Lexer
from tests.conformance import as_json
from tests.conformance.compare import Case, attempt, difference, refusal, text_bytes
from tests.conformance.stub_world import StubWorld, build_options

Outcome = Iterator[tuple[str, str | None]]
"""Case names, each with its first difference or None."""

HOST = Platform("linux", "amd64")


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
    patterns, error = attempt(read_patterns, text_bytes(text))
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
    for path in sorted(on_disk, key=lambda path: [text_bytes(part) for part in path.rstrip("/").split("/")]):
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
    linter = Linter()
    source = b"FROM scratch\nEXPOSE " + text_bytes(case["input"]) + b"\n"
    try:
        plan = lower(
            parse(source), build_options(), StubWorld(), filename="Dockerfile", host=HOST, checks=Checks(linter)
        )
    except (BuildError, DockerfileError) as error:
        return None if case["error"] else f"error: got {str(error)!a}, expected none"
    if case["error"]:
        return f"error: got no error, expected {case['error']!a:.200}"
    ports = sorted(plan.images[0].config["config"].get("ExposedPorts", {}))
    got = {
        "ports": ports if len(ports) <= 40 else ports[:10] + ports[-10:],
        "count": len(ports),
        "warnings": sorted(
            ({"rule": each.rule.name, "message": each.message} for each in linter.findings),
            key=lambda warning: (warning["rule"], warning["message"]),
        ),
    }
    wanted = {key: case[key] for key in got}
    wanted["warnings"].sort(key=lambda warning: (warning["rule"], warning["message"]))
    return difference(wanted, got)


def run_gitrefs(cases_dir: Path) -> Outcome:
    for case in table(cases_dir, "gitrefs")["cases"]:
        found, error = attempt(parse_git_ref, case["input"])
        is_git = found is not None or error is not None
        different = difference(case["is_git"], is_git, "is_git")
        different = different or refusal(case["error"] if is_git else None, error, "error")
        got = as_json.git_ref(found) if found is not None else None
        yield case["id"], different or difference(case["ref"], got, "ref")


def run_buildopts(cases_dir: Path) -> Outcome:
    for case in table(cases_dir, "buildopts")["cases"]:
        yield case["id"], _options_difference(case)


def _options_difference(case: Case) -> str | None:
    try:
        options = read_options(case["opts"], HOST)
    except UsageError as error:
        return None if case["error"] else f"error: got {str(error)!a}, expected none"
    if case["error"]:
        return f"error: got no error, expected {case['error']!a:.200}"
    expected = {**case["result"], "extra_hosts": as_json.extra_hosts(case["result"]["extra_hosts"])}
    got = as_json.frontend_options(options)
    found = difference(expected, got, "result")
    return found or (None if expected == got else f"result: got {got!a}, expected {expected!a}")


def run_values(cases_dir: Path) -> Outcome:
    for case in table(cases_dir, "values")["cases"]:
        yield case["id"], _VALUES[case["kind"]](case)


def _duration_difference(case: Case) -> str | None:
    def health() -> int:
        source = f"FROM scratch\nHEALTHCHECK --interval={case['input']} CMD true\n"
        check = parse(text_bytes(source)).stages[0].commands[0]
        assert isinstance(check, HealthcheckInstruction)
        return check.interval

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
