"""`pybuild check`: formats, exit codes, --fix, and findings of an ordinary build."""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from builder.commands import Environment, check
from builder.errors import BuildError, UsageError
from builder.findings import make_linter
from builder.lower import lower
from builder.options import BuildOptions
from builder.plan import Plan
from builder.scope import Checks
from cache.store import Store
from grammar.stages import parse
from tests.builder.planning import HOST, Images
from tests.conftest import Pybuild

TEXT = "FROM alpine as b\nCMD run $X\nENV A b c\n"


class Outcome:
    """What a run of the command gave."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


def run(directory: Path, *words: str, text: str | None = None) -> Outcome:
    if text is not None:
        (directory / "Dockerfile").write_text(text)
    parser = argparse.ArgumentParser(exit_on_error=False)
    check.add_arguments(parser)
    out, err = io.StringIO(), io.StringIO()
    root = str(directory / "store")
    environment = Environment(out, io.BytesIO(), err, {}, str(directory), root, lambda: 0)
    return Outcome(check.run(parser.parse_args(list(words)), environment), out.getvalue(), err.getvalue())


def test_text_has_place_excerpt_and_mark(tmp_path: Path) -> None:
    outcome = run(tmp_path, text=TEXT)
    assert outcome.code == 0
    assert outcome.out.split("\n\n")[0] == (
        "Dockerfile:1:13: warning: 'as' and 'FROM' keywords' casing do not match [FromAsCasing]\n"
        " 1 | FROM alpine as b\n"
        "   |             ^^"
    )
    assert outcome.out.endswith("Check complete, 3 warnings found.\n")
    assert not (tmp_path / "store").exists()


def test_nothing_found(tmp_path: Path) -> None:
    outcome = run(tmp_path, text="FROM alpine\nRUN x\n")
    assert (outcome.code, outcome.out) == (0, "Check complete, no warnings found.\n")


def test_errors_decide_the_exit_code(tmp_path: Path) -> None:
    outcome = run(tmp_path, text="FROM alpine\nNOPE x\nENV y\n")
    assert outcome.code == 1
    assert "Dockerfile:2:1: error: unknown instruction: NOPE" in outcome.out
    assert outcome.out.endswith("Check complete, 2 errors found.\n")
    assert run(tmp_path, text="# check=error=true\n" + TEXT).code == 1
    assert run(tmp_path, text="# check=error=true\nFROM alpine\n").code == 0
    assert run(tmp_path, text="FROM alpine:3\nADD a /b\n").code == 0
    assert run(tmp_path, "--rules", "DL3020").code == 1


def test_json_is_what_buildx_prints(tmp_path: Path) -> None:
    document = json.loads(run(tmp_path, "--format", "json", text=TEXT + "USER 'x\n").out)
    first = document["warnings"][0]
    assert (first["ruleName"], first["detail"]) == ("FromAsCasing", "'as' and 'FROM' keywords' casing do not match")
    assert first["location"] == {"ranges": [{"start": {"line": 1}, "end": {"line": 1}}]}
    assert first["url"].startswith("https://")
    assert document["sources"][0]["filename"] == "Dockerfile"
    assert document["buildError"]["location"]["ranges"][0]["start"]["line"] == 4


def test_as_buildx_prints_it(tmp_path: Path) -> None:
    text = "FROM alpine as b\nRUN a\n\tRUN b\nRUN c \\\n  d\nENV A b\n"
    outcome = run(tmp_path, "--format", "buildx", text=text)
    pages = "https://docs.docker.com/go/dockerfile/rule/"
    assert outcome.out == (
        "Check complete, 2 warnings have been found!\n\n"
        f"WARNING: FromAsCasing - {pages}from-as-casing/\n"
        "'as' and 'FROM' keywords' casing do not match\n"
        "Dockerfile:1\n--------------------\n"
        "   1 | >>> FROM alpine as b\n   2 |     RUN a\n   3 |     \tRUN b\n--------------------\n\n"
        f"WARNING: LegacyKeyValueFormat - {pages}legacy-key-value-format/\n"
        '"ENV key=value" should be used instead of legacy "ENV key value" format\n'
        "Dockerfile:6\n--------------------\n"
        "   4 |     RUN c \\\n   5 |       d\n   6 | >>> ENV A b\n   7 |     \n--------------------\n"
    )
    assert run(tmp_path, "--format", "buildx", text="FROM alpine\n").out == "Check complete, no warnings found.\n"
    failed = run(tmp_path, "--format", "buildx", text="FROM alpine\nNOPE\n")
    assert failed.code == 1
    assert failed.out.startswith("ERROR: unknown instruction: NOPE\nDockerfile:2\n")


def test_errors_of_several_instructions_are_told_together(tmp_path: Path) -> None:
    text = "FROM a\nRUN --mount=type=x true\nEXPOSE 80/x\nUSER ${x:?no}\nFROM b\nSTOPSIGNAL SIGX\nWORKDIR w\n"
    document = json.loads(run(tmp_path, "--format", "json", text=text).out)
    lines = [error["location"]["ranges"][0]["start"]["line"] for error in document["buildErrors"]]
    assert lines == [2, 3, 4, 6]
    assert [each["ruleName"] for each in document["warnings"]] == ["UndefinedVar", "WorkdirRelativePath"]


def test_contexts_that_are_no_directory(pybuild: Pybuild) -> None:
    done = pybuild("check", "-", input="FROM a as b\n", stdin=None)
    assert "Dockerfile:1:8: warning:" in done.stdout
    assert "1 warning has been found!" in pybuild("build", "--check", "-", input="FROM a as b\n", stdin=None).stdout
    archive = pybuild.cwd.parent / "context.tar"
    pybuild.write(Dockerfile="FROM a\nENV a b\n")
    with tarfile.open(archive, "w") as tar:
        tar.add(pybuild.cwd, ".")
    with archive.open() as stream:
        assert "[LegacyKeyValueFormat]" in pybuild("check", "-", stdin=stream).stdout


def test_sarif_says_where_in_terms_of_the_standard(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "D\u00fc").write_text("FROM a as b\n")
    (found,) = json.loads(run(tmp_path, "--format", "sarif", "-f", "a b/D\u00fc").out)["runs"]
    place = found["results"][0]["locations"][0]["physicalLocation"]
    assert place == {
        "artifactLocation": {"uri": "a%20b/D%C3%BC"},
        "region": {"startLine": 1, "startColumn": 8, "endColumn": 10},
    }
    assert found["columnKind"] == "unicodeCodePoints"


def test_sarif_names_its_rules(tmp_path: Path) -> None:
    document = json.loads(run(tmp_path, "--format", "sarif", text=TEXT + "USER 'x\n").out)
    (single,) = document["runs"]
    ids = [rule["id"] for rule in single["tool"]["driver"]["rules"]]
    assert ids == ["FromAsCasing", "JSONArgsRecommended", "LegacyKeyValueFormat", "DockerfileError"]
    assert [ids[result["ruleIndex"]] for result in single["results"]] == [each["ruleId"] for each in single["results"]]
    region = single["results"][0]["locations"][0]["physicalLocation"]["region"]
    assert region == {"startLine": 1, "startColumn": 13, "endColumn": 15}
    assert [result["level"] for result in single["results"]] == ["warning"] * 3 + ["error"]


def test_workflow_commands_are_escaped(tmp_path: Path) -> None:
    outcome = run(tmp_path, "--format", "github", text="FROM alpine\nWORKDIR 50%:x,y\n")
    assert outcome.out == (
        "::warning file=Dockerfile,line=2,endLine=2,col=9,title=WorkdirRelativePath::"
        'Relative workdir "50%25:x,y" can have unexpected results if the base image changes\n'
    )


def test_rules_are_turned_on_by_name(tmp_path: Path) -> None:
    text = "# what\nFROM alpine AS b\n"
    assert "no warnings" in run(tmp_path, text=text).out
    assert "[DL3006]" in run(tmp_path, "--rules", "DL3006,DL3007").out
    every = run(tmp_path, "--rules", "all").out
    assert "[InvalidDefinitionDescription]" in every
    assert "[DL3006]" in every
    with pytest.raises(UsageError) as caught:
        run(tmp_path, "--rules", "FromAsCase")
    assert caught.value.hint == "did you mean FromAsCasing?"


def test_build_arguments_and_ignore_file_count(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("secret\n")
    text = "ARG BASE\nFROM $BASE\nCOPY secret /\n"
    outcome = run(tmp_path, "--build-arg", "BASE=alpine", text=text)
    assert outcome.code == 0
    assert "[InvalidDefaultArgInFrom]" in outcome.out
    assert "[CopyIgnoredFile]" in outcome.out
    assert run(tmp_path).code == 1


def test_images_of_the_store_are_not_needed_but_used(tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "store")):
        pass
    assert run(tmp_path, text="FROM nowhere:1\nCOPY --from=elsewhere:2 /a /b\n").code == 0


def test_fix_rewrites_the_file_and_prints_the_rest(tmp_path: Path) -> None:
    outcome = run(tmp_path, "--fix", text=TEXT)
    assert (tmp_path / "Dockerfile").read_text() == 'FROM alpine AS b\nCMD run $X\nENV A="b c"\n'
    assert outcome.err == "fixed 2 findings in Dockerfile\n"
    assert "[JSONArgsRecommended]" in outcome.out
    assert "FromAsCasing" not in outcome.out
    before = (tmp_path / "Dockerfile").stat().st_ino
    assert run(tmp_path, "--fix").err == "fixed 0 findings in Dockerfile\n"
    assert (tmp_path / "Dockerfile").stat().st_ino == before


def test_fix_leaves_skipped_rules_alone(tmp_path: Path) -> None:
    text = "# check=skip=FromAsCasing\n" + TEXT
    run(tmp_path, "--fix", text=text)
    assert "alpine as b" in (tmp_path / "Dockerfile").read_text()


def test_fix_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        run(tmp_path, "--fix", "-f", "-", text=TEXT)


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot be empty"):
        run(tmp_path, text="\n")


def plan_of(text: str, **build_args: str) -> Plan:
    options: Any = BuildOptions(build_args=build_args)
    linter = make_linter(text.encode(), options)
    dockerfile = parse(text.encode(), linter=linter)
    return lower(dockerfile, options, Images(), filename="Dockerfile", host=HOST, checks=Checks(linter))


def test_a_plan_has_the_findings_as_warnings() -> None:
    text = "FROM busybox AS unused\nCMD x\nFROM busybox as b\nCMD y\n"
    found = [(each.rule, each.location and each.location.start_line) for each in plan_of(text).warnings]
    assert found == [("FromAsCasing", 3), ("JSONArgsRecommended", 4)]
    assert plan_of(text, BUILDKIT_DOCKERFILE_CHECK="skip=all").warnings == ()


def test_findings_stop_a_build_that_wants_that() -> None:
    with pytest.raises(BuildError) as caught:
        plan_of("# check=error=true\nFROM busybox as b\nCMD y\n")
    assert str(caught.value) == "lint violation found for rules: FromAsCasing, JSONArgsRecommended"
    assert caught.value.output.startswith("Dockerfile:2: FromAsCasing: ")
