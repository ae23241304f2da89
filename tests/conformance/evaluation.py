"""The kinds that evaluate a Dockerfile: the image it would make, and what the linter has to say.

Findings have no order. An error or a finding that the golden gives no lines is one whose place BuildKit does not know;
ours is not compared then.
"""

from __future__ import annotations

from typing import Any

from builder.errors import BuildError
from builder.findings import make_linter
from builder.frontend_options import CHECK_ARG
from builder.graph import CycleError
from builder.lower import lower, lower_for_findings
from builder.plan import Plan
from grammar.errors import DockerfileError
from grammar.lint import Finding, Linter
from grammar.stages import parse
from tests.conformance.compare import Case, difference
from tests.conformance.stub_world import HOST, StubWorld, build_options, checks

Error = BuildError | DockerfileError
Lines = list[list[int]]


def image_difference(source: bytes, golden: Case) -> str | None:
    """The config of the last stage; the decision is that of all stages."""
    _, error = _lint(source, golden, check="experimental=all")
    found = _error_difference(golden, golden["lint_all"]["error"], error)
    if found or golden["image"] is None:
        return found
    expected = golden["image"].get("error")
    try:
        make_linter(source, build_options())
        dockerfile = parse(source)
        findings = checks(golden, Linter())
        plan = lower(dockerfile, build_options(), StubWorld(), filename="Dockerfile", host=HOST, checks=findings)
    except (BuildError, DockerfileError) as failure:
        return None if expected else f"image: got error {failure}"
    return difference(golden["image"], image_of(plan), "image")


def lint_difference(source: bytes, golden: Case, kind: str) -> str | None:
    """The findings, and the error that ends them."""
    linter, error = _lint(source, golden, check="experimental=all" if kind == "lint_all" else "")
    expected = golden[kind]
    wanted = sorted(expected["warnings"], key=_order)
    got = sorted((_finding(each) for each in linter.findings), key=_order)
    for each in [each for each in wanted if not each["lines"]]:
        same = [other for other in got if {**other, "lines": []} == each]
        got = [each, *(other for other in got if other is not same[0])] if same else got
    if not golden["lint_stable"]:
        got, wanted = ([{**each, "message": ""} for each in side] for side in (got, wanted))
    return difference(wanted, got, "warnings") or _error_difference(golden, expected["error"], error)


def _finding(found: Finding) -> Case:
    return {"rule": found.rule.name, "lines": [list(found.range[:2])], "message": found.message}


def _order(finding: Case) -> tuple[Any, ...]:
    message = finding["message"]
    return finding["lines"], finding["rule"], message if isinstance(message, str) else message["$long"]["head"]


def _lint(source: bytes, golden: Case, *, check: str = "") -> tuple[Linter, Error | None]:
    """All stages evaluated for their findings; `check` stands in for the file's own directive."""
    options = build_options(**({CHECK_ARG: check} if check else {}))
    linter = Linter()
    try:
        linter = make_linter(source, options)
        dockerfile = parse(source, linter=linter)
        lower_for_findings(dockerfile, options, StubWorld(), host=HOST, checks=checks(golden, linter))
    except (BuildError, DockerfileError) as error:
        return linter, error
    return linter, None


def _error_difference(golden: Case, expected: Case | None, error: Error | None) -> str | None:
    """The difference in the decision and, where the golden has them, in its lines."""
    if (expected is None) != (error is None):
        return f"error: got {str(error) if error else 'no error'!a:.200}, expected {expected!a:.200}"
    if expected is None or error is None or not expected["lines"] or not golden["lint_stable"]:
        return None
    return difference(expected["lines"], _lines(error), "error.lines")


def _lines(error: Error) -> Lines:
    if isinstance(error, DockerfileError):
        return [list(lines) for lines in error.lines]
    if isinstance(error, CycleError):
        return _merged([[each.location.start_line, each.location.end_line] for each in error.commands])
    return [[error.location.start_line, error.location.end_line]] if error.location else []


def _merged(ranges: Lines) -> Lines:
    """Ranges that overlap made one."""
    merged: Lines = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], last)
        else:
            merged.append([first, last])
    return merged


def image_of(plan: Plan) -> Case:
    """The config of a planned image in the form of the goldens."""
    planned = plan.images[0]
    document = planned.config
    config = document.get("config", {})
    health = config.get("Healthcheck")
    history = [(entry["created_by"], bool(entry.get("empty_layer"))) for entry in planned.base_history]
    history += [(entry.created_by, entry.empty_layer) for entry in planned.history]
    return {
        "env": config.get("Env") or [],
        "user": config.get("User", ""),
        "workdir": config.get("WorkingDir", ""),
        "cmd": config.get("Cmd"),
        "entrypoint": config.get("Entrypoint"),
        "args_escaped": config.get("ArgsEscaped", False),
        "ports": sorted(config.get("ExposedPorts") or {}),
        "volumes": sorted(config.get("Volumes") or {}),
        "labels": config.get("Labels") or {},
        "onbuild": config.get("OnBuild") or [],
        "shell": config.get("Shell"),
        "stopsignal": config.get("StopSignal", ""),
        "healthcheck": health and _health(health),
        "author": document.get("author", ""),
        "os": document["os"],
        "arch": document["architecture"],
        "variant": document.get("variant", ""),
        "history": [{"created_by": text, "empty": empty} for text, empty in history],
    }


def _health(check: Case) -> Case:
    names = {"interval": "Interval", "timeout": "Timeout", "start_period": "StartPeriod"}
    names |= {"start_interval": "StartInterval", "retries": "Retries"}
    return {"test": check["Test"], **{name: check.get(key, 0) for name, key in names.items()}}
