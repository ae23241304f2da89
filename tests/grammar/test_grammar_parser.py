from __future__ import annotations

import pytest

from grammar.errors import DockerfileError
from grammar.nodes import AstNode
from grammar.parser import parse_ast


def node(line: str) -> AstNode:
    (only,) = parse_ast(line.encode("utf-8", "surrogateescape")).nodes
    return only


@pytest.mark.parametrize(
    ("line", "flags", "args"),
    [
        ('COPY --a="x y" --b=\'"\' c d', ("--a=x y", '--b="'), ("c", "d")),
        ("COPY --from=x\\ y  a b", ("--from=x y",), ("a", "b")),
        ("COPY a --from=x b", (), ("a", "--from=x", "b")),
        ("COPY --link -- --odd b", ("--link",), ("--odd", "b")),
        ('COPY --"" --odd b', (), ("--odd", "b")),
        ('COPY "--link" b', (), ('"--link"', "b")),
        ('COPY --from="x a b', ("--from=x a b",), ()),
        ("COPY --chown=ü a b", ("--chown=Ã¼",), ("a", "b")),
        ("COPY --chown=à a b", ("--chown=Ã",), ("a", "b")),
        ("RUN \u00a0--x y", (), ("--x y",)),
        ("RUN --x", ("--x",), ()),
    ],
)
def test_flags_are_read_byte_by_byte_up_to_the_first_argument(
    line: str, flags: tuple[str, ...], args: tuple[str, ...]
) -> None:
    assert (node(line).flags, node(line).args) == (flags, args)


@pytest.mark.parametrize(
    ("line", "args", "is_json"),
    [
        ('CMD ["a", "\\u00e9\\ud800"]', ("a", "é\ufffd"), True),
        ("CMD []", (), True),
        ("CMD ['a']", ("['a']",), False),
        ('CMD ["a",]', ('["a",]',), False),
        ('CMD ["a"] b', ('["a"] b',), False),
        ('CMD ["C:\\x"]', ('["C:\\x"]',), False),
        ("CMD [1, ]", ("[1, ]",), False),
        ("CMD [1e999]", ("[1e999]",), False),
        ("CMD " + "[" * 20000, ("[" * 20000,), False),
        ('COPY ["a b", "c"]', ("a b", "c"), True),
        ('EXPOSE ["80"]', ('["80"]',), False),
        ('HEALTHCHECK CMD ["a"]', ("CMD", "a"), True),
    ],
)
def test_json_form_needs_a_list_of_strings(line: str, args: tuple[str, ...], is_json: bool) -> None:
    assert (node(line).args, node(line).json) == (args, is_json)


@pytest.mark.parametrize("text", ["[1]", '["a", null]', "[[]]", '[{"a": ["b"]}]', "[" * 5000 + "]" * 5000])
def test_valid_json_with_something_else_in_it_is_refused(text: str) -> None:
    with pytest.raises(DockerfileError, match="strings only"):
        node("RUN " + text)


@pytest.mark.parametrize(
    ("line", "args"),
    [
        ('ENV a=b c="d e" f=\\ g', ("a", "b", "=", "c", '"d e"', "=", "f", "\\ g", "=")),
        ("ENV a  b = c", ("a", "b = c", "")),
        ("ENV a\u00a0=b x", ("a\u00a0=b", "x", "")),
        ("ENV 'a=b c", ("'a", "b c", "=")),
        ("ARG a b=c 'd e'", ("a", "b=c", "'d e'")),
        ("ARG a\udcff=b", ("a\ufffd=b",)),
        ("EXPOSE a\u00a0b c", ("a\u00a0b", "c")),
        ("NOPE a b", ("",)),
    ],
)
def test_words_of_each_sub_language(line: str, args: tuple[str, ...]) -> None:
    assert node(line).args == args


@pytest.mark.parametrize("line", ["ENV a", "ENV a\u00a0b", "ENV a=b c", "LABEL a=b # c"])
def test_a_pair_needs_a_value(line: str) -> None:
    with pytest.raises(DockerfileError):
        node(line)


def test_keywords_fold_as_single_letters() -> None:
    assert node("wor\u212adir /x").keyword == "WORKDIR"
    assert node("u\u017fer x").keyword == ""
    assert node("Run x").instr == "Run"


def test_onbuild_holds_its_instruction() -> None:
    outer = node('ONBUILD --x COPY --from=a ["b", "c"]')
    assert outer.flags == ("--x",)
    assert outer.child is not None
    assert outer.child.original == 'COPY --from=a ["b", "c"]'
    assert (outer.child.flags, outer.child.args, outer.child.json) == (("--from=a",), ("b", "c"), True)


def test_deep_triggers_are_refused_without_recursion() -> None:
    with pytest.raises(DockerfileError, match="nested"):
        node("ONBUILD " * 5000 + "RUN x")


def test_the_backtick_takes_the_place_of_the_backslash() -> None:
    ast = parse_ast(b'# escape=`\nCOPY --a=x`  y b\nENV c=d` e\\ f="`""\n')
    assert ast.nodes[0].flags == ("--a=x ",)
    assert ast.nodes[1].args == ("c", "d` e\\", "=", "f", '"`""', "=")
