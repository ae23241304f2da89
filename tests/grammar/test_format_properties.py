"""The canonical form of any Dockerfile means the same, by its AST and by the shell that will read it."""

from __future__ import annotations

import dataclasses
import subprocess
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from grammar import nodes
from grammar.errors import DockerfileError
from grammar.format import format_dockerfile
from grammar.format_meaning import meaning
from grammar.parser import parse_ast
from grammar.stages import parse
from tests.shared import shared_dir

LAYOUT_FIELDS = frozenset(("name", "original", "range", "source", "warnings", "keyword", "expression"))
SHELL_FIELDS = frozenset(("cmdline", "test"))
KEYWORDS = st.sampled_from(
    ["RUN", "copy", "env", "ONBUILD run", "healthcheck cmd", "Cmd", "# c", "", "arg", "From", "USER"]
)
PIECES = st.sampled_from(
    [
        *(
            "a",
            "b",
            "a=b",
            "as",
            "'",
            '"',
            "\\",
            " \\\n",
            "\\\n",
            "\\ \n",
            " \\\n# c\n",
            " \\\n\n",
            "#",
            " ",
            "\t",
            "  ",
            "\r",
        ),
        *(
            "--from=x ",
            "--link ",
            "$(",
            ")",
            "${",
            "}",
            "`",
            "<<EOF",
            "\nEOF",
            '["a"]',
            "[",
            "]",
            "\udcff",
            "\xa0",
            "case",
            ",",
        ),
    ]
)
INSTRUCTIONS = st.builds(
    lambda keyword, blank, pieces: keyword + blank + "".join(pieces),
    KEYWORDS,
    st.sampled_from([" ", "  ", " \\\n", "\t"]),
    st.lists(PIECES, max_size=12),
)
TEXT = st.lists(INSTRUCTIONS, max_size=3).map(lambda lines: "FROM a\n" + "\n".join(lines))
SHELL_WORDS = st.lists(
    st.sampled_from(
        [
            "a",
            "b",
            "'",
            '"',
            "\\",
            " ",
            "  ",
            "\t",
            "\\\n",
            " \\\n  ",
            "$(printf 'x  y')",
            '"$(printf "x  y")"',
            "${v}",
            "${v:-p  q}",
        ]
    ),
    max_size=16,
).map("".join)


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def typed(value: Any) -> Any:
    """The typed instructions without what is only layout; blanks of shell text as single ones."""
    if isinstance(value, nodes.OnbuildInstruction):
        return typed(parse_ast(encoded(value.expression)).nodes[0].keyword)
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {
            name: _words(item) if name in SHELL_FIELDS else typed(item)
            for name, item in fields.items()
            if name not in LAYOUT_FIELDS
        }
    return [typed(item) for item in value] if isinstance(value, tuple) else value


def _words(texts: tuple[str, ...] | None) -> list[list[str]] | None:
    return None if texts is None else [text.split() for text in texts]


def check(source: bytes) -> None:
    try:
        expected = parse(source)
    except DockerfileError:
        return
    formatted = format_dockerfile(source)
    assert typed(parse(formatted)) == typed(expected)
    assert meaning(parse_ast(formatted)) == meaning(parse_ast(source))
    assert format_dockerfile(formatted) == formatted
    assert formatted.endswith(b"\n")


@given(TEXT)
@settings(max_examples=300, deadline=None)
@example("FROM a\nRUN \r\\")
@example("FROM a\nRUN  \\\n\xa0\\")
def test_any_dockerfile_keeps_its_meaning(text: str) -> None:
    check(encoded(text))


def test_the_corpus_keeps_its_meaning() -> None:
    shared = shared_dir()
    if shared is None:
        pytest.skip("no shared conformance cases beside the checkout")
    paths = [path for path in sorted((shared / "conformance" / "parse").glob("**/files/*")) if path.is_file()]
    assert len(paths) > 500
    for path in paths:
        check(path.read_bytes())


@given(SHELL_WORDS)
@settings(max_examples=60, deadline=None)
def test_a_shell_reads_the_same_words(words: str) -> None:
    source = encoded(f"FROM a\nRUN printf '<%s>' {words}\n")
    try:
        texts = [_run_text(source), _run_text(format_dockerfile(source))]
    except DockerfileError:
        return
    outputs = [
        subprocess.run(["/bin/sh", "-c", text], capture_output=True, check=False, env={"v": "1  2"}) for text in texts
    ]
    assert (outputs[0].returncode, outputs[0].stdout) == (outputs[1].returncode, outputs[1].stdout)


def _run_text(source: bytes) -> str:
    run = parse(source).stages[0].commands[0]
    assert isinstance(run, nodes.RunInstruction)
    assert run.cmdline
    return run.cmdline[0]


def test_the_meaning_sees_a_change() -> None:
    source = b"FROM a AS b\nRUN x 'y  z'\nCOPY --link a b\n"
    for old, new in (
        (b"'y  z'", b"'y z'"),
        (b"--link ", b""),
        (b"AS b", b"AS c"),
        (b"COPY", b"ADD"),
        (b"FROM", b"# c\nFROM"),
    ):
        assert meaning(parse_ast(source.replace(old, new))) != meaning(parse_ast(source))
    assert meaning(parse_ast(source.replace(b"x 'y", b"x   'y"))) == meaning(parse_ast(source))
