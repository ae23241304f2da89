"""What a check found, for a person and for programs: text, JSON as buildx prints it, SARIF, workflow commands.

Source: BuildKit's lint results (JSON); SARIF 2.1.0; GitHub Actions, workflow commands.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from builder import __version__
from builder.check_run import Entry, Report
from grammar.errors import excerpt
from grammar.position import Range

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_ERROR_ID = "DockerfileError"


def text_report(report: Report) -> str:
    """Every entry with its lines and a mark under the text in question, and a line that counts."""
    source = report.source.decode("utf-8", "surrogateescape")
    return "".join(f"{_paragraph(entry, report.filename, source)}\n" for entry in report.entries) + _summary(report)


def _paragraph(entry: Entry, filename: str, source: str) -> str:
    rule = f" [{entry.rule.name}]" if entry.rule else ""
    lines = [f"{_place(entry, filename)}: {entry.level}: {_one_line(entry.message)}{rule}"]
    if entry.range.start_line:
        lines += excerpt(source, entry.range, entry.caret)
    lines += [f"hint: {_one_line(entry.hint)}"] if entry.hint else []
    return "".join(f"{line}\n" for line in lines)


def _place(entry: Entry, filename: str) -> str:
    caret = entry.caret
    column = f":{caret.start_column}" if caret.start_column else ""
    return f"{filename}:{caret.start_line}{column}" if entry.range.start_line else filename


def _one_line(text: str, keep: str = "") -> str:
    """Text that any terminal can take; the characters in `keep` stay as they are."""
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode("ascii") for char in text
    )


def _summary(report: Report) -> str:
    if not report.entries:
        return "Check complete, no warnings found.\n"
    counts = [(level, sum(entry.level == level for entry in report.entries)) for level in ("error", "warning", "note")]
    shown = [f"{count} {level}{'s' if count > 1 else ''}" for level, count in counts if count]
    return f"Check complete, {', '.join(shown)} found.\n"


def json_report(report: Report) -> str:
    """The document that `docker buildx build --call=check,format=json` prints, with the level besides."""
    warnings = [
        {
            "ruleName": entry.rule.name,
            "description": entry.rule.description,
            "url": entry.rule.url,
            "detail": _valid(entry.message),
            "level": entry.level,
            "location": _location(entry.range),
        }
        for entry in report.entries
        if entry.rule
    ]
    data = base64.b64encode(report.source).decode("ascii")
    document: dict[str, Any] = {
        "warnings": warnings,
        "sources": [{"filename": report.filename, "language": "Dockerfile", "data": data}],
    }
    errors = [
        {"message": _valid(entry.message), "location": _location(entry.range)}
        for entry in report.entries
        if not entry.rule
    ]
    if errors:
        document |= {"buildError": errors[0], "buildErrors": errors}
    return json.dumps(document, indent=2) + "\n"


def _location(place: Range) -> dict[str, Any]:
    if not place.start_line:
        return {"ranges": []}
    return {"ranges": [{"start": {"line": place.start_line}, "end": {"line": place.end_line}}]}


def _valid(text: str) -> str:
    """Text without the bytes that are none."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def sarif_report(report: Report) -> str:
    """One run with the rules that found something, for tools that show findings beside the source."""
    used = {entry.rule.name: entry.rule for entry in report.entries if entry.rule}
    rules: list[dict[str, Any]] = [
        {
            "id": rule.name,
            "shortDescription": {"text": rule.description},
            **({"helpUri": rule.url} if rule.url else {}),
            "defaultConfiguration": {"level": rule.level},
        }
        for rule in used.values()
    ]
    if any(entry.rule is None for entry in report.entries):
        rules.append({"id": _ERROR_ID, "shortDescription": {"text": "the Dockerfile cannot be built"}})
    ids = [rule["id"] for rule in rules]
    driver = {"name": "pybuild", "version": __version__, "rules": rules}
    results = [_result(entry, report.filename, ids) for entry in report.entries]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    document = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=2) + "\n"


def _result(entry: Entry, filename: str, ids: list[str]) -> dict[str, Any]:
    name = entry.rule.name if entry.rule else _ERROR_ID
    place: dict[str, Any] = {"artifactLocation": {"uri": quote(filename)}}
    if entry.range.start_line:
        place["region"] = {"startLine": entry.range.start_line, "endLine": entry.range.end_line}
        if entry.caret.start_column:
            place["region"] = {"startLine": entry.caret.start_line, "startColumn": entry.caret.start_column}
            place["region"]["endColumn"] = entry.caret.end_column + 1
    return {
        "ruleId": name,
        "ruleIndex": ids.index(name),
        "level": entry.level,
        "message": {"text": _valid(entry.message)},
        "locations": [{"physicalLocation": place}],
    }


def github_report(report: Report) -> str:
    """A workflow command per entry, which annotates the lines of a change."""
    return "".join(_command(entry, report.filename) for entry in report.entries)


def _command(entry: Entry, filename: str) -> str:
    properties: dict[str, str] = {"file": filename}
    if entry.range.start_line:
        properties |= {"line": str(entry.caret.start_line), "endLine": str(entry.range.end_line)}
    if entry.caret.start_column:
        properties["col"] = str(entry.caret.start_column)
    properties["title"] = entry.rule.name if entry.rule else _ERROR_ID
    level = "notice" if entry.level == "note" else entry.level
    shown = ",".join(f"{name}={_escaped(value, ',:')}" for name, value in properties.items())
    return f"::{level} {shown}::{_escaped(_valid(entry.message))}\n"


def _escaped(text: str, more: Iterable[str] = "") -> str:
    for char in ("%", "\r", "\n", *more):
        text = text.replace(char, f"%{ord(char):02X}")
    return text


def buildx_report(report: Report) -> str:
    """What `docker buildx build --call=check` prints: a count, and every finding with the lines around it."""
    findings = [entry for entry in report.entries if entry.rule]
    errors = [entry for entry in report.entries if not entry.rule]
    source = report.source.decode("utf-8", "surrogateescape").split("\n")
    text = ""
    if findings:
        counted = "1 warning has" if len(findings) == 1 else f"{len(findings)} warnings have"
        text = f"Check complete, {counted} been found!\n"
    for entry in findings:
        url = f" - {entry.rule.url}" if entry.rule and entry.rule.url else ""
        text += f"\nWARNING: {entry.rule.name if entry.rule else ''}{url}\n{_one_line(entry.message)}\n"
        text += _surroundings(source, entry.range, report.filename)
    for entry in errors:
        text += ("\n" if text else "") + f"ERROR: {_one_line(entry.message)}\n"
        text += _surroundings(source, entry.range, report.filename)
    return text or "Check complete, no warnings found.\n"


def _surroundings(source: list[str], place: Range, filename: str) -> str:
    """The lines of a place, marked, between some before and after them; a single line gets more."""
    if not 1 <= place.start_line <= len(source):
        return ""
    first, last = place.start_line, min(max(place.end_line, place.start_line), len(source))
    wanted, shown = 4 if first == last else 2, range(first, last + 1)
    while wanted > 0:
        wanted -= 1 + (first > 1) + (last < len(source))
        first, last = max(first - 1, 1), min(last + 1, len(source))
    rows = [f" {line:3d} | {'>>>' if line in shown else '   '} {source[line - 1]}" for line in range(first, last + 1)]
    rule = "-" * 20
    return "".join(f"{_one_line(row, keep=chr(9))}\n" for row in (f"{filename}:{shown[0]}", rule, *rows, rule))


FORMATS = {
    "text": text_report,
    "buildx": buildx_report,
    "json": json_report,
    "sarif": sarif_report,
    "github": github_report,
}
